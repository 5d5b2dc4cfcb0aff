"""recover, refresh, inspect, archive, unarchive and delete, with real Autosubmits and their real outputs."""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from profiles.models import RunnerProfile
from runners.commands.archive_experiment import ARCHIVE_EXPERIMENT, UNARCHIVE_EXPERIMENT
from runners.commands.base import OneShotCommand
from runners.commands.delete_experiment import DELETE_EXPERIMENT
from runners.commands.inspect_experiment import INSPECT_EXPERIMENT
from runners.commands.recover_experiment import RECOVER_EXPERIMENT, read_recovered
from runners.commands.refresh_experiment import REFRESH_EXPERIMENT
from runners.models import AuditRecord, RunnerRun
from runners.services.machines.runner import CommandResult
from tests.support.api import Api
from tests.support.commands import switch_all_on
from tests.support.environments import NEWEST, AutosubmitAccount, StubAccount, autosubmit_venv, live_in
from tests.support.requirements import need
from tests.support.runs import end_of, start

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("open_to_all"), pytest.mark.timeout(300)]

OLDEST = "4.0.105"
HOLDS_LOCK = ("recover", "refresh", "inspect", "archive", "delete")
GREEN, END, ORANGE, RED = "\x1b[32m", "\x1b[0m\x1b[39m", "\x1b[33;20m", "\x1b[31m"

# Outputs of 4.0.105 and 4.1.17.1, shortened to the lines that matter: command, exit code, text, is it a success?
OUTPUTS: list[tuple[OneShotCommand, int, str, bool]] = [
    (RECOVER_EXPERIMENT, 0, f"Updating the jobs list\n{GREEN}Recovery finalized{END}\n", True),
    (
        RECOVER_EXPERIMENT,
        0,
        f"{ORANGE}[WARNING] Changes NOT saved to the jobList. Use -s option to save{END}\n"
        f"{GREEN}Recovery finalized{END}\n",
        False,
    ),
    (
        RECOVER_EXPERIMENT,
        141,
        f"\x1b[1m {RED}[CRITICAL] Experiment can't be recovered due being 2 active jobs in your [eCode=7053]{END}\n",
        False,
    ),
    (REFRESH_EXPERIMENT, 0, f"{GREEN}Project folder updated{END}\n", True),
    (REFRESH_EXPERIMENT, 153, "Cloning main /x.git into /proj\n", False),
    (INSPECT_EXPERIMENT, 0, "No more scripts to generate, you can proceed to check them manually\n", True),
    (INSPECT_EXPERIMENT, 0, "no more scripts to generate, now proceed to check them manually\n", True),
    (ARCHIVE_EXPERIMENT, 0, f"Tar file created!\n{GREEN}Experiment archived successfully{END}\n", True),
    (ARCHIVE_EXPERIMENT, 0, "Tar file created!\n", False),
    (UNARCHIVE_EXPERIMENT, 0, f"{GREEN}Experiment a001 unarchived successfully{END}\n", True),
    # 4.0.105 ends with 0 in both cases.
    (UNARCHIVE_EXPERIMENT, 0, f"\x1b[38;5;214m[ERROR] Experiment a001 is not archived{END}\n", False),
    (UNARCHIVE_EXPERIMENT, 0, f"\x1b[38;5;214m[ERROR] Can not extract file: ended before[eCode=6012]{END}\n", False),
    # 4.0.105 prints this line before it removes the directory.
    (DELETE_EXPERIMENT, 0, f"{GREEN}Experiment a001 deleted{END}\n", False),
    (
        DELETE_EXPERIMENT,
        0,
        f"{GREEN}The a001 experiment was removed from the local disk and from the database. Note that ...\n",
        True,
    ),
    (DELETE_EXPERIMENT, 0, f"/home/a001/conf/x.yml\n/metadata/data/job_data_a001.db\n{END}\n", True),
    (
        DELETE_EXPERIMENT,
        1,
        f"\x1b[38;5;214m[ERROR] Failed to delete experiment a001: Ensure no processes are running{END}\n",
        False,
    ),
]


@pytest.mark.parametrize(("command", "code", "output", "is_success"), OUTPUTS)
def test_only_the_line_of_success_proves_success(
    command: OneShotCommand, code: int, output: str, is_success: bool
) -> None:
    result = CommandResult(code, output.encode(), b"", 1.0)
    assert command.is_success(result.exit_code, result.text) is is_success
    assert not command.is_success(1, result.text)


def test_a_recovery_of_4_0_prints_only_completed_jobs() -> None:
    old = read_recovered(b"CHANGED job 'a001_ONE' status to COMPLETED\n")
    assert (old.jobs, old.completed, old.selected, old.waiting) == ({"a001_ONE": "COMPLETED"}, 1, None, None)
    text = "The selected number of jobs to recover is 1500\n"
    text += "".join(f"CHANGED job 'a001_{n}_SIM' status to COMPLETED\n" for n in range(1500))
    new = read_recovered(text.encode())
    assert (len(new.jobs), new.changed, new.completed, new.waiting) == (1000, 1500, 1500, 0)
    assert RECOVER_EXPERIMENT.restored(RECOVER_EXPERIMENT.stored(new)) == new


# --- with the stand-in ------------------------------------------------------------------------------------------------


@pytest.fixture
def api(client: Client) -> Api:
    RunnerProfile.objects.create(name="HERE", runner_type="LOCAL", module_loader_type="NO_MODULE")
    switch_all_on()
    return Api(client)


def body_of(name: str, expid: str, **params: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"expid": expid, "profile_name": "HERE"}
    if params:
        body["command_params"] = params
    return body | ({"confirm_expid": expid} if name == "delete" else {})


@contextmanager
def locked(root: Path, expid: str) -> Iterator[None]:
    """Hold Autosubmit's lock of an experiment, as a run does that somebody started by hand."""
    file = root / expid / "tmp" / "autosubmit.lock"
    file.parent.mkdir(exist_ok=True)
    with file.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


@pytest.mark.parametrize("prefer", ["", "respond-async, wait=60"], ids=["request", "operation"])
def test_a_run_that_somebody_else_started_is_in_the_way(
    client: Client, account: StubAccount, api: Api, prefer: str
) -> None:
    account.experiment("a001")
    api.headers = {"Prefer": prefer} if prefer else {}
    with locked(account.home / "autosubmit", "a001"):
        for name in HOLDS_LOCK:
            answer = api.post(f"{name}-experiment", body_of(name, "a001"), expect=409)
            assert answer["code"] == "already_running", answer
    words = {"recovery", "refresh", "inspect", "archive", "delete"}
    assert not [call for call in account.calls() if words & set(call)], "Autosubmit was executed"
    assert api.post("archive-experiment", body_of("archive", "a001"))["warnings"] == []


def test_the_lock_is_held_until_the_command_ends(account: StubAccount, api: Api) -> None:
    """The stand-in tries to take the lock, as a run would."""
    account.experiment("a001")
    lock = account.home / "autosubmit" / "a001" / "tmp" / "autosubmit.lock"
    lock.parent.mkdir(exist_ok=True)
    lock.touch()
    control = account.home / ".stub-autosubmit" / "control" / "refresh.a001"
    control.parent.mkdir(parents=True, exist_ok=True)
    control.write_text(f"flock -n {lock} true && touch ~/was_free || touch ~/was_locked\n")  # the stand-in sources it
    api.post("refresh-experiment", body_of("refresh", "a001"))
    assert (account.home / "was_locked").exists()
    assert not (account.home / "was_free").exists()
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # free again


@pytest.mark.parametrize("name", HOLDS_LOCK)
def test_our_own_run_is_in_the_way(account: StubAccount, api: Api, name: str) -> None:
    config = RunnerProfile.objects.get().resolve({})
    run = start(account, config, SLEEP=600)
    answer = api.post(f"{name}-experiment", body_of(name, run.expid), expect=409)
    assert (answer["code"], answer["run"]["runner_id"]) == ("already_running", run.pk)
    assert (account.home / "autosubmit" / run.expid).exists()


def test_an_archived_experiment_is_named_and_its_runs_stay_readable(account: StubAccount, api: Api) -> None:
    config = RunnerProfile.objects.get().resolve({})
    run = end_of(start(account, config))
    api.post("archive-experiment", body_of("archive", run.expid))
    for name in ("run", "refresh", "archive"):
        answer = api.post(f"{name}-experiment", body_of(name, run.expid), expect=404)
        assert answer["code"] == "experiment_not_found"
        assert f"archived in 2026/{run.expid}.tar.gz" in answer["detail"], answer
    assert api.get(f"/v4/runners/runs/{run.pk}")["status"] == "COMPLETED"
    assert "Run successful" in api.get(f"/v4/runners/runs/{run.pk}/log")["text"]
    assert api.post("get-runner-run-status", {"expid": run.expid})["status"] == "TERMINATED"  # that never started
    api.post("unarchive-experiment", body_of("unarchive", run.expid))
    answer = api.post("unarchive-experiment", body_of("unarchive", run.expid), expect=502)
    assert "its directory exists" in answer["detail"]
    assert (account.home / "autosubmit" / run.expid).exists()


def test_a_deletion_needs_the_experiment_twice_and_an_admin(account: StubAccount, client: Client) -> None:
    RunnerProfile.objects.create(name="HERE", runner_type="LOCAL", module_loader_type="NO_MODULE")
    api = Api(client)
    account.experiment("a001")
    body = body_of("delete", "a001")
    assert api.post("delete-experiment", body, expect=403)["code"] == "endpoint_disabled"
    switch_all_on()
    del body["confirm_expid"]
    assert "confirm_expid" in api.post("delete-experiment", body, expect=400)["errors"]
    wrong = {**body, "confirm_expid": "a002"}
    assert "Repeat a001" in api.post("delete-experiment", wrong, expect=400)["errors"]["confirm_expid"][0]
    assert (account.home / "autosubmit" / "a001").exists()
    assert AuditRecord.objects.filter(endpoint="delete-experiment").count() == 3


def test_a_deleted_experiment_keeps_its_runs(account: StubAccount, api: Api) -> None:
    config = RunnerProfile.objects.get().resolve({})
    run = end_of(start(account, config))
    api.post("delete-experiment", body_of("delete", run.expid))
    assert not (account.home / "autosubmit" / run.expid).exists()
    assert api.get(f"/v4/runners/runs/{run.pk}")["status"] == "COMPLETED"
    assert "Run successful" in api.get(f"/v4/runners/runs/{run.pk}/log")["text"]
    assert api.post("delete-experiment", body_of("delete", run.expid), expect=404)["code"] == "experiment_not_found"
    assert RunnerRun.objects.count() == 1


# --- with real Autosubmits --------------------------------------------------------------------------------------------


@pytest.fixture(params=[OLDEST, NEWEST])
def real(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[AutosubmitAccount]:
    if request.param == OLDEST and not autosubmit_venv(OLDEST).is_dir():
        pytest.skip(f"Autosubmit {OLDEST} needs Python 3.9, which is not installed: see tools/autosubmit-venv")
    need(autosubmit_venv(request.param).is_dir(), f"Autosubmit {request.param}")
    account = AutosubmitAccount(tmp_path, request.param)
    live_in(account, monkeypatch)
    yield account
    account.kill()


@pytest.mark.real
def test_the_life_of_an_experiment(client: Client, real: AutosubmitAccount) -> None:
    """Each command, as the files and the database of Autosubmit show its effect."""
    RunnerProfile.objects.create(
        name="HERE", runner_type="LOCAL", module_loader_type="VENV", modules=str(autosubmit_venv(real.version))
    )
    switch_all_on()
    api = Api(client)
    expid = real.short_experiment("true", jobs=("ONE", "TWO"))
    root, folder = real.root, real.root / expid
    is_old = real.version == OLDEST

    def do(name: str, **params: Any) -> dict[str, Any]:
        return api.post(f"{name}-experiment", body_of(name, expid, **params))

    do("inspect")
    assert sorted(file.name for file in (folder / "tmp").glob("*.cmd")) == [f"{expid}_ONE.cmd", f"{expid}_TWO.cmd"]
    real.autosubmit("run", expid)
    real.autosubmit("create", "-np", expid)  # its job list has forgotten what was done
    assert set(real.job_statuses(expid).values()) == {"READY"}
    plan = api.post("recover-experiment", {**body_of("recover", expid, all=True), "dry_run": True})
    assert f"2 jobs would be COMPLETED: {expid}_ONE, {expid}_TWO." in plan["warnings"]
    assert set(real.job_statuses(expid).values()) == {"READY"}
    body = {**body_of("recover", expid, all=True, job_names_list=[f"{expid}_ONE"])}
    if is_old:
        assert "command_params.job_names_list" in api.post("recover-experiment", body, expect=400)["errors"]
    else:
        assert api.post("recover-experiment", body)["recovered"] == {f"{expid}_ONE": "COMPLETED"}
        assert real.job_statuses(expid) == {f"{expid}_ONE": "COMPLETED", f"{expid}_TWO": "READY"}
    answer = do("recover", all=True)
    assert answer["recovered"] == {f"{expid}_ONE": "COMPLETED", f"{expid}_TWO": "COMPLETED"}
    unknown = None if is_old else 0
    assert answer["counts"] == {"selected": None if is_old else 2, "completed": 2, "waiting": unknown}
    assert set(real.job_statuses(expid).values()) == {"COMPLETED"}

    if is_old:  # it has a project, whose code changes
        (real.home / f"project-{expid}" / "job.sh").write_text("echo changed\n")
    refreshed = do("refresh")
    if is_old:
        assert "echo changed" in next((folder / "proj").rglob("job.sh")).read_text(), refreshed

    with locked(root, expid):
        for name in HOLDS_LOCK:
            assert api.post(f"{name}-experiment", body_of(name, expid), expect=409)["code"] == "already_running"
    do("archive")
    (archive,) = root.glob(f"20*/{expid}.tar.gz")
    assert not folder.exists()
    answer = api.post("run-experiment", body_of("run", expid), expect=404)
    assert f"archived in {archive.parent.name}/{archive.name}" in answer["detail"]
    do("unarchive")
    assert not archive.exists()
    assert set(real.job_statuses(expid).values()) == {"COMPLETED"}
    do("delete")
    assert not folder.exists()
    with closing(sqlite3.connect(root / "autosubmit.db")) as database:
        assert not database.execute("SELECT * FROM experiment WHERE name = ?", [expid]).fetchall()


def test_an_option_that_an_older_version_does_not_know_is_named() -> None:
    """4.1.8 to 4.1.12 end with code 1 and print their help only."""
    argv = RECOVER_EXPERIMENT.argv("a001", {"all": True, "offline": True, "job_names_list": ["a001_SIM"]})
    assert RECOVER_EXPERIMENT.may_need_newer(argv, 1)
    old, newer = (RECOVER_EXPERIMENT.needs_newer(argv, version) for version in ("4.1.10", "4.1.16"))
    assert old is not None and newer is not None
    assert (old.parameters, newer.parameters) == (("offline", "job_names_list"), ("job_names_list",))
    assert RECOVER_EXPERIMENT.needs_newer(argv, "4.1.17.1") is None
    assert not RECOVER_EXPERIMENT.may_need_newer(RECOVER_EXPERIMENT.argv("a001", {"all": True}), 1)
