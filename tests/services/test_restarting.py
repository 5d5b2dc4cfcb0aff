"""Runs that are started again after a reboot, or after Autosubmit gave up because of a platform.

A reboot is imitated: the processes of the run are killed, and its row gets the boot id of another boot.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection
from django.test import Client
from django.utils import timezone

from profiles.config import RunnerConfig
from profiles.models import EndpointToggle, RunnerProfile
from runners.commands import run_log
from runners.models import AuditRecord, Maintenance, RunnerRun, Webhook, WebhookDelivery
from runners.services import probing, restart_plans, restarting, starting
from runners.services.machines.local import LocalRunner
from runners.services.machines.probe import cannot_tell
from runners.services.machines.ssh.target import SSHTarget
from tests.support.api import Api, unused_expid
from tests.support.environments import StubAccount
from tests.support.processes import free_port, kill_all, wait_for, with_environment
from tests.support.rows import api_of, open_profile, saved_run
from tests.support.runs import end_of, restart_due

pytestmark = pytest.mark.django_db(transaction=True)

BOTH: dict[str, Any] = {"on": ["lost", "platform"], "attempts": 2}
GAVE_UP = (
    "[CRITICAL] Issues while checking the connectivity of platforms. [eCode=7010]\n"
    "Trace: \n[MARE] Connection Unsuccessful to host mare.example.org "
)


@pytest.fixture
def expid() -> str:
    return unused_expid()


@pytest.fixture
def profile(settings: Any) -> RunnerProfile:
    settings.RUNNERS_RESTART_DELAY = 0
    Webhook.objects.create(name="all", url="http://127.0.0.1:1/", events=["run.restarted"])
    return RunnerProfile.objects.create(name="HERE", runner_type="LOCAL", module_loader_type="NO_MODULE")


Start = Callable[..., RunnerRun]


@pytest.fixture
def start(account: StubAccount, profile: RunnerProfile, ana: User, expid: str) -> Start:
    """Start a run of the stand-in as Ana."""
    account.experiment(expid)

    def make(restart: dict[str, Any] | None = BOTH, params: dict[str, Any] | None = None, **control: Any) -> RunnerRun:
        account.control("run", expid, **{"SLEEP": 600, **control})
        calls = len(account.calls("run"))
        run = starting.run_experiment(
            expid=expid,
            config=profile.resolve({}),
            profile_name=profile.name,
            audit=AuditRecord(endpoint="run-experiment", actor="ana"),
            params=params,
            restart=restart,
        )
        wait_for(lambda: len(account.calls("run")) > calls, what="the run")
        return run

    return make


def kill(run: RunnerRun) -> None:
    assert run.pid and run.identity
    os.kill(run.identity["supervisor_pid"], signal.SIGKILL)
    os.killpg(run.pid, signal.SIGKILL)
    kill_all(with_environment("AUTOSUBMIT_RUNNERS_KEY", run.key))


def reboot(run: RunnerRun) -> RunnerRun:
    """Let the machine of the run be rebooted, and a probe see that."""
    kill(run)
    run.identity = {**(run.identity or {}), "boot_id": "0" * 32}
    run.save(update_fields=["identity"])
    probing.probe([run])
    assert (run.status, run.reason) == ("TERMINATED", "lost")
    return run


def newest(expid: str) -> RunnerRun:
    return RunnerRun.objects.filter(expid=expid).latest("id")


def events() -> list[dict[str, Any]]:
    return [row.payload["data"] for row in WebhookDelivery.objects.order_by("id") if row.event == "run.restarted"]


def make_due(run: RunnerRun) -> None:
    RunnerRun.objects.filter(pk=run.pk).update(restart_at=timezone.now())


# --- which ends count -------------------------------------------------------------------------------------------------


def test_a_run_is_started_again_after_a_reboot(start: Start, account: StubAccount, expid: str) -> None:
    old = reboot(start(params={"update_version": True}))
    assert restart_plans.is_pending(old)
    said: list[str] = []
    restart_due(said.append)
    new = newest(expid)
    old.refresh_from_db()
    assert said == [f"{expid}: run {old.pk} was started again, as run {new.pk}"]
    assert new.is_active
    assert (new.previous_run, new.started_by, new.restarts, new.restart) == (old.pk, "ana", 1, BOTH)
    assert (new.config, new.profile_name, new.profile_id) == (old.config, old.profile_name, old.profile_id)
    assert new.command_params == {"update_version": True}
    first, second = wait_for(lambda: len(found := account.calls("run")) == 2 and found, what="the run")
    assert first == second
    assert (old.restart_at, old.restart_detail) == (None, f"Started again as run {new.pk}.")
    record = AuditRecord.objects.latest("id")
    assert (record.actor, record.endpoint, record.outcome, record.run_id) == ("ana", "run-experiment", "ok", new.pk)
    assert f"of run {old.pk}" in record.detail
    (event,) = events()
    assert (event["restarted"], event["runner_id"], event["previous_run"]) == (True, new.pk, old.pk)
    restart_due()
    assert RunnerRun.objects.count() == 2


def test_a_restart_waits_for_the_end_of_a_maintenance(start: Start, expid: str) -> None:
    old = reboot(start())
    announced = Maintenance.objects.create(machine="localhost", text="New disks")
    said: list[str] = []
    restart_due(said.append)
    assert "cannot be started again yet" in said[0]
    assert "New disks" in said[0]
    assert not AuditRecord.objects.filter(detail__startswith="automatic restart").exists()
    announced.delete()
    make_due(old)
    restart_due()
    assert newest(expid).previous_run == old.pk


def test_a_hidden_run_that_prevents_a_restart_is_not_described(start: Start, expid: str) -> None:
    old = reboot(start())
    secret = open_profile("SECRET", runner_type="SSH", ssh_host="127.0.0.1")
    secret.view_groups.add(Group.objects.create(name="team"))
    target = SSHTarget(host="127.0.0.1", port=free_port(), user="nobody")
    config = RunnerConfig("SSH", "NO_MODULE", (), target)  # nobody answers there, so the run stays ACTIVE
    fields = {"runner": "SSH", "module_loader": "NO_MODULE", "profile_id": secret.pk, "profile_name": "SECRET"}
    saved_run(expid, pk=old.pk - 1, config=config.as_dict(), **fields)  # an older one: a newer one is no reason to look
    restart_due()
    old.refresh_from_db()
    assert old.restart_detail.startswith("Not started again: ")
    record = AuditRecord.objects.latest("id")
    for text in (old.restart_detail, record.detail, str(events())):
        assert "in a run that you may not see" in text
        assert "SECRET" not in text


def test_a_run_is_started_again_after_a_platform_could_not_be_reached(start: Start, expid: str) -> None:
    run = end_of(start(PRINT=GAVE_UP, LAST=1, EXIT=102))
    assert (run.reason, restart_plans.is_pending(run)) == ("failed", True)
    restart_due()
    assert newest(expid).previous_run == run.pk


@pytest.mark.parametrize("restart", [None, {"on": ["platform"], "attempts": 2}])
def test_it_is_off_unless_asked_for(start: Start, restart: dict[str, Any] | None) -> None:
    assert not restart_plans.is_pending(reboot(start(restart)))


def test_other_ends_do_not_count(start: Start, expid: str) -> None:
    assert not restart_plans.is_pending(end_of(start(SLEEP=0)))
    assert not restart_plans.is_pending(end_of(start(SLEEP=0, EXIT=1)))
    run = start()
    kill(run)
    probing.probe([run])
    assert (run.reason, run.restart_at) == ("lost", None)  # without a reboot, something of it may live
    run = start()
    RunnerRun.objects.filter(pk=run.pk).update(stop_requested_at=timezone.now())
    assert not restart_plans.is_pending(reboot(run))


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (GAVE_UP, True),
        ("[CRITICAL] Issues while checking the connectivity of platforms. [eCode=7010]\nhas bad issues", False),
        ("[CRITICAL] Autosubmit Encounter too much errors during running time, limit of 360 reached [eCode=7051]\n"
         "Trace: Couldn't establish a connection to the specified host", True),
        ("[CRITICAL] Autosubmit Encounter too much errors during running time, limit of 360 reached [eCode=7051]\n"
         "Trace: a database is broken", False),
        ('Traceback (most recent call last):\n  File "/x/paramiko/transport.py", line 1, in y\nEOFError', True),
        ('Traceback (most recent call last):\n  File "/x/paramiko/transport.py", line 1, in y\nKeyError: 1', False),
        ('Traceback (most recent call last):\n  File "/x/autosubmit.py", line 1, in y\nEOFError', False),
        (f"{GAVE_UP}\nSome jobs have failed and reached maximum retrials", False),
        ("Connection Unsuccessful to host mare", False),
        ("", False),
    ],
)  # fmt: skip
def test_the_log_shows_that_a_platform_was_the_reason(log: str, expected: bool) -> None:
    assert run_log.has_platform_failed(log.encode()) is expected


# --- never while anything of the old run may live ---------------------------------------------------------------------


def test_unknown_never_restarts(start: Start, expid: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = reboot(start())
    with monkeypatch.context() as patch:
        patch.setattr(
            LocalRunner, "_probe", lambda self, targets, **_: {t.key: cannot_tell("no route") for t in targets}
        )
        restart_due()
    run.refresh_from_db()
    assert newest(expid) == run
    assert restart_plans.is_pending(run)
    assert "no route" in run.restart_detail
    make_due(run)
    restart_due()
    assert newest(expid).previous_run == run.pk


def test_a_helper_that_lives_delays_the_restart(start: Start, account: StubAccount, expid: str) -> None:
    run = start(DELAY=2, PRINT=GAVE_UP, LAST=1, EXIT=102)
    helper = subprocess.Popen(
        ["sleep", "600"], env={**os.environ, "AUTOSUBMIT_RUNNERS_KEY": run.key}, start_new_session=True
    )
    try:
        end_of(run)
        assert restart_plans.is_pending(run)
        restart_due()
        run.refresh_from_db()
        assert newest(expid) == run
        assert f"pid {helper.pid}" in run.restart_detail
    finally:
        helper.kill()
        helper.wait()
    make_due(run)
    restart_due()
    assert newest(expid).previous_run == run.pk


def test_a_run_by_hand_ends_the_restart(start: Start, account: StubAccount, expid: str) -> None:
    run = reboot(start())
    calls = len(account.calls("run"))
    process = subprocess.Popen(
        [str(account.programs / "autosubmit"), "run", expid],
        env={"HOME": str(account.home), "PATH": os.environ["PATH"]},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(lambda: len(account.calls("run")) > calls, what="the run by hand")
        restart_due()
    finally:
        process.kill()
        process.wait()
    run.refresh_from_db()
    assert newest(expid) == run
    assert str(process.pid) in run.restart_detail
    assert [event["restarted"] for event in events()] == [False]


# --- who may ----------------------------------------------------------------------------------------------------------


def _inactive(profile: RunnerProfile, run: RunnerRun) -> None:
    User.objects.filter(username="ana").update(is_active=False)


def _gone(profile: RunnerProfile, run: RunnerRun) -> None:
    User.objects.filter(username="ana").delete()


def _disabled(profile: RunnerProfile, run: RunnerRun) -> None:
    RunnerProfile.objects.filter(pk=profile.pk).update(enabled=False)


def _deleted(profile: RunnerProfile, run: RunnerRun) -> None:
    profile.delete()


def _off(profile: RunnerProfile, run: RunnerRun) -> None:
    EndpointToggle.objects.update_or_create(name="RUNNER_RUN", defaults={"enabled": False})


def _no_group(profile: RunnerProfile, run: RunnerRun) -> None:
    profile.run_groups.add(Group.objects.create(name="others"))


def _another_machine(profile: RunnerProfile, run: RunnerRun) -> None:
    profile.runner_type, profile.ssh_host, profile.ssh_user = "SSH", "elsewhere.example.org", "ana"
    profile.save()


def _used(profile: RunnerProfile, run: RunnerRun) -> None:
    RunnerRun.objects.filter(pk=run.pk).update(restarts=2)


def _old(profile: RunnerProfile, run: RunnerRun) -> None:
    RunnerRun.objects.filter(pk=run.pk).update(finished=timezone.now() - timedelta(days=8))


def _newer(profile: RunnerProfile, run: RunnerRun) -> None:
    other = RunnerRun.objects.get(pk=run.pk)
    other.pk, other.key, other.restart_at = None, "1" * 32, None
    other.save(force_insert=True)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_inactive, "the user ana is not active any more"),
        (_gone, "the user ana does not exist any more"),
        (_disabled, "the profile HERE was disabled"),
        (_deleted, "the profile HERE was deleted"),
        (_off, "an admin has disabled run-experiment"),
        (_no_group, "ana may not use the profile HERE any more"),
        (_another_machine, "HERE"),
        (_used, "all 2 restarts"),
        (_old, "more than 7 days ago"),
        (_newer, "is newer"),
    ],
)
def test_it_is_not_started_again_and_that_is_told(
    start: Start, profile: RunnerProfile, account: StubAccount, change: Callable[..., None], why: str
) -> None:
    run = reboot(start())
    change(profile, run)
    calls = len(account.calls("run"))
    restart_due()
    run.refresh_from_db()
    assert run.restart_at is None
    assert run.restart_detail.startswith("Not started again: ")
    assert why in run.restart_detail
    assert len(account.calls("run")) == calls
    (event,) = events()
    assert (event["restarted"], event["runner_id"]) == (False, run.pk)
    assert why in event["why"]


def test_a_mapping_that_was_removed_ends_the_restart(ana: User, settings: Any) -> None:
    settings.RUNNERS_RESTART_DELAY = 0
    place = {"runner_type": "SSH", "module_loader_type": "NO_MODULE", "ssh_host": "127.0.0.1", "ssh_port": 1}
    profile = RunnerProfile.objects.create(name="THERE", **place)
    config = profile.resolve({"SSH": {"USER": "model"}})
    run = RunnerRun.objects.create(
        expid="a001", config=config.as_dict(), runner="SSH", module_loader="NO_MODULE", status="TERMINATED",
        reason="lost", started_by="ana", profile_name="THERE", profile_id=profile.pk, restart=BOTH,
        finished=timezone.now(), **restart_plans.pending(0),
    )  # fmt: skip
    assert restarting._require_allowed(run) == config
    profile.allowed_users = "{username}"
    profile.save()
    with pytest.raises(restarting.Refused, match="does not allow the account"):
        restarting._require_allowed(run)


# --- concurrent watches, and launches that fail -----------------------------------------------------------------------


def test_many_watches_start_it_once(start: Start, account: StubAccount, expid: str) -> None:
    run = reboot(start())

    def watch() -> None:
        try:
            restart_due()
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        for future in [pool.submit(watch) for _ in range(6)]:
            future.result()
    assert RunnerRun.objects.filter(previous_run=run.pk).count() == 1
    wait_for(lambda: len(account.calls("run")) == 2, what="the run")
    assert len(events()) == 1


def test_a_lease_that_has_ended_is_taken_over_and_starts_nothing_twice(start: Start, expid: str) -> None:
    """The watch dies between the claim and the insert; a slow one goes on after another has started the run."""
    run = reboot(start())
    slow = RunnerRun.objects.get(pk=run.pk)
    assert restarting._claim(slow)
    restart_due()
    assert newest(expid) == run  # it is leased
    make_due(run)
    restart_due()
    new = newest(expid)
    assert new.previous_run == run.pk
    with pytest.raises((restarting.Withdrawn, restarting.Refused)):
        restarting._start(slow, slow.runner_config)
    assert RunnerRun.objects.count() == 2


def test_a_launch_that_fails_is_tried_again_as_often_as_asked(
    start: Start, account: StubAccount, profile: RunnerProfile, expid: str
) -> None:
    venv = account.home / "venv-that-vanishes"
    venv.symlink_to(account.venv)
    profile.module_loader_type, profile.modules = "VENV", str(venv)
    profile.save()
    reboot(start())
    venv.unlink()
    for _ in range(4):
        restart_due()
        RunnerRun.objects.filter(restart_at__isnull=False).update(restart_at=timezone.now())
    rows = list(RunnerRun.objects.order_by("id"))
    assert [(row.reason, row.restarts) for row in rows] == [("lost", 0), ("never_started", 1), ("never_started", 2)]
    assert "all 2 restarts" in rows[-1].restart_detail
    told = [(event["runner_id"], event["restarted"]) for event in events()]
    assert told == [(rows[1].pk, True), (rows[2].pk, True), (rows[2].pk, False)]


def test_the_delay_doubles(settings: Any) -> None:
    settings.RUNNERS_RESTART_DELAY = 60
    minutes = [restart_plans.delay(restarts).total_seconds() / 60 for restarts in range(8)]
    assert minutes == [1, 2, 4, 8, 16, 32, 60, 60]


# --- shown and stoppable ----------------------------------------------------------------------------------------------


@pytest.fixture
def api(client: Client, ana: User, settings: Any) -> Api:
    settings.PROTECTION_LEVEL = "ALL"
    settings.THROTTLE_COMMANDS = ""
    return api_of(client, ana)


def test_the_api_validates_shows_and_cancels_it(
    api: Api, start: Start, profile: RunnerProfile, account: StubAccount, expid: str
) -> None:
    account.experiment(expid)
    account.control("run", expid, SLEEP=600)
    body = {"expid": expid, "profile_name": "HERE"}
    for wrong, path in (
        ({"on": []}, "restart.on"),
        ({"on": ["never"]}, "restart.on"),
        ({"on": ["lost"], "attempts": 0}, "restart.attempts"),
        ({"on": ["lost"], "attempts": 21}, "restart.attempts"),
        ({"attempts": 1}, "restart.on"),
        ({"on": ["lost"], "often": 1}, "restart.often"),
        ("lost", "restart"),
    ):
        errors = api.post("run-experiment", {**body, "restart": wrong}, expect=400)["errors"]
        assert any(name.startswith(path) for name in errors), (wrong, errors)
    assert not RunnerRun.objects.exists()
    answer = api.post("run-experiment", {**body, "restart": {"on": ["platform", "lost"]}})
    assert answer["restart"] == {"on": ["lost", "platform"], "attempts": 3, "used": 0, "next_at": None, "detail": ""}
    run = reboot(RunnerRun.objects.get(pk=answer["runner_id"]))
    assert api.post("get-runner-run-status", {"expid": expid})["restart"]["next_at"]
    path = f"/v4/runners/runs/{run.pk}/cancel-restart"
    assert api.post(path, {})["restart"] == {
        **answer["restart"], "detail": "The restart was cancelled by ana."
    }  # fmt: skip
    assert api.post(path, {}, expect=409)["code"] == "not_running"
    restart_due()
    assert newest(expid) == run


def test_a_stop_cancels_it(api: Api, start: Start, expid: str) -> None:
    run = reboot(start())
    answer = api.post("stop-experiment", {"expid": expid})
    assert answer["message"] == f"The restart of experiment {expid} was cancelled."
    assert (answer["runner_id"], answer["restart"]["next_at"], answer["steps"]) == (run.pk, None, [])
    assert api.post("stop-experiment", {"expid": expid}, expect=409)["code"] == "not_running"


def test_a_stop_of_a_run_that_was_rebooted_cancels_its_restart(api: Api, start: Start, expid: str) -> None:
    run = start()
    kill(run)
    RunnerRun.objects.filter(pk=run.pk).update(identity={**(run.identity or {}), "boot_id": "0" * 32})
    answer = api.post("stop-experiment", {"expid": expid})
    assert (answer["reason"], answer["restart"]["next_at"]) == ("lost", None)
    restart_due()
    assert newest(expid) == run


def test_a_restart_that_is_cancelled_during_the_claim_starts_nothing(start: Start, expid: str) -> None:
    run = reboot(start())
    claimed = RunnerRun.objects.get(pk=run.pk)
    assert restarting._claim(claimed)
    restart_plans.cancel(run, AuditRecord(endpoint="cancel-restart", actor="ben"))
    with pytest.raises(restarting.Withdrawn):
        restarting._start(claimed, claimed.runner_config)
    assert newest(expid) == run
    run.refresh_from_db()
    assert run.restart_detail == "The restart was cancelled by ben."


def test_the_pages_ask_for_it_show_it_and_cancel_it(
    client: Client, ana: User, profile: RunnerProfile, account: StubAccount, expid: str
) -> None:
    account.experiment(expid)
    account.control("run", expid, SLEEP=600)
    client.force_login(ana)
    form = {"profile_name": "HERE", "expid": expid, "action": "do"}
    answer = client.post("/start", {**form, "restart_lost": "on", "restart_attempts": "99"})
    assert answer.status_code == 422
    answer = client.post("/start", {**form, "restart_lost": "on", "restart_attempts": "4"})
    assert answer.status_code == 302, answer.content.decode()
    run = newest(expid)
    assert run.restart == {"on": ["lost"], "attempts": 4}
    page = f"/runs/{run.pk}"
    assert "at most 4 times after a reboot" in client.get(page).content.decode()
    reboot(run)
    assert "Cancel the restart" in client.get(page).content.decode()
    assert "a restart is pending" in client.get(f"/experiments/{expid}").content.decode()
    assert client.post(f"{page}/cancel-restart").status_code == 302
    text = client.get(page).content.decode()
    assert "The restart was cancelled by ana." in text
    assert "Cancel the restart" not in text
