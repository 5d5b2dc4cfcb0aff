"""The pages of machines: who sees which, asking again, maintenance, stopping together, forgetting."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.test import Client
from django.utils import timezone

from profiles.models import RunnerProfile
from runners.exceptions import AuthenticationFailed, RunnerUnreachable
from runners.models import AuditRecord, Machine, Maintenance, RunnerRun
from runners.services import machine_states
from runners.services.machines import breaker
from runners.services.machines.breaker import BREAKER
from runners.services.machines.observed import OBSERVED
from runners.services.machines.ssh.target import SSHTarget
from tests.support.environments import StubAccount
from tests.support.servers import SSHServer

pytestmark = pytest.mark.django_db

LONG = f"{'login-node-' * 5}a.{'cluster' * 7}.example"


@pytest.fixture(autouse=True)
def _nothing_noted() -> None:
    OBSERVED.taken()
    machine_states._stored.clear()


def profile(name: str, host: str, **fields: Any) -> RunnerProfile:
    values = {"runner_type": "SSH", "ssh_host": host, "ssh_user": "ops", "module_loader_type": "NO_MODULE"}
    return RunnerProfile.objects.create(name=name, **values | fields)


def local_profile(name: str = "HERE") -> RunnerProfile:
    return RunnerProfile.objects.create(name=name, runner_type="LOCAL", module_loader_type="NO_MODULE")


def run_on(target: SSHTarget, **fields: Any) -> RunnerRun:
    config = {"RUNNER_TYPE": "SSH", "MODULE_LOADER_TYPE": "NO_MODULE", "MODULES": [], **target.as_dict()}
    values = {"config": config, "runner": "SSH", "module_loader": "NO_MODULE", "user": target.user}
    return RunnerRun.objects.create(**{"expid": f"m{RunnerRun.objects.count():03}", **values, **fields})


def admin(*permissions: str) -> Client:
    user = User.objects.create_user("boss", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


ALL = ("add_maintenance", "delete_maintenance", "delete_machine")


def text_of(client: Client, path: str = "/machines") -> str:
    answer = client.get(path)
    assert answer.status_code == 200, answer.content
    return answer.content.decode()


def test_people_see_the_machines_of_their_profiles_and_runs(browser: Client, ada: User) -> None:
    team = Group.objects.create(name="team")
    profile("OPEN", "Open.Example")
    closed = profile("CLOSED", "closed.example", ssh_user="someone")
    closed.run_groups.add(team)
    closed.view_groups.add(team)
    profile("OFF", "off.example", enabled=False)
    Machine.objects.create(name="old.example")
    Maintenance.objects.create(machine="closed.example", text="hidden words")
    run_on(SSHTarget("closed.example", 22, "someone"), profile_name="CLOSED", profile_id=closed.pk, started_by="eve")
    run_on(SSHTarget("hers.example", 22, "ada"), started_by="ada")

    seen = text_of(browser)
    assert "open.example" in seen
    assert "hers.example" in seen
    for hidden in ("closed.example", "old.example", "off.example", "hidden words"):
        assert hidden not in seen
        assert browser.get(f"/machines/{hidden}").status_code == 404
    ada.groups.add(team)
    assert "closed.example" in text_of(browser)
    assert "hidden words" in text_of(browser, "/machines/closed.example")
    assert "old.example" in text_of(admin())
    assert Client().get("/machines").status_code == 302


def test_answers_failures_and_rejected_logins_are_stored_once_each(browser: Client) -> None:
    profile("P", "a.example")
    target = SSHTarget("a.example", 22, "ops")
    assert "NOT ASKED YET" in text_of(browser)
    OBSERVED.answered(target)
    machine_states.store()
    row = Machine.objects.get()
    assert (row.name, row.is_answering, row.last_answer) == ("a.example", True, row.since)
    assert "ANSWERS" in text_of(browser)

    def fail(error: RunnerUnreachable) -> None:
        error.is_remembered = True
        with pytest.raises(RunnerUnreachable), OBSERVED.attempt(target):
            raise error
        machine_states.store()
        row.refresh_from_db()

    since = row.since
    fail(AuthenticationFailed("ops@a.example rejects the key of p12345"))
    assert (row.is_answering, row.since) == (True, since)
    page = text_of(browser, "/machines/a.example")
    assert "LOGIN FAILS" in page
    assert "It rejected the login of the service" in page
    assert "p12345" not in page  # the words may name an account: only staff reads them
    assert "p12345" in text_of(admin(), "/machines/a.example")
    fail(RunnerUnreachable("ops@a.example:22: no route to host"))
    assert row.is_answering is False
    first = row.since
    fail(RunnerUnreachable("ops@a.example:22: no route to host"))
    assert row.since == first
    assert "NO ANSWER" in text_of(browser)
    OBSERVED.answered(target)
    machine_states.store()
    row.refresh_from_db()
    assert row.is_answering is True
    assert row.since and first
    assert row.since > first
    assert row.last_error_code == "runner_unreachable"  # what happened last stays readable


def test_an_answer_that_changes_nothing_is_stored_every_five_seconds(
    browser: Client, django_assert_num_queries: Any
) -> None:
    target = SSHTarget("a.example", 22, "ops")
    OBSERVED.answered(target)
    machine_states.store()
    with django_assert_num_queries(0):
        OBSERVED.answered(target)
        machine_states.store()
    machine_states._stored[target.host] -= machine_states.STORED_EVERY
    with django_assert_num_queries(1):
        OBSERVED.answered(target)
        machine_states.store()


def test_a_machine_is_asked_again_although_it_has_just_failed(browser: Client, sshd: SSHServer) -> None:
    profile("P", "127.0.0.1", ssh_port=sshd.port, ssh_user=sshd.user)
    sshd.stop()
    path = "/machines/127.0.0.1"
    answer = browser.post(path, {"action": "ask"})
    assert answer.status_code == 502
    assert Machine.objects.get().is_answering is False
    assert "NO ANSWER" in answer.content.decode()
    sshd.start()
    answer = browser.post(path, {"action": "ask"}, follow=True)
    assert "127.0.0.1 answers." in answer.content.decode()
    assert Machine.objects.get().is_answering is True
    assert list(AuditRecord.objects.values_list("endpoint", "actor", "outcome").order_by("id")) == [
        ("ask-machine", "ada", "runner_unreachable"),
        ("ask-machine", "ada", "ok"),
    ]
    BREAKER.forget()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("has_run", [False, True])
def test_asking_a_dead_machine_again_does_not_say_that_it_was_reached(
    browser: Client, sshd: SSHServer, settings: Any, caplog: pytest.LogCaptureFixture, has_run: bool
) -> None:
    """The pause goes on growing, and the log keeps its one line."""
    settings.RUNNERS_RETRY_PAUSE, settings.RUNNERS_RETRY_PAUSE_LONGEST = 60.0, 1000.0
    caplog.set_level("INFO", breaker.__name__)
    profile("P", "127.0.0.1", ssh_port=sshd.port, ssh_user=sshd.user)
    if has_run:
        run_on(sshd.target)
    sshd.stop()
    for _ in range(3):
        browser.post("/machines/127.0.0.1", {"action": "ask"})
    (failure,) = BREAKER._failures.values()
    assert failure.count == 3 and failure.open_until > time.monotonic() + 200
    (line,) = [each.getMessage() for each in caplog.records if each.name == breaker.__name__]
    assert "cannot be reached" in line
    BREAKER.forget()


def test_a_machine_without_a_known_account_cannot_be_asked(browser: Client) -> None:
    profile("P", "a.example", ssh_user="")
    answer = browser.post("/machines/a.example", {"action": "ask"})
    assert answer.status_code == 400
    assert "Set your preferred username" in answer.content.decode()


def test_a_maintenance_refuses_commands_with_its_text(browser: Client, account: StubAccount) -> None:
    local_profile()
    boss = admin(*ALL)
    announced = {"action": "announce", "text": "New disks <b>today</b>; ask ops@site.example", "starts": "", "ends": ""}
    assert boss.post("/machines/localhost", announced).status_code == 302
    row = Maintenance.objects.get()
    assert (row.machine, row.announced_by, row.applies) == ("localhost", "boss", True)
    record = AuditRecord.objects.get(endpoint="announce-maintenance")
    assert record.actor == "boss"
    assert record.changes[0]["action"] == "add"
    assert not AuditRecord.objects.filter(endpoint="change-configuration", detail__contains="maintenance").exists()

    form = {"profile_name": "HERE", "expid": "a000", "action": "do"}
    refused = browser.post("/start", form)
    words = "New disks &lt;b&gt;today&lt;/b&gt;; ask ops@site.example"
    assert refused.status_code == 503
    assert words in refused.content.decode()
    assert "in maintenance until an admin ends it" in refused.content.decode()
    assert not RunnerRun.objects.exists()
    preview = browser.post("/start", form | {"action": "preview"})
    assert preview.status_code == 200
    assert "would be refused now" in preview.content.decode()
    page = text_of(browser, "/machines/localhost")
    assert words in page
    assert "End it now" not in page
    assert "MAINTENANCE" in text_of(browser)

    assert browser.post("/machines/localhost", {"action": "end", "maintenance": row.pk}).status_code == 403
    assert boss.post("/machines/localhost", {"action": "end", "maintenance": row.pk}).status_code == 302
    assert browser.post("/start", form).status_code == 302


def test_only_a_maintenance_that_applies_now_refuses(browser: Client, account: StubAccount) -> None:
    local_profile()
    now = timezone.now()
    hour = timedelta(hours=1)
    Maintenance.objects.create(machine="localhost", text="over", starts=now - 2 * hour, ends=now - hour)
    Maintenance.objects.create(machine="localhost", text="tomorrow", starts=now + hour, ends=now + 2 * hour)
    Maintenance.objects.create(machine="other.example", text="elsewhere")
    page = text_of(browser, "/machines/localhost")
    assert "tomorrow" in page
    assert "over" not in page.split("<main")[1].split("tomorrow")[0].split("Maintenance from")[0]
    assert browser.post("/start", {"profile_name": "HERE", "expid": "a000", "action": "do"}).status_code == 302


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"text": ""}, "This field is required"),
        ({"text": "x" * 501}, "at most 500 characters"),
        ({"text": "x", "starts": "2030-01-01T10:00", "ends": "2030-01-01T09:00"}, "Give a time after the start."),
        ({"text": "x", "ends": "2020-01-01T09:00"}, "Give a time after the start."),
        ({"text": "x", "starts": "2020-01-01T09:00", "ends": "2020-01-01T10:00"}, "Give a time in the future."),
        ({"text": "x", "ends": "tomorrow"}, "Enter a valid date/time."),
    ],
)
def test_an_invalid_announcement_names_the_field(fields: dict[str, str], words: str) -> None:
    local_profile()
    answer = admin(*ALL).post("/machines/localhost", {"action": "announce", **fields})
    assert answer.status_code == 400
    assert words in answer.content.decode()
    assert not Maintenance.objects.exists()
    assert AuditRecord.objects.get().outcome == "invalid_request"


EDGES = (("0001-01-01", "00:00"), ("9999-12-31", "23:59"), ("1969-12-30", "00:00"), ("3000-01-02", "00:00"))


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Tokyo"])
def test_a_maintenance_at_the_edge_of_the_range_is_rejected(zone: str, settings: Any) -> None:
    """Such a time does not exist in every time zone, so no page could show it."""
    settings.TIME_ZONE = zone
    local_profile()
    boss = admin(*ALL, "view_maintenance")
    for day, clock in EDGES:
        for name in ("starts", "ends"):
            sent = {"action": "announce", "text": "x", name: f"{day}T{clock}"}
            answer = boss.post("/machines/localhost", sent)
            assert answer.status_code == 400
            assert "in the years 1970 to 2999" in answer.content.decode(), (day, name)
            form = {"machine": "localhost", "text": "x", "starts_0": "2026-12-31", "starts_1": "23:59"}
            sent = {**form, "ends_0": "", "ends_1": "", f"{name}_0": day, f"{name}_1": clock}
            answer = boss.post("/admin/runners/maintenance/add/", sent)
            assert "in the years 1970 to 2999" in answer.content.decode(), (day, name)
    assert not Maintenance.objects.exists()


def test_people_without_the_permission_change_nothing(browser: Client) -> None:
    local_profile()
    Machine.objects.create(name="localhost")
    for action in ("announce", "end", "forget"):
        answer = browser.post("/machines/localhost", {"action": action, "text": "x"})
        assert answer.status_code == 403
        assert AuditRecord.objects.first().outcome == "permission_denied"  # type: ignore[union-attr]
    page = text_of(browser, "/machines/localhost")
    assert "Announce a maintenance" not in page
    assert "Forget this machine" not in page
    assert browser.post("/machines/localhost", {"action": "nonsense"}).status_code == 400
    assert browser.post("/machines/nowhere.example", {"action": "ask"}).status_code == 404


def test_selected_runs_are_stopped_together_each_with_its_record(browser: Client, account: StubAccount) -> None:
    account.control("run", SLEEP=600)
    local_profile()
    for expid in ("a000", "a001", "a002"):
        account.experiment(expid)
        assert browser.post("/start", {"profile_name": "HERE", "expid": expid, "action": "do"}).status_code == 302
    first, second, third = RunnerRun.objects.order_by("id")
    answer = browser.post("/machines/localhost", {"action": "stop", "run": [first.pk, second.pk, "x", 10**30]})
    assert answer.status_code == 200
    page = answer.content.decode()
    assert "Results: 2 stopped" in page
    assert page.count("stopped successfully") == 2
    third.refresh_from_db()
    assert third.is_active
    records = AuditRecord.objects.filter(endpoint="stop-experiment")
    assert {(each.run_id, each.actor, each.outcome) for each in records} == {
        (first.pk, "ada", "ok"),
        (second.pk, "ada", "ok"),
    }
    assert browser.post("/machines/localhost", {"action": "stop"}).status_code == 400


def test_a_run_that_may_not_be_stopped_does_not_prevent_the_others(browser: Client, account: StubAccount) -> None:
    account.control("run", SLEEP=600)
    here = local_profile()
    theirs = local_profile("THEIRS")
    theirs.stop_groups.add(Group.objects.create(name="team"))
    account.experiment("a000")
    browser.post("/start", {"profile_name": "HERE", "expid": "a000", "action": "do"})
    mine = RunnerRun.objects.get()
    other = RunnerRun.objects.create(
        expid="a001", config=mine.config, runner="LOCAL", profile_name="THEIRS", profile_id=theirs.pk, started_by="eve"
    )
    assert here.pk != theirs.pk
    page = browser.post("/machines/localhost", {"action": "stop", "run": [mine.pk, other.pk]}).content.decode()
    assert "1 stopped, 1 not stopped" in page
    assert f"You may not stop run {other.pk}" in page
    assert AuditRecord.objects.get(run_id=other.pk).outcome == "profile_forbidden"


def test_a_machine_that_is_not_used_any_more_is_forgotten() -> None:
    boss = admin(*ALL)
    used = profile("P", "used.example")
    Machine.objects.create(name="used.example")
    Machine.objects.create(name=LONG, is_answering=False, since=timezone.now())
    Maintenance.objects.create(machine=LONG, text="for good")
    answer = boss.post("/machines/used.example", {"action": "forget"})
    assert answer.status_code == 409
    assert "the profiles P lead there" in answer.content.decode()
    assert used.pk
    run = run_on(SSHTarget(LONG, 22, "ops"))
    assert "1 active runs are there" in boss.post(f"/machines/{LONG}", {"action": "forget"}).content.decode()
    run.delete()
    assert LONG in text_of(boss)
    forgotten = boss.post(f"/machines/{LONG}", {"action": "forget"}, follow=True)
    assert f"{LONG} is forgotten." in forgotten.content.decode()
    assert LONG not in text_of(boss)
    assert not Maintenance.objects.exists()
    assert AuditRecord.objects.get(endpoint="forget-machine", outcome="ok").detail == LONG


def test_the_pages_of_a_machine_ask_nobody(browser: Client) -> None:
    profile("P", "192.0.2.1")
    run_on(SSHTarget("192.0.2.1", 22, "ops"), reachable=False, unreachable_detail="it <hangs>", started_by="ada")
    page = text_of(browser, "/machines/192.0.2.1")
    assert "running at the last probe" in page
    Machine.objects.create(name="192.0.2.1", is_answering=False, last_error_at=timezone.now(), last_error="secret")
    page = text_of(browser, "/machines/192.0.2.1")
    assert "it &lt;hangs&gt;" in page
    assert "secret" not in page


def test_a_damaged_configuration_of_a_run_is_no_machine(browser: Client) -> None:
    RunnerRun.objects.create(expid="a000", config={"RUNNER_TYPE": "GONE"}, runner="LOCAL", started_by="ada")
    assert "There is no machine yet" in text_of(browser)


def test_an_admin_announces_in_the_admin_too() -> None:
    boss = admin(*ALL, "view_maintenance", "view_machine", "change_maintenance")
    profile("P", "login.example")
    form = {"machine": "Login.example ", "text": "Disks", "starts_0": "2026-01-01", "starts_1": "10:00:00"}
    answer = boss.post("/admin/runners/maintenance/add/", form | {"ends_0": "", "ends_1": ""})
    assert answer.status_code == 302, answer.content
    row = Maintenance.objects.get()
    assert (row.machine, row.announced_by) == ("login.example", "boss")
    assert "applies now" in text_of(boss, "/admin/runners/maintenance/")
    wrong = boss.post("/admin/runners/maintenance/add/", form | {"machine": "nowhere.example"})
    assert "no profile and no active run leads to this machine" in wrong.content.decode()
    assert AuditRecord.objects.get().changes[0]["object"].startswith("login.example")
    Machine.objects.create(name="login.example", is_answering=True)
    assert "answers" in text_of(boss, "/admin/runners/machine/")
