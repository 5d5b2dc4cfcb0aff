"""What workers find and do, by the rows alone (runners/worker/due.py)."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core import signing
from django.utils import timezone

from runners.exceptions import RunDirectoryUnusable
from runners.models import Heartbeat, NodeCommand, RunnerRun
from runners.services import nodes
from runners.services.machines import scripts
from runners.worker import due
from runners.worker.due import Silent, Work
from tests.support.rows import saved_run

pytestmark = pytest.mark.django_db


def names() -> list[str]:
    return [work.name for work in due.find()]


def test_a_machine_with_active_runs_is_work_of_its_node(settings: Any) -> None:
    settings.RUNNERS_NODE = "n1"
    assert names() == ["upkeep"]
    run = saved_run()
    look = Work("look", (run.machine, "n1"), "node-n1")
    assert look in due.find()
    RunnerRun.objects.update(machine="", node="")  # as an older version of the service inserts it
    assert Work("look", (run.machine, ""), due.SHARED) in due.find()
    RunnerRun.objects.update(reachable=False)
    assert Work("look", (run.machine, ""), due.SILENT) in due.find()
    RunnerRun.objects.update(status="COMPLETED")
    assert names() == ["upkeep"]


def test_retention_is_due_once_a_day_and_only_if_it_is_wanted(settings: Any) -> None:
    long_ago = timezone.now() - timedelta(days=31)
    for expid, finished in (("a001", long_ago), ("a002", timezone.now())):
        saved_run(expid, status="COMPLETED", finished=finished, cleaned_at=finished)
    assert "retention" not in names()
    settings.RUNNERS_RETENTION_DAYS = 30
    assert "retention" in names()
    due.perform(Work("retention"), Silent())
    assert [run.expid for run in RunnerRun.objects.all()] == ["a002"]
    assert "retention" not in names()
    RunnerRun.objects.update(finished=long_ago, cleaned_at=long_ago)
    due.perform(Work("retention"), Silent())  # doubled: another worker has begun it
    assert RunnerRun.objects.count() == 1
    Heartbeat.objects.update(seen=timezone.now() - timedelta(days=1, seconds=1))
    assert "retention" in names()
    due.perform(Work("retention"), Silent())
    assert not RunnerRun.objects.exists()


def test_a_command_for_a_node_is_executed_once_and_only_with_its_signature(settings: Any) -> None:
    settings.RUNNERS_NODE = "n1"
    request = {"config": saved_run().config, "script": "echo done", "timeout": 20}
    command = nodes.insert("n1", request | {"stdin": "", "login": False, "until": ""})
    signed = command.request
    assert Work("node", (str(command.pk),), "node-n1") in due.find()
    due.perform(Work("node", (str(command.pk),)), Silent())
    first = NodeCommand.objects.get().answer
    assert first
    due.perform(Work("node", (str(command.pk),)), Silent())
    assert NodeCommand.objects.get().answer == first
    NodeCommand.objects.update(begun=None, answer="", request=signed[:-1] + ("A" if signed[-1] != "A" else "B"))
    due.perform(Work("node", (str(command.pk),)), Silent())
    assert NodeCommand.objects.get().answer == ""
    command = nodes.insert("n1", request | {"stdin": "", "login": False, "until": ""})
    NodeCommand.objects.filter(pk=command.pk).update(node="n2")
    due.perform(Work("node", (str(command.pk),)), Silent())
    assert NodeCommand.objects.get(pk=command.pk).begun is None


def test_an_error_on_the_other_node_keeps_its_kind_and_its_facts(settings: Any, tmp_path: Path) -> None:
    settings.RUNNERS_NODE = "n1"
    (tmp_path / "file").touch()
    config = saved_run().config | {"RUN_DIRECTORY": str(tmp_path / "file")}
    request = {"config": config, "script": "echo done", "timeout": 20, "stdin": "", "login": False, "until": ""}
    command = nodes.insert("n1", request)
    nodes.execute(command.pk)
    with pytest.raises(RunDirectoryUnusable, match="Nothing was started") as raised:
        nodes._result(signing.loads(NodeCommand.objects.get().answer, salt=nodes._salt("answer", command)))
    assert raised.value.facts["exit_code"] == scripts.NO_RUN_DIRECTORY
