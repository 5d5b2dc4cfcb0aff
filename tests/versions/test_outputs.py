"""How the service reads the real outputs of every version (`outputs/*.txt`)."""

from __future__ import annotations

import shlex

import pytest

from runners.commands import run_log
from runners.commands.create_experiment import created_expid
from runners.commands.create_job_list import CREATE_JOB_LIST
from runners.commands.installation import version_in
from runners.commands.set_job_status import SET_JOB_STATUS, read_changes
from runners.commands.update_description import UPDATE_DESCRIPTION
from tests.support.commands import command_of
from tests.versions.outputs import RECORDED, Output, load

# setstatus commands that change jobs, with the jobs of the recorded experiment (a001: ONE, TWO, SIM per chunk).
CHANGING = {
    "setstatus": {"a001_ONE": "SUSPENDED", "a001_TWO": "SUSPENDED"},
    "setstatus-filter-type": {"a001_TWO": "COMPLETED"},
}


def each(*names: str) -> pytest.MarkDecorator:
    """Run a test with `name` and `output`: each of these commands, for each version that has a recording of it."""
    found = [(version, name) for version in RECORDED for name in names if name in load(version)]
    params = [pytest.param(name, load(version)[name], id=f"{version}-{name}") for version, name in found]
    return pytest.mark.parametrize(("name", "output"), params)


@pytest.mark.parametrize("version", RECORDED)
def test_the_version_is_read(version: str) -> None:
    output = load(version)["version"]
    assert version_in(output.stdout + "\n" + output.stderr) == version


# A part of a recorded command -> the parameters that some versions do not accept. All other versions accept them.
NOT_TAKEN = {
    "setstatus-two-filters": {"job_names_list", "filter_type"},
    "setstatus-filter-status-any": {"filter_status"},
    "setstatus-filter-type-chunk-split": {"filter_type_chunk_split"},
    "setstatus-wrong-status": {"final_status"},
    "create-force": {"force"},
    "expid-minimal": {"minimal"},
    "expid-testcase-dummy": {"testcase", "dummy"},
    "expid-evaluation": {"evaluation"},
}


@each(*NOT_TAKEN)
def test_an_unsupported_option_of_a_version_is_reported_with_its_parameter(name: str, output: Output) -> None:
    argv = shlex.split(output.command)
    found = command_of(argv).usage_error(argv, output.text + "\n" + output.stderr)
    if output.exit_code == 1 and not output.text.strip() and not output.stderr.strip():  # up to 4.1.10
        found = found or command_of(argv).needs_newer(argv, "4.1.10")
    if output.exit_code == 0:
        assert found is None
    else:
        assert found is not None and set(found.parameters) <= NOT_TAKEN[name], found


@each("expid", "expid-dummy", "expid-copy")
def test_an_experiment_that_was_created_has_an_id(name: str, output: Output) -> None:
    assert created_expid(output.text)


@each("expid-copy-unknown")
def test_a_failed_create_has_no_expid(name: str, output: Output) -> None:
    assert created_expid(output.text) is None


@each(*CHANGING)
def test_statuses_that_were_changed_are_a_success(name: str, output: Output) -> None:
    assert SET_JOB_STATUS.is_success(output.exit_code, output.text)
    assert read_changes(output.stdout.encode()).jobs == CHANGING[name]


@each("setstatus-unchanged")
def test_a_status_that_a_job_has_already_is_a_success(name: str, output: Output) -> None:
    assert SET_JOB_STATUS.is_success(output.exit_code, output.text)
    # 4.0 and 3.14 report the job as changed.
    assert read_changes(output.stdout.encode()).jobs in ({}, {"a001_ONE": "SUSPENDED"})


@each("setstatus-preview")
def test_a_preview_is_shown_and_not_saved(name: str, output: Output) -> None:
    assert SET_JOB_STATUS.is_preview_success(output.exit_code, output.text)
    if "NOT saved" in output.text:  # 3.14 does not print it
        assert not SET_JOB_STATUS.is_success(output.exit_code, output.text)
    assert read_changes(output.stdout.encode()).jobs == {"a001_ONE": "SUSPENDED"}


@each(
    "setstatus-before-create",
    "setstatus-unknown-job",
    "setstatus-wrong-status",
    "setstatus-filter-chunks-wrong",
    "setstatus-filter-status-absent",
    "setstatus-filter-type-unknown",
    "setstatus-unknown-experiment",
    "setstatus-locked",
    "setstatus-other-version",
)
def test_a_rejected_setstatus_is_not_a_success(name: str, output: Output) -> None:
    is_done = name == "setstatus-locked" and output.exit_code == 0  # 3.14 does it beside a run
    assert SET_JOB_STATUS.is_success(output.exit_code, output.text) is is_done


@each("create", "create-unknown-experiment", "create-locked")
def test_whether_a_job_list_was_made(name: str, output: Output) -> None:
    # 3.14 makes a job list beside a run (create-locked, exit code 0).
    is_made = name == "create" or (name == "create-locked" and output.exit_code == 0)
    assert CREATE_JOB_LIST.is_success(output.exit_code, output.text) is is_made


@each("updatedescrip", "updatedescrip-unknown-experiment")
def test_whether_a_description_was_set(name: str, output: Output) -> None:
    assert UPDATE_DESCRIPTION.is_success(output.exit_code, output.text) is (name == "updatedescrip")


@each("run", "run-failing", "run-stopped")
def test_the_end_of_a_run_is_read_from_its_output(name: str, output: Output) -> None:
    assert run_log.is_run_complete(output.text) is (name == "run")
    if output.exit_code != 124:  # a run of 3.14 with two failing jobs did not end within two minutes
        assert run_log.has_run_failed(output.text) is (name == "run-failing")
    # Since 4.1.17, a run that gets an INT does not exit with 0 and does not report the interruption.
    assert run_log.is_run_interrupted(output.text) is (name == "run-stopped" and output.exit_code == 0)
