"""The jobs of an experiment over the API: filters, pages, logs of jobs, who may ask."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client

from profiles.models import RunnerProfile
from runners.models import RunnerRun
from runners.services import jobs
from runners.services.machines.local import LocalRunner
from tests.support import job_lists
from tests.support.api import Api
from tests.support.environments import StubAccount
from tests.support.job_lists import SUBMITTED, day, job, row

pytestmark = pytest.mark.django_db
PREFIX = "/v4/runners/"

SIM = "a001_20000101_fc0_1_SIM"
JOBS = [
    job("a001_INI", "COMPLETED", section="INI", id=7),
    job(SIM, "FAILED", date=day("20000101"), member="fc0", chunk=1, split=2, id=8),
    *(job(f"a001_POST_{number}", "WAITING", section="POST") for number in range(5)),
]


@pytest.fixture
def run(account: StubAccount, settings: Any) -> RunnerRun:
    settings.PROTECTION_LEVEL = "NONE"
    job_lists.write(account.home, "a001", JOBS)
    job_lists.history(
        account.home, "a001", [row(SIM, 0, status="FAILED", job_id=5), row(SIM, 1, status="FAILED", job_id=8)]
    )
    job_lists.write_log(account.home, "a001", f"{SIM}.1.err", "Zeile 1\nKein Speicherplatz für x\n".encode())
    RunnerProfile.objects.create(name="HERE", runner_type="LOCAL", module_loader_type="NO_MODULE")
    config = account.config().as_dict()
    return RunnerRun.objects.create(
        expid="a001", config=config, runner="LOCAL", module_loader="NO_MODULE", status="COMPLETED", exit_code=0
    )


def get(client: Client, path: str, expect: int = 200, **headers: str) -> Any:
    response = client.get(f"{PREFIX}{path}", headers=headers)
    assert response.status_code == expect, response.content
    return response.json() if "json" in response["Content-Type"] else response


def test_the_jobs_of_a_run(client: Client, run: RunnerRun) -> None:
    body = get(client, f"runs/{run.pk}/jobs")
    assert body["expid"] == "a001"
    assert (body["total"], body["counts"]) == (7, {"WAITING": 5, "COMPLETED": 1, "FAILED": 1})
    assert (body["failed_jobs"], body["matching"], body["attempts_known"]) == ([SIM], 7, True)
    assert (body["next_cursor"], body["next"]) == (None, None)
    found = body["results"][1]
    times = [found.pop(name) for name in ("submitted", "started", "finished")]
    assert times == ["2026-09-21T14:13:20Z", "2026-09-21T14:13:30Z", "2026-09-21T14:14:30Z"], SUBMITTED
    first, second = found.pop("attempts")
    assert (first["number"], first["remote_id"], first["err"]) == (1, 5, f"{SIM}.0.err")
    assert (second["number"], second["remote_id"], second["status"]) == (2, 8, "FAILED")
    assert found == {
        "name": SIM,
        "section": "SIM",
        "date": "20000101",
        "member": "fc0",
        "chunk": 1,
        "split": 2,
        "status": "FAILED",
        "platform": "LOCAL",
        "remote_id": 8,
        "out": f"{SIM}.1.out",
        "err": f"{SIM}.1.err",
    }
    waiting = body["results"][2]
    assert [waiting[name] for name in ("remote_id", "submitted", "started", "finished", "out", "err")] == [None] * 6


def test_filters_and_pages(client: Client, run: RunnerRun) -> None:
    def names(query: str) -> list[str]:
        return [each["name"] for each in get(client, f"runs/{run.pk}/jobs?{query}")["results"]]

    assert names("status=FAILED,COMPLETED") == ["a001_INI", SIM]
    assert names("section=INI") == ["a001_INI"]
    assert names("date=20000101&member=fc0&chunk=1&split=2&platform=LOCAL&name=sim") == [SIM]
    assert names("ordering=-name&page_size=1") == ["a001_POST_4"]
    page, seen = f"runs/{run.pk}/jobs?status=WAITING&page_size=2", []
    while page:
        body = get(client, page)
        assert body["matching"] == 5
        seen += [each["name"] for each in body["results"]]
        page = (body["next"] or "").removeprefix(PREFIX)
    assert seen == [f"a001_POST_{number}" for number in range(5)]


@pytest.mark.parametrize(
    "query",
    ["status=DONE", "chunk=x", "chunk=0", "page_size=501", "cursor=abc", "ordering=id", "nam=x", "status=", "name=%00"],
)
def test_a_wrong_query_is_an_error_with_a_remedy(client: Client, run: RunnerRun, query: str) -> None:
    body = get(client, f"runs/{run.pk}/jobs?{query}", 400)
    assert list(body["errors"]) == [query.partition("=")[0]]


def test_the_log_of_a_job(client: Client, run: RunnerRun) -> None:
    path = f"runs/{run.pk}/jobs/{SIM}/log"
    body = get(client, path)
    assert (body["text"], body["offset"], body["next_offset"], body["ended"]) == (
        "Zeile 1\nKein Speicherplatz für x\n",
        0,
        34,
        True,
    )
    part = get(client, f"{path}?offset=8&limit=17&encoding=base64")
    assert (base64.b64decode(part["data"]), part["ended"]) == (b"Kein Speicherplat", False)
    assert get(client, f"{path}?tail=16")["text"].endswith("für x\n")
    assert get(client, f"{path}?attempt=1", 404)["code"] == "log_not_found"
    assert get(client, f"{path}?stream=out", 404)["code"] == "log_not_found"
    assert get(client, f"{path}?stream=log", 400)["errors"]
    assert get(client, f"runs/{run.pk}/jobs/..%2f..%2fpasswd/log", 404)["code"] in ("log_not_found", "not_found")
    plain = get(client, path, Accept="text/plain")
    assert (plain.content.decode()[:7], plain["X-Log-Size"]) == ("Zeile 1", "34")


def test_the_jobs_of_an_experiment_that_was_never_run_here(client: Client, run: RunnerRun) -> None:
    run.delete()
    assert get(client, "experiments/a001/jobs?profile_name=HERE")["total"] == 7
    assert get(client, "experiments/a002/jobs?profile_name=HERE", 404)["code"] == "jobs_not_found"
    assert get(client, "experiments/a001/jobs", 400)["errors"]["profile_name"]
    assert get(client, "experiments/a001/jobs?profile_name=HER", 404)["code"] == "profile_not_found"
    assert get(client, "experiments/A001;x/jobs?profile_name=HERE", 400)["code"] == "invalid_request"


def test_the_rules_of_a_profile_apply(client: Client, run: RunnerRun, settings: Any) -> None:
    group = Group.objects.create(name="modellers")
    profile = RunnerProfile.objects.get()
    profile.run_groups.add(group)
    assert get(client, "experiments/a001/jobs?profile_name=HERE", 403)["code"] == "profile_forbidden"
    profile.run_groups.clear()
    profile.view_groups.add(group)
    RunnerRun.objects.update(profile_id=profile.pk)
    assert get(client, "experiments/a001/jobs?profile_name=HERE", 403)["code"] == "profile_forbidden"
    for path in (f"runs/{run.pk}/jobs", f"runs/{run.pk}/jobs/{SIM}/log"):
        assert get(client, path, 404)["code"] == "run_not_found"
    profile.view_groups.clear()
    settings.PROTECTION_LEVEL = "WRITEONLY"
    assert get(client, f"runs/{run.pk}/jobs")["total"] == 7
    assert get(client, "experiments/a001/jobs?profile_name=HERE", 401)["code"] == "not_authenticated"


def test_many_viewers_cost_one_question(
    client: Client, run: RunnerRun, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.RUNNERS_STATUS_FRESHNESS = 60
    asked = []
    exchange = LocalRunner.exchange

    def counted(self: LocalRunner, *args: Any) -> None:
        asked.append(args)
        exchange(self, *args)

    monkeypatch.setattr(LocalRunner, "exchange", counted)
    for _ in range(20):
        get(client, f"runs/{run.pk}/jobs")
    assert len(asked) == 1
    assert jobs.counts_of(run).total == 7
    assert len(asked) == 1


def test_a_damaged_job_list_is_an_error_of_its_own(client: Client, run: RunnerRun, account: StubAccount) -> None:
    job_lists.write_bytes(account.home, "a001", b"no pickle")
    assert get(client, f"runs/{run.pk}/jobs", 502)["code"] == "jobs_unreadable"


def test_a_user_without_groups_is_no_problem(run: RunnerRun, api: Api) -> None:
    User.objects.create_user("ana")
    assert get(api.client, f"runs/{run.pk}/jobs")["total"] == 7
