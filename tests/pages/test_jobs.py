"""The jobs on the page of a run, and the page of a job's log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client

from profiles.models import RunnerProfile
from runners.models import RunnerRun
from runners.services import jobs
from tests.support import job_lists
from tests.support.environments import StubAccount
from tests.support.job_lists import job, row

pytestmark = pytest.mark.django_db
HTMX = {"HX-Request": "true"}


@pytest.fixture
def run(account: StubAccount, client: Client) -> Iterator[RunnerRun]:
    jobs.forget()
    client.force_login(User.objects.create_user("ana"))
    waiting = [job(f"a001_{number:02}_POST", "WAITING") for number in range(60)]
    found = [job("a001_SIM", "FAILED", id=8, chunk=3), job("a001_INI", "COMPLETED", id=7), *waiting]
    job_lists.write(account.home, "a001", found)
    job_lists.history(account.home, "a001", [row("a001_SIM", 0, job_id=7), row("a001_SIM", 1, job_id=8)])
    job_lists.write_log(
        account.home, "a001", "a001_SIM.1.err", b"\x1b[31m<b>no space\x1b[0m\n" + b"x" * 100_000 + b"\nend\n"
    )
    profile = RunnerProfile.objects.create(name="HERE", runner_type="LOCAL", module_loader_type="NO_MODULE")
    yield RunnerRun.objects.create(
        expid="a001",
        config=account.config().as_dict(),
        runner="LOCAL",
        module_loader="NO_MODULE",
        profile_id=profile.pk,
        profile_name="HERE",
    )
    jobs.forget()


def text(client: Client, path: str, *, expect: int = 200, **headers: Any) -> str:
    response = client.get(path, headers=headers.get("headers"))
    assert response.status_code == expect, response.content
    return response.content.decode()


def test_the_failed_jobs_come_first(client: Client, run: RunnerRun) -> None:
    assert f'hx-get="/runs/{run.pk}/jobs"' in text(client, f"/runs/{run.pk}")
    part = text(client, f"/runs/{run.pk}/jobs", headers=HTMX)
    assert "<html" not in part
    assert "a001_SIM" in part
    assert "chunk 3" in part
    assert "a001_INI" not in part
    assert f'href="/runs/{run.pk}/jobs/a001_SIM/log?stream=err"' in part
    assert 'Waiting <span class="count">60</span>' in part
    assert "every 10s" in part


def test_choices_names_and_pages(client: Client, run: RunnerRun) -> None:
    page = text(client, f"/runs/{run.pk}/jobs?show=all&page=3")  # without JavaScript: a whole page
    assert "<html" in page
    assert "Page 3 of 3, 62 jobs." in page
    assert "a001_59_POST" in page
    found = text(client, f"/runs/{run.pk}/jobs?show=waiting&name=_07_", headers=HTMX)
    assert "a001_07_POST" in found
    assert "a001_08_POST" not in found
    assert "&lt;i&gt;" in text(client, f"/runs/{run.pk}/jobs?show=all&name=<i>", headers=HTMX)
    for strange in ("show=x", "page=0", "page=99999999999999", "page=a", "name=%ff"):
        text(client, f"/runs/{run.pk}/jobs?{strange}", headers=HTMX)


def test_the_log_of_a_job(client: Client, run: RunnerRun) -> None:
    page = text(client, f"/runs/{run.pk}/jobs/a001_SIM/log?stream=err")
    assert "end" in page
    assert "no space" not in page
    for _ in range(2):  # the second line is longer than one part
        link = page.partition("Show the part before")[0].rpartition('href="')[2].partition('"')[0]
        page = text(client, link.replace("&amp;", "&"))
    assert "&lt;b&gt;no space" in page
    assert 'class="fg1"' in page
    assert "does not have this log" in text(client, f"/runs/{run.pk}/jobs/a001_SIM/log?stream=out")
    assert "no job of this name" in text(client, f"/runs/{run.pk}/jobs/nothing/log")
    assert "2 attempts" in text(client, f"/runs/{run.pk}/jobs/a001_SIM/log?attempt=7")


def test_no_job_list_is_a_note(client: Client, run: RunnerRun, account: StubAccount) -> None:
    job_lists.write_bytes(account.home, "a001", b"").unlink()
    assert "has no job list" in text(client, f"/runs/{run.pk}/jobs", headers=HTMX)
    jobs.forget()
    job_lists.write_bytes(account.home, "a001", b"garbage")
    assert "cannot be read" in text(client, f"/runs/{run.pk}/jobs", headers=HTMX)


def test_names_that_are_no_path_have_no_link(client: Client, run: RunnerRun, account: StubAccount) -> None:
    job_lists.write(account.home, "a001", [job("a001/../<script>", "FAILED", id=3)])
    part = text(client, f"/runs/{run.pk}/jobs", headers=HTMX)
    assert "a001/../&lt;script&gt;" in part
    assert "/log?" not in part


def test_a_hidden_run_has_no_jobs(client: Client, run: RunnerRun) -> None:
    RunnerProfile.objects.get().view_groups.add(Group.objects.create(name="modellers"))
    text(client, f"/runs/{run.pk}/jobs", expect=404)
    text(client, f"/runs/{run.pk}/jobs/a001_SIM/log", expect=404)
    client.logout()
    assert client.get(f"/runs/{run.pk}/jobs").status_code == 302
