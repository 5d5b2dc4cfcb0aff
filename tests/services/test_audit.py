"""Each command has its audit record before the service contacts a machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db.models.signals import post_save
from django.test import Client
from django.utils import timezone

from profiles.models import RunnerProfile
from runners.api.base import CommandViewSet
from runners.api.commands.views import ExperimentCommands
from runners.commands.registry import one_shot_commands
from runners.exceptions import CommandFailed
from runners.models import AuditRecord, RunnerRun
from runners.services import audit, own_process
from runners.services.machines.local import LocalRunner
from tests.support.api import Api, check
from tests.support.commands import smallest_body, switch_all_on
from tests.support.environments import StubAccount

pytestmark = pytest.mark.django_db(transaction=True)

PROFILE = {"profile_name": "LOCAL_1", "profile_params": {}}
EXPERIMENT = {"expid": "a001", **PROFILE}
FILE = "/v4/runners/experiments/a001/config/file{action}?profile_name=LOCAL_1&path=jobs_a001.yml"
OLD, NEW = "A: 0\n", "A: 1\n"  # the contents of that file
GONE = "a-boot-id pid:[1] 1 1 0"  # the owner of a record that began on another node or in an earlier boot
# The commands in the order of the requests: the command or path, and the body of each.
COMMANDS: dict[str, tuple[str, dict[str, Any]]] = {
    "create-experiment": ("create-experiment", {**PROFILE, "command_params": {"description": "d"}}),
    "create-job-list": ("create-job-list", EXPERIMENT),
    "set-job-status": (
        "set-job-status",
        {**EXPERIMENT, "command_params": {"final_status": "READY", "job_names_list": ["a001_SIM"]}},
    ),
    "update-experiment-description": ("update-experiment-description", {**EXPERIMENT, "description": "d"}),
    "delete-experiment": ("delete-experiment", {**PROFILE, "expid": "a002", "confirm_expid": "a002"}),
    "write-configuration": (FILE.format(action=""), {"content": NEW}),
    "restore-configuration": (FILE.format(action="/restore"), {}),  # the version is known after the write
    "run-experiment": ("run-experiment", EXPERIMENT),
    "stop-experiment": ("stop-experiment", {"expid": "a001"}),
    "check-profile": ("/v4/runners/profiles/LOCAL_1/check", {}),
    "abandon-run": ("/v4/runners/runs/{run}/abandon", {"reason": "The machine is gone."}),
    "cancel-restart": ("/v4/runners/runs/{run}/cancel-restart", {}),
    "run-again": ("/v4/runners/runs/{run}/run-again", {}),
}
# They only change rows, so no machine is asked. tests/api/test_machines.py tests their records.
ABOUT_MACHINES = {"announce-maintenance", "end-maintenance", "forget-machine"}
# The commands whose smallest body is enough come first: no run is in their way then.
COMMANDS = {
    name: (name, {**smallest_body(command), **PROFILE})
    for name, command in one_shot_commands().items()
    if name not in COMMANDS
} | COMMANDS


@pytest.fixture
def api(client: Client, settings: Any, account: StubAccount) -> Api:
    settings.PROTECTION_LEVEL = "NONE"
    settings.THROTTLE_COMMANDS = ""
    RunnerProfile.objects.create(name="LOCAL_1", runner_type="LOCAL", module_loader_type="NO_MODULE")
    account.experiment("a001")
    account.experiment("a002")
    (account.home / "autosubmit" / "a001" / "conf" / "jobs_a001.yml").write_text(OLD)
    switch_all_on()
    return Api(client)


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What happens, in order: the outcome of each audit record that is inserted or changed, and "machine"."""
    found: list[str] = []
    exchange = LocalRunner.exchange

    def seen(self: LocalRunner, *args: Any) -> None:
        found.append("machine")
        exchange(self, *args)

    def saved(sender: type, instance: AuditRecord, **kwargs: Any) -> None:
        found.append(instance.outcome)

    monkeypatch.setattr(LocalRunner, "exchange", seen)
    post_save.connect(saved, sender=AuditRecord)
    yield found
    post_save.disconnect(saved, sender=AuditRecord)


def etag(content: str) -> str:
    return f'"{hashlib.sha256(content.encode()).hexdigest()}"'


def test_a_record_is_written_before_a_machine_is_asked_and_completed_at_the_end(
    api: Api, account: StubAccount, events: list[str]
) -> None:
    account.control("run", SLEEP=60)
    seen = {}
    for name, (path, body) in COMMANDS.items():
        send, headers = api.client.post, {}
        if name == "write-configuration":
            send, headers = api.client.put, {"If-Match": etag(OLD)}
        if name == "restore-configuration":
            (version,) = api.get(FILE.format(action="/versions"))["versions"]
            body, headers = {"version": version["version"]}, {"If-Match": etag(NEW)}
        events.clear()
        run = RunnerRun.objects.order_by("-id").first()
        place = api.path(path.format(run=run.pk if run else 0))
        check(send(place, json.dumps(body), "application/json", headers=headers), (200, 409))
        seen[name] = [events[0], events[-1]]
    assert seen.pop("abandon-run") == seen.pop("cancel-restart") == ["under_way", "not_running"]
    assert seen == dict.fromkeys(seen, ["under_way", "ok"])
    assert AuditRecord.objects.count() == len(COMMANDS)
    assert not AuditRecord.objects.exclude(owner=None, owned_until=None)


def test_no_command_of_the_api_is_missing_above() -> None:
    def subclasses(cls: type[CommandViewSet]) -> Iterator[type[CommandViewSet]]:
        for each in cls.__subclasses__():
            yield each
            yield from subclasses(each)

    names = {cls.command for cls in subclasses(CommandViewSet) if cls.command}
    names |= {each.kwargs["command"] for each in ExperimentCommands.get_extra_actions()}
    assert names - ABOUT_MACHINES == set(COMMANDS)


def test_a_rejected_command_is_one_complete_audit_record(api: Api, events: list[str]) -> None:
    api.post("run-experiment", {"expid": "A", **PROFILE}, expect=400)
    api.post("stop-experiment", {"expid": "a001"}, expect=404)
    assert events == ["invalid_request", "run_not_found"]


def test_a_record_is_interrupted_only_when_its_process_is_certainly_gone() -> None:
    soon, past = timezone.now() + timedelta(minutes=10), timezone.now() - timedelta(seconds=1)
    mine = own_process.owner()
    machine, _, start, word = mine.rsplit(" ", 3)
    owners = {
        "alive here": (mine, soon),
        "gone here": (f"{machine} 1 {start}9 {word}", soon),
        "elsewhere": (GONE, soon),
        "elsewhere, for longer than any command takes": (GONE, past),
        "not readable": ("somebody", soon),
    }
    for name, (owner, until) in owners.items():
        AuditRecord.objects.create(endpoint=name, outcome=AuditRecord.UNDER_WAY, owner=owner, owned_until=until)
    assert audit.mark_interrupted() == 2
    assert audit.mark_interrupted() == 0
    interrupted = set(AuditRecord.objects.filter(outcome="interrupted").values_list("endpoint", flat=True))
    assert interrupted == {"gone here", "elsewhere, for longer than any command takes"}
    assert "executed partly" in AuditRecord.objects.filter(outcome="interrupted")[0].detail


def test_the_end_of_a_command_replaces_a_wrong_interruption() -> None:
    with audit.audited(endpoint="run-experiment") as record:
        audit.begin(record)
        AuditRecord.objects.update(outcome=AuditRecord.INTERRUPTED)
    assert AuditRecord.objects.get().outcome == "ok"


def test_a_long_detail_is_cut_in_the_record() -> None:
    with pytest.raises(CommandFailed), audit.audited(endpoint="run-experiment"):
        raise CommandFailed("x" * 1_000_000)
    assert AuditRecord.objects.get().detail == "x" * audit.DETAIL_LIMIT
    with audit.audited(endpoint="run-experiment") as record:
        record.detail = "y" * 1_000_000
        audit.begin(record)
        assert AuditRecord.objects.get(pk=record.pk).detail == "y" * audit.DETAIL_LIMIT
