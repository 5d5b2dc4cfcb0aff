"""A dry run shows what the real command then does: the same arguments and the same script."""

from __future__ import annotations

from typing import Any

import pytest

from profiles.config import RunnerConfig
from runners.commands.base import OneShotCommand
from runners.commands.create_experiment import CREATE_EXPERIMENT
from runners.commands.create_job_list import CREATE_JOB_LIST
from runners.commands.set_job_status import SET_JOB_STATUS
from runners.commands.update_description import UPDATE_DESCRIPTION
from runners.models import AuditRecord, RunnerRun
from runners.services import execute, starting
from runners.services.machines import scripts
from runners.services.machines.registry import get_runner
from tests.support.environments import StubAccount

pytestmark = pytest.mark.django_db

COMMANDS: dict[str, tuple[OneShotCommand, dict[str, Any]]] = {
    "set_job_status": (
        SET_JOB_STATUS,
        {"expid": "a001", "params": {"final_status": "READY", "job_names_list": ("a001_ONE", "it's")}},
    ),
    "create_job_list": (CREATE_JOB_LIST, {"expid": "a001", "params": {"force": True}}),
    "create_experiment": (CREATE_EXPERIMENT, {"params": {"description": "it's $HOME"}}),
    "update_description": (UPDATE_DESCRIPTION, {"expid": "a001", "params": {"description": "-v; rm x"}}),
}


def is_question(call: list[str]) -> bool:
    """Return True if the call only asked Autosubmit which jobs are COMPLETED."""
    return call[0] == "setstatus" and "--save" not in call


@pytest.mark.parametrize(("command", "values"), COMMANDS.values(), ids=COMMANDS)
def test_the_script_of_a_plan_does_what_the_command_does(
    command: OneShotCommand,
    values: dict[str, Any],
    config: RunnerConfig,
    account: StubAccount,
) -> None:
    account.experiment("a001")
    planned = execute.plan(command, config=config, **values)
    assert [call for call in account.calls() if not is_question(call)] == []  # nothing was executed
    audit = AuditRecord()
    execute.execute(command, config=config, audit=audit, **values)
    assert planned.argv == audit.argv
    get_runner(config).execute(planned.script, timeout=60, login=True)
    first, second = (call for call in account._calls() if not is_question(call[1:]))
    assert first == second  # working directory and arguments
    assert planned.as_dict() == {
        "profile": config.as_dict(),
        "where": get_runner(config).where,
        "argv": audit.argv,
        "script": planned.script,
        "detached": False,
        "warnings": [],
    }


def test_the_plan_of_a_run_is_what_its_directory_then_holds(config: RunnerConfig, account: StubAccount) -> None:
    account.experiment("a001")
    planned = execute.plan_run(expid="a001", config=config)
    assert (planned.argv, planned.detached) == (["autosubmit", "run", "a001"], True)
    assert not RunnerRun.objects.exists()
    run = starting.run_experiment(expid="a001", config=config, profile_name="MACHINE", audit=AuditRecord())
    text = (account.home / ".autosubmit-runners" / run.key / "command.sh").read_text()
    # In command.sh, "$1" is the directory of the run.
    text = text.replace('"$1"', f'"$HOME"/{scripts.BASE}/RUN').replace(run.key, "RUN")
    preparation, command = planned.script.rsplit(" && exec ", 1)
    assert preparation in text
    assert text.strip().endswith(f" && exec {command}")


def test_the_plan_of_a_stop(account: StubAccount) -> None:
    config = account.config("VENV")
    run = RunnerRun(expid="a001", config=config.as_dict())
    planned = execute.plan_stop(run=run, cancel_jobs=True)
    assert planned.argv == ["autosubmit", "stop", "--cancel", "a001"]
    assert planned.profile == config.as_dict()
    assert str(account.venv) in planned.script
