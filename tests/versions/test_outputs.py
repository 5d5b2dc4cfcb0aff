"""What the service makes of the real outputs of every version (`outputs/*.txt`)."""

from __future__ import annotations

import shlex

import pytest

from runners.services import autosubmit, reasons
from tests.versions.outputs import RECORDED, load, recorded

# setstatus that changes something, with the jobs that the recorded experiment (a001: ONE, TWO, SIM per chunk) has.
CHANGING = {
    "setstatus": {"a001_ONE": "SUSPENDED", "a001_TWO": "SUSPENDED"},
    "setstatus-filter-type": {"a001_TWO": "COMPLETED"},
}


@pytest.mark.parametrize("version", RECORDED)
def test_the_version_is_read(version: str) -> None:
    output = load(version)["version"]
    assert autosubmit.version_in(output.stdout + "\n" + output.stderr) == version


# A part of the recorded commands -> the parameters that these versions do not take. All other versions take them.
NOT_TAKEN = {
    "setstatus-two-filters": ("job_names_list", "filter_type"),
    "setstatus-filter-status-any": ("filter_status",),
    "setstatus-filter-type-chunk-split": ("filter_type_chunk_split",),
    "setstatus-wrong-status": ("final_status",),
    "create-force": ("force",),
    "expid-minimal": ("minimal",),
    "expid-testcase-dummy": ("testcase", "dummy"),
    "expid-evaluation": ("evaluation",),
}


@pytest.mark.parametrize("version", RECORDED)
@pytest.mark.parametrize("name", NOT_TAKEN)
def test_what_a_version_does_not_take_is_told_with_its_parameter(version: str, name: str) -> None:
    output = load(version)[name]
    found = autosubmit.usage_error(output.text + "\n" + output.stderr, shlex.split(output.command))
    if output.exit_code == 0:
        assert found is None
    else:
        assert found is not None and set(found.parameters) <= set(NOT_TAKEN[name]), found


@pytest.mark.parametrize("version", RECORDED)
@pytest.mark.parametrize("name", ["expid", "expid-dummy", "expid-copy"])
def test_an_experiment_that_was_created_has_an_id(version: str, name: str) -> None:
    assert autosubmit.created_expid(load(version)[name].text)


@pytest.mark.parametrize("version", RECORDED)
def test_an_experiment_that_was_not_created_has_none(version: str) -> None:
    assert autosubmit.created_expid(load(version)["expid-copy-unknown"].text) is None


@pytest.mark.parametrize("version", RECORDED)
@pytest.mark.parametrize("name", CHANGING)
def test_statuses_that_were_changed_are_a_success(version: str, name: str) -> None:
    output = load(version)[name]
    assert autosubmit.is_job_list_saved(output.exit_code, output.text)
    assert reasons.changes(output.stdout.encode()).jobs == CHANGING[name]


@pytest.mark.parametrize("version", RECORDED)
def test_a_status_that_a_job_has_already_is_a_success(version: str) -> None:
    output = load(version)["setstatus-unchanged"]
    assert autosubmit.is_job_list_saved(output.exit_code, output.text)
    assert reasons.changes(output.stdout.encode()).jobs == {}


@pytest.mark.parametrize("version", RECORDED)
def test_a_preview_is_shown_and_not_saved(version: str) -> None:
    output = load(version)["setstatus-preview"]
    assert autosubmit.is_job_list_shown(output.exit_code, output.text)
    assert not autosubmit.is_job_list_saved(output.exit_code, output.text)
    assert reasons.changes(output.stdout.encode()).jobs == {"a001_ONE": "SUSPENDED"}


@pytest.mark.parametrize(
    "name",
    [
        "setstatus-before-create",
        "setstatus-unknown-job",
        "setstatus-wrong-status",
        "setstatus-filter-chunks-wrong",
        "setstatus-filter-status-absent",
        "setstatus-filter-type-unknown",
        "setstatus-unknown-experiment",
        "setstatus-locked",
        "setstatus-other-version",
    ],
)
def test_a_refused_setstatus_is_no_success(name: str) -> None:
    found = recorded(name)
    assert found.keys() == set(RECORDED)
    assert not {
        version for version, output in found.items() if autosubmit.is_job_list_saved(output.exit_code, output.text)
    }


@pytest.mark.parametrize("version", RECORDED)
def test_a_job_list_that_was_made_is_a_success(version: str) -> None:
    for name, expected in {"create": True, "create-unknown-experiment": False, "create-locked": False}.items():
        output = load(version)[name]
        assert autosubmit.is_job_list_created(output.exit_code, output.text) is expected, name


@pytest.mark.parametrize("version", RECORDED)
def test_a_description_that_was_set_is_a_success(version: str) -> None:
    for name, expected in {"updatedescrip": True, "updatedescrip-unknown-experiment": False}.items():
        output = load(version)[name]
        assert autosubmit.is_description_set(output.exit_code, output.text) is expected, name
