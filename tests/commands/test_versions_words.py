"""The messages in which versions of Autosubmit report success, and the options that an installed version rejects."""

from __future__ import annotations

import pytest

from runners.commands.create_experiment import CREATE_EXPERIMENT, created_expid
from runners.commands.installation import version_in
from runners.commands.set_job_status import SET_JOB_STATUS
from runners.commands.stop_experiment import STOP_EXPERIMENT, STOP_STDIN
from tests.support.commands import command_of, create, expid_command, setstatus

CHANGED = "CHANGED: job: a000_ONE status to: READY\n"
NAMED = setstatus("a000", "READY", ("a000_ONE",))


@pytest.mark.parametrize(
    ("exit_code", "text", "is_saved"),
    [
        (0, CHANGED + "JobList saved in 0.08 seconds.\n", True),  # 4.1.16 and newer
        (0, CHANGED, True),  # older
        (0, "[WARNING] No changes were performed.\n", True),
        (0, "", False),
        (-1, CHANGED, False),  # its exit code is unknown
        (1, CHANGED, False),
        (0, CHANGED + "[CRITICAL] Error in the supplied input for -fl. [eCode=7011]\n", False),
        (0, CHANGED + "[WARNING] Changes NOT saved to the JobList!!!!:  use -s option to save\n", False),
        (0, "Namespace(description='\\nCHANGED: job: a000_ONE status to: READY')\n", False),
    ],
)
def test_whether_changed_statuses_were_saved(exit_code: int, text: str, is_saved: bool) -> None:
    assert SET_JOB_STATUS.is_success(exit_code, text) is is_saved


REGISTERED = 'The new experiment "a000" has been registered.\n'


@pytest.mark.parametrize(
    ("text", "expid"),
    [
        (REGISTERED + "Experiment a000 created\n", "a000"),  # 4.x
        (REGISTERED + "Copying config files...\nExperiment registered successfully\n", "a000"),  # 3.14
        (REGISTERED, None),
        ("Experiment registered successfully\n", None),
    ],
)
def test_the_id_of_a_new_experiment(text: str, expid: str | None) -> None:
    assert created_expid(text) == expid


def test_the_platform_is_always_given_because_3_14_demands_one() -> None:
    assert "--HPC=local" in expid_command("x")
    assert "--HPC=mn5" in expid_command("x", hpc="mn5")


def test_any_status_is_no_filter_beside_another_because_only_4_1_17_knows_it() -> None:
    argv = setstatus("a000", "READY", ("a000_ONE",), filter_status=("ANY",))
    assert [word for word in argv if word.startswith(("--filter", "--list"))] == ["--list=a000_ONE"]
    argv = setstatus("a000", "READY", filter_status=("ANY",))
    assert [word for word in argv if word.startswith(("--filter", "--list"))] == ["--filter_status=ANY"]


def test_stop_is_confirmed_on_standard_input_because_older_versions_have_no_option_for_it() -> None:
    assert STOP_EXPERIMENT.argv("a000", force=True, cancel_jobs=True) == [
        "autosubmit",
        "stop",
        "--force",
        "--cancel",
        "a000",
    ]
    assert STOP_STDIN == b"y\n"


@pytest.mark.parametrize(
    ("line", "argv", "parameters"),
    [
        (
            "autosubmit: error: unrecognized arguments: --force",
            create("a000", force=True),
            ("force",),
        ),
        (
            "autosubmit setstatus: error: argument -ft/--filter_type: not allowed with argument -fl/--list",
            setstatus("a000", "READY", ("a000_ONE",), filter_type=("SIM",)),
            ("job_names_list", "filter_type"),
        ),
        (
            "autosubmit setstatus: error: argument -t/--status_final: invalid choice: 'SKIPPED' (choose from 'READY')",
            setstatus("a000", "SKIPPED", ("a000_ONE",)),
            ("final_status",),
        ),
        (
            "autosubmit setstatus: error: one of the arguments -fl/--list -ft/--filter_type is required",  # 4.0, 3.14
            setstatus("a000", "READY", filter_type_chunk_split="[ 2000 [ fc0 [1] ] ],X"),
            ("filter_type_chunk_split",),
        ),
        (
            "[CRITICAL] Error in the supplied input for -fs. [eCode=7011]",
            setstatus("a000", "READY", filter_status=("ANY",)),
            ("filter_status",),
        ),
        (
            "[CRITICAL] Error in the supplied input for -fs. [eCode=7011]",
            setstatus("a000", "READY", filter_status=("FAILED",)),
            None,
        ),
        ("autosubmit: error: unrecognized arguments: --force", NAMED, None),
        ("x autosubmit: error: unrecognized arguments: --list=a", NAMED, None),
    ],
)
def test_a_usage_error_names_the_unsupported_parameters(
    line: str, argv: list[str], parameters: tuple[str, ...] | None
) -> None:
    usage = command_of(argv).usage_error(argv, f"Checking\nusage: autosubmit [-h] [-v]\n{line}\n")
    assert (usage and usage.parameters) == parameters


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("4.1.17.1\n", "4.1.17.1"),
        ("\n/x/transport.py:33: CryptographyDeprecationWarning: Python 2\n  from c import d\n3.14.1\n", "3.14.1"),
        ("autosubmit 4\n", ""),
        ("4." + "1" * 500 + "\n", ""),
        ("", ""),
    ],
)
def test_the_version_is_found_on_either_stream(text: str, version: str) -> None:
    assert version_in(text) == version


@pytest.mark.parametrize(("version", "is_told"), [("4.1.10", True), ("4.0.105", True), ("4.1.12", False), ("", False)])
def test_an_option_that_a_version_rejects_silently_is_reported_by_version(version: str, is_told: bool) -> None:
    argv = expid_command("x", evaluation=True)
    found = CREATE_EXPERIMENT.needs_newer(argv, version)
    assert (found is not None and found.parameters == ("evaluation",)) is is_told
    assert CREATE_EXPERIMENT.needs_newer(expid_command("x"), version) is None
