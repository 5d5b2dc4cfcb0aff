"""A maintenance of a machine: each use case that would change something there refuses, and nothing is sent."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from profiles.config import RunnerConfig
from runners.commands.set_job_status import SET_JOB_STATUS
from runners.exceptions import MachineInMaintenance
from runners.models import AuditRecord, Maintenance, Operation, RunnerRun
from runners.services import configuration_files, execute, maintenance, operations, starting
from tests.support.environments import StubAccount

pytestmark = pytest.mark.django_db
HERE = RunnerConfig("LOCAL", "NO_MODULE")
PARAMS = {"final_status": "WAITING", "filter_status": ("FAILED",)}
GIVEN: dict[str, Any] = {"command": SET_JOB_STATUS, "expid": "a000", "config": HERE, "params": PARAMS}


def write(audit: AuditRecord) -> None:
    configuration_files.write_file(
        config=HERE, expid="a000", path="jobs_a000.yml", content="A: 1\n", expected="0" * 64, audit=audit
    )


USES: dict[str, Callable[[AuditRecord], object]] = {
    "run": lambda audit: starting.run_experiment(expid="a000", config=HERE, profile_name="HERE", audit=audit),
    "command": lambda audit: execute.execute(audit=audit, **GIVEN),
    "preview": lambda audit: execute.preview(audit=audit, **GIVEN),
    "operation": lambda audit: operations.start(audit=audit, timeout=60, profile_name="HERE", **GIVEN),
    "file": write,
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_nothing_is_sent_to_a_machine_in_maintenance(
    use: Callable[[AuditRecord], object], account: StubAccount
) -> None:
    account.experiment("a000")
    Maintenance.objects.create(machine="localhost", text="New disks")
    calls = len(account.calls())
    with pytest.raises(MachineInMaintenance, match="New disks. Nothing was started"):
        use(AuditRecord(endpoint="x", actor="ana"))
    assert len(account.calls()) == calls
    assert not RunnerRun.objects.exists()
    assert not Operation.objects.exists()


def test_of_several_announcements_the_one_that_ends_last_is_told() -> None:
    now = timezone.now()
    Maintenance.objects.create(machine="localhost", text="short", ends=now + timedelta(hours=1))
    last = Maintenance.objects.create(machine="localhost", text="long", ends=now + timedelta(hours=9))
    assert maintenance.current("localhost") == last
    with pytest.raises(MachineInMaintenance) as caught:
        maintenance.require_none(HERE)
    assert 8 * 3600 < caught.value.facts["retry_after"] <= 9 * 3600
    endless = Maintenance.objects.create(machine="localhost", text="endless")
    assert maintenance.current("localhost") == endless
