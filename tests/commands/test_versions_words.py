"""The messages in which versions of Autosubmit report success, and the options that an installed version rejects."""

from __future__ import annotations

import pytest

from runners.commands import autosubmit
from runners.commands.autosubmit import CreateExperimentParams, CreateJobListParams, SetJobStatusParams

CHANGED = "CHANGED: job: a000_ONE status to: READY\n"
NAMED = SetJobStatusParams("READY", ("a000_ONE",))


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
    assert autosubmit.is_job_list_saved(exit_code, text) is is_saved


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
    assert autosubmit.created_expid(text) == expid


def test_the_platform_is_always_given_because_3_14_demands_one() -> None:
    assert "--HPC=local" in autosubmit.expid(CreateExperimentParams("x"))
    assert "--HPC=mn5" in autosubmit.expid(CreateExperimentParams("x", hpc="mn5"))


def test_any_status_is_no_filter_beside_another_because_only_4_1_17_knows_it() -> None:
    argv = autosubmit.setstatus("a000", SetJobStatusParams("READY", ("a000_ONE",), filter_status=("ANY",)))
    assert [word for word in argv if word.startswith(("--filter", "--list"))] == ["--list=a000_ONE"]
    argv = autosubmit.setstatus("a000", SetJobStatusParams("READY", filter_status=("ANY",)))
    assert [word for word in argv if word.startswith(("--filter", "--list"))] == ["--filter_status=ANY"]


def test_stop_is_confirmed_on_standard_input_because_older_versions_have_no_option_for_it() -> None:
    assert autosubmit.stop("a000", force=True, cancel_jobs=True) == [
        "autosubmit",
        "stop",
        "--force",
        "--cancel",
        "a000",
    ]
    assert autosubmit.STOP_STDIN == b"y\n"


@pytest.mark.parametrize(
    ("line", "argv", "parameters"),
    [
        (
            "autosubmit: error: unrecognized arguments: --force",
            autosubmit.create("a000", CreateJobListParams(force=True)),
            ("force",),
        ),
        (
            "autosubmit setstatus: error: argument -ft/--filter_type: not allowed with argument -fl/--list",
            autosubmit.setstatus("a000", SetJobStatusParams("READY", ("a000_ONE",), filter_type="SIM")),
            ("job_names_list", "filter_type"),
        ),
        (
            "autosubmit setstatus: error: argument -t/--status_final: invalid choice: 'SKIPPED' (choose from 'READY')",
            autosubmit.setstatus("a000", SetJobStatusParams("SKIPPED", ("a000_ONE",))),
            ("final_status",),
        ),
        (
            "autosubmit setstatus: error: one of the arguments -fl/--list -ft/--filter_type is required",  # 4.0, 3.14
            autosubmit.setstatus("a000", SetJobStatusParams("READY", filter_type_chunk_split="[ 2000 [ fc0 [1] ] ],X")),
            ("filter_type_chunk_split",),
        ),
        (
            "[CRITICAL] Error in the supplied input for -fs. [eCode=7011]",
            autosubmit.setstatus("a000", SetJobStatusParams("READY", filter_status=("ANY",))),
            ("filter_status",),
        ),
        (
            "[CRITICAL] Error in the supplied input for -fs. [eCode=7011]",
            autosubmit.setstatus("a000", SetJobStatusParams("READY", filter_status=("FAILED",))),
            None,
        ),
        ("autosubmit: error: unrecognized arguments: --force", autosubmit.setstatus("a000", NAMED), None),
        ("x autosubmit: error: unrecognized arguments: --list=a", autosubmit.setstatus("a000", NAMED), None),
    ],
)
def test_what_a_version_does_not_take(line: str, argv: list[str], parameters: tuple[str, ...] | None) -> None:
    usage = autosubmit.usage_error(f"Checking\nusage: autosubmit [-h] [-v]\n{line}\n", argv)
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
    assert autosubmit.version_in(text) == version


@pytest.mark.parametrize(("version", "is_told"), [("4.1.10", True), ("4.0.105", True), ("4.1.12", False), ("", False)])
def test_an_option_that_a_version_refuses_without_a_word_is_told_by_its_version(version: str, is_told: bool) -> None:
    argv = autosubmit.expid(CreateExperimentParams("x", evaluation=True))
    found = autosubmit.needs_newer(argv, version)
    assert (found is not None and found.parameters == ("evaluation",)) is is_told
    assert autosubmit.needs_newer(autosubmit.expid(CreateExperimentParams("x")), version) is None
