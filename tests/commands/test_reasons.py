"""What the service reads in real outputs: tests/commands/outputs/VERSION/NAME.out and .err, recorded from Autosubmit.

The paths of the home and the installation were shortened; nothing else was changed. The comment beside a name says how
its output was made.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from runners.commands import output, remedies, run_log, set_job_status
from runners.commands.create_experiment import CREATE_EXPERIMENT
from tests.support.commands import command_of, create, expid_command, setstatus

OUTPUTS = Path(__file__).parent / "outputs"
NEWEST = "4.1.17.1"
ALL = ("4.1.17.1", "4.1.16", "4.1.15", "4.1.12", "4.1.8", "4.0.105")

SET = setstatus("a000", "READY", ("a000_NOSUCH",))
SET_TYPE = setstatus("a000", "READY", filter_type=("NOPE",))
SET_STATUS = setstatus("a000", "READY", filter_status=("FAILED",))
SET_CHUNKS = setstatus("a000", "READY", filter_chunks="[ 2000 [ fc0 ] ]")
SET_TYPE_CHUNK = setstatus("a000", "READY", filter_type_chunk="[ 2000 [ fc0 [1] ] ],NO")
COPY = expid_command(copy="zzzz", operational=True, testcase=True)
CREATE = create("a000", force=True)

# (name, versions, words that the complaint contains)
COMPLAINTS = [
    ("noconf", [NEWEST], "No configuration file(autosubmitrc) found"),
    ("nodb", [NEWEST], "Experiments database not found"),
    ("c_tab", ["4.1.17.1", "4.1.16", "4.1.12", "4.1.8", "4.0.105"], "jobs_a00"),
    ("c_tab", ["4.1.17.1", "4.1.16", "4.1.12", "4.1.8", "4.0.105"], '.yml", line 2, column 1'),
    ("c_dup", [NEWEST], 'found duplicate key "ONE"'),
    ("c_latin1", [NEWEST], "'utf-8' codec can't decode byte 0xc9"),
    ("c_version", ["4.1.17.1", "4.1.8"], "Current experiment uses (4.1.0) which is not the running Autosubmit version"),
    ("c_wrapnojobs", [NEWEST], "Unexpected error: 'NoneType' object is not iterable"),
    ("c_clonebranch", ["4.1.17.1", "4.1.12"], "fatal: Remote branch nobranch not found in upstream origin"),
    ("c_clonehttps", [NEWEST], "fatal: unable to access 'https://localhost:1/x/y.git/'"),
    ("c_confnosuch", [NEWEST], "Job list is empty"),
    ("c_confnosuch", [NEWEST], "proj/git_project/conf/nosuch"),
    ("c_norepo", [NEWEST], "Incorrect git Configuration"),
    ("d_expid", [NEWEST], "The database process exceeded the timeout limit 15s"),
    ("d_desc", [NEWEST], "database is locked"),
    ("s_before", [NEWEST], "Please run autosubmit create first"),
    ("run_before", [NEWEST], "Please run autosubmit create first"),
    ("set_badname", ["4.1.17.1", "4.1.16", "4.0.105"], "Specified job(s) : [['a000_NOSUCH'"),
]


def read(version: str, name: str) -> tuple[bytes, bytes]:
    """Return standard output and standard error."""
    out, err = (OUTPUTS / version / f"{name}.{end}" for end in ("out", "err"))
    return out.read_bytes() if out.exists() else b"", err.read_bytes() if err.exists() else b""


@pytest.mark.parametrize(
    ("version", "name", "words"),
    [(version, name, words) for name, versions, words in COMPLAINTS for version in versions],
)
def test_the_reason_is_the_error_with_its_lines(version: str, name: str, words: str) -> None:
    found = output.complaint(*read(version, name))
    assert found is not None
    assert words in found.text


RECORDED = sorted({(file.parent.name, file.stem) for file in OUTPUTS.glob("*/*")})


@pytest.mark.parametrize(("version", "name"), RECORDED)
def test_no_text_is_a_traceback_a_usage_line_a_path_of_the_installation_or_a_number(version: str, name: str) -> None:
    out, err = read(version, name)
    for data in ((out, err), (out + b"\n" + err, b"")):  # as two streams, and as one log
        texts = [output.reason_of(*data), *output.warnings(data[0])]
        for text in texts:
            assert "Traceback" not in text and 'File "' not in text, text
            assert "/opt/autosubmit" not in text and "site-packages" not in text, text
            assert "usage:" not in text and "Namespace(" not in text, text
            assert "\x1b" not in text and "\x1e" not in text, text
            assert len(text) <= output.TEXT_LIMIT
            lines = text.split("\n")
            assert not any(line.strip().isdecimal() or line.startswith("Error code:") for line in lines), text


REFUSALS = [
    ("set_badname", ["4.1.17.1", "4.1.16", "4.1.15", "4.1.12", "4.1.8", "4.0.105"], SET, "job_names_list"),
    ("set_badsection", ["4.1.17.1", "4.1.16", "4.1.12", "4.0.105"], SET_TYPE, "filter_type"),
    ("set_badsplit", [NEWEST], SET_TYPE, "filter_type"),
    ("set_badstatus", ["4.1.17.1", "4.1.16", "4.1.15", "4.1.8", "4.0.105"], SET_STATUS, "filter_status"),
    ("set_badchunk", ["4.1.17.1", "4.1.16"], SET_CHUNKS, "filter_chunks"),
    ("set_badftc", ["4.1.17.1", "4.0.105"], SET_TYPE_CHUNK, "filter_type_chunk"),
    ("copy_unknown", ["4.1.17.1", "4.1.16", "4.1.15"], COPY, "copy"),
]


@pytest.mark.parametrize(
    ("version", "name", "argv", "field"),
    [(version, name, argv, field) for name, versions, argv, field in REFUSALS for version in versions],
)
def test_a_refusal_names_the_parameter(version: str, name: str, argv: list[str], field: str) -> None:
    found = output.complaint(*read(version, name))
    assert found is not None
    refusal = command_of(argv).refusal(argv, found)
    assert refusal is not None and refusal.fields == (field,)
    assert refusal.sentence


USAGE = [
    ("4.1.17.1", "set_argparse", SET, ("final_status",), "choose from 'READY', 'COMPLETED', 'WAITING', 'SUSPENDED'"),
    ("4.1.17.1", "e_argparse1", COPY, ("operational", "testcase"), "not allowed with argument"),
    ("4.0.105", "create_force", CREATE, ("force",), "unrecognized arguments: --force"),
]


@pytest.mark.parametrize(("version", "name", "argv", "fields", "words"), USAGE)
def test_a_usage_error_names_the_parameter(
    version: str, name: str, argv: list[str], fields: tuple[str, ...], words: str
) -> None:
    out, err = read(version, name)
    usage = command_of(argv).usage_error(argv, (out + b"\n" + err).decode())
    assert usage is not None
    assert set(usage.parameters) == set(fields) and words in usage.words


@pytest.mark.parametrize("name", ["c_tab", "c_version", "c_clonebranch", "d_expid", "noconf", "s_before"])
def test_a_failed_command_is_not_a_rejected_request(name: str) -> None:
    found = output.complaint(*read(NEWEST, name))
    assert found is not None
    assert all(command_of(argv).refusal(argv, found) is None for argv in (SET, COPY, CREATE))
    assert not output.is_experiment_missing(found)
    assert remedies.remedy(found.text) or name in ("c_tab", "c_clonebranch")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("'NOWHERE'.", "does not find this name. Check whether the configuration lacks a platform"),
        ("'list' object has no attribute 'items'.", "in another form than Autosubmit expects"),
        ("invalid literal for int() with base 10: 'abc'.", "has to be a number"),
        ("invalid literal for int() with base 10: ''.", "Check that the file with EXPERIMENT exists."),
        ("argument of type 'NoneType' is not iterable.", "in another form than Autosubmit expects"),
        ("(sqlite3.OperationalError) database or disk is full", "is full, where the experiments"),
        ("attempt to write a readonly database", "may not read or write"),
        ("file is not a database.", "is damaged or empty"),
        ("no such table: experiment.", "is damaged or empty"),
        ("time data 'x' does not match format '%Y%m%d'.", "such as one of DATELIST"),
    ],
)
def test_a_python_error_without_context_is_explained(said: str, words: str) -> None:
    """Recorded from: an unknown PLATFORM, JOBS that is a list, NUMCHUNKS: abc, no expdef, `A:` in JOBS, DATELIST: x."""
    found = output.complaint(f"\x1b[31m [CRITICAL] Unexpected error: {said}\n Please report it\x1b[0m\n".encode())
    assert found is not None and found.reason.startswith(f"Unexpected error: {said}")
    assert words in remedies.remedy(found.text)


def test_an_unclear_error_of_a_copy_suggests_a_missing_source() -> None:
    found = output.complaint(*read("4.1.12", "copy_unknown"))
    assert found and "check that this experiment exists" in remedies.remedy(found.text)


@pytest.mark.parametrize("version", ALL)
def test_an_unknown_experiment_is_told_from_an_unknown_copy(version: str) -> None:
    found = output.complaint(*read(version, "create_unknown"))
    assert found is not None and output.is_experiment_missing(found)
    copied = output.complaint(*read(version, "copy_unknown"))
    assert copied is not None and not (CREATE_EXPERIMENT.needs_expid and output.is_experiment_missing(copied))


def test_the_lock_of_another_process_is_known() -> None:
    found = output.complaint(*read(NEWEST, "l_set"))
    assert found is not None and output.is_locked(found)


WARNINGS = [
    ("c_depnope", ["[ONE] Dependency parameter is invalid, job NOPE is not configured"]),
    ("c_hpcarch", ["[Default] Main platform is not defined! check if [HPCARCH = SLURMY] has any typo"]),
    ("c_customnone", ["YAML file not found: /nowhere/x.yml"]),
    ("c_wrapppn", ["[W] MAX_WALLCLOCK no exist in the vertical-wrapper platform", "Wrappers will not be generated"]),
    ("create", []),
    ("set_ok", []),
    ("set_none", ["No changes were performed."]),
]


@pytest.mark.parametrize(("name", "words"), WARNINGS)
def test_a_warning_is_its_heading_with_its_block(name: str, words: list[str]) -> None:
    found = output.warnings(read(NEWEST, name)[0])
    assert len(found) == len(words)
    for text, expected in zip(found, words, strict=True):
        assert expected in text
        assert "Loading parameters" not in text and "is correct" not in text  # they belong to the next message


def test_a_job_that_was_not_changed_is_a_warning() -> None:
    """The output of 4.1.17.1 when the platform of a RUNNING job does not answer."""
    said = [
        "Cannot change status of job [a004_SIM] because the connection to its platform [S] could not be established.",
        "Job [a004_SIM] status will remain as RUNNING.",
    ]
    text = "".join(f"\x1b[38;5;214m[ERROR] {line}\x1b[0m\x1b[39m\n" for line in said)
    assert output.warnings(text.encode()) == said


def test_a_warning_without_colours_ends_at_a_blank_line() -> None:
    block = "On Configuration files:\nCritical Issues on [Jobs] config file:\n[ONE] no SCRIPT"
    assert output.warnings(f"[WARNING] {block}\n\nLoading parameters\n".encode()) == [block]


@pytest.mark.parametrize("version", ["4.1.17.1", "4.1.16"])
def test_changes_are_counted(version: str) -> None:
    found = set_job_status.read_changes(read(version, "set_ok")[0])
    assert found.changed == len(found.jobs) > 0
    assert found.selected == found.changed and found.unchanged == 0
    assert set(found.jobs.values()) in ({"READY"}, {"SUSPENDED"})


def test_unchanged_selected_jobs_are_counted() -> None:
    found = set_job_status.read_changes(read(NEWEST, "set_none")[0])
    assert (found.jobs, found.changed, found.selected, found.unchanged) == ({}, 0, 2, 2)


def test_a_section_whose_jobs_were_not_changed_is_found() -> None:
    """With `--filter_type=DN,SIM` and splits in DN only, 4.1.17.1 changes DN and leaves out SIM."""
    found = set_job_status.read_changes(read(NEWEST, "set_fail")[0])
    assert set_job_status.sections_left_out(found, ["DN", "SIM"]) == ["SIM"]
    assert set_job_status.sections_left_out(found, ["DN"]) == []
    nothing = set_job_status.Changes({}, 0, 0)
    assert set_job_status.sections_left_out(nothing, ["SIM"]) == ["SIM"]


JOBS_OF_RUNS = [
    ("4.1.17.1", "run_failed", 7, {"a001_BAD": 2}, 1),
    ("4.1.17.1", "run_left", 7, {}, 3),
    *((version, "run_failed", 6, {"a000_BAD": 2}, 1) for version in ("4.1.16", "4.1.15", "4.1.12")),
    ("4.1.8", "run_failed", 6, {}, None),  # ends during the second attempt of BAD, like the log of a killed run
    *((version, "run_left", 6, {}, 3) for version in ("4.1.16", "4.1.15", "4.1.12", "4.1.8")),
]


@pytest.mark.parametrize(("version", "name", "total", "failed", "not_run"), JOBS_OF_RUNS)
def test_a_runs_log_tells_which_jobs_failed_and_how_many_were_not_run(
    version: str, name: str, total: int, failed: dict[str, int], not_run: int | None
) -> None:
    """Made with 3 DN, SIM, BAD (`exit 3`, one retry) and AFTER, which depends on BAD. run_left: three SUSPENDED."""
    data = read(version, name)[0]
    lines = b"\n".join(line for line in data.split(b"\n") if re.search(run_log.JOB_LINES.encode(), line))
    unseen = ("a000_BAD",) if not_run is None else ()
    assert run_log.jobs(lines) == run_log.Jobs(total, failed, not_run, unseen=unseen)


ENDED = (
    b"4 of 4 jobs remaining (1)\nJob: a_A submitted with job_id: 1\nJob: a_B submitted with job_id: 2\n"
    b"Job a_A changed from RUNNING to FAILED\n4 of 4 jobs remaining (1)\n"
)


def test_jobs_that_were_not_run_are_counted_of_a_whole_log_that_ends_by_itself_only() -> None:
    killed = run_log.jobs(ENDED)
    assert killed and killed.not_run is None
    broke_off = "The run was aborted, and 1 job that it had submitted may still run: a_B."
    assert killed.sentence == f"1 of 4 jobs failed: a_A (1 attempt). {broke_off}"
    over = ENDED + b"Job a_B changed from RUNNING to COMPLETED\n\x1b[32mNo more jobs to run.\x1b[0m\n"
    whole, cut = run_log.jobs(over), run_log.jobs(over, is_whole=False)
    assert whole and whole.not_run == 2
    assert cut and cut.not_run is None and cut.sentence == "At least 1 of 4 jobs failed: a_A."


def test_a_job_that_is_retried_has_not_failed() -> None:
    found = run_log.jobs(ENDED + b"Job: a_A submitted with job_id: 3\n")
    assert found and not found.failed
    assert found.sentence == "The run was aborted, and 2 jobs that it had submitted may still run: a_A, a_B."


def test_a_run_without_any_job_to_run_says_so() -> None:
    found = run_log.jobs(b"\x1b[32mNo more jobs to run.\x1b[0m\n")
    assert found and found.sentence == "This run executed no jobs: no job was READY, queuing or running."


def test_failed_jobs_that_the_log_does_not_name_are_told() -> None:
    log = b"No more jobs to run.\nSome jobs have failed and reached maximum retrials\n"
    assert run_log.reason_of_run(log, has_failed_jobs=False) == "Some jobs have failed and reached maximum retrials."


def test_a_possible_failure_is_not_reported_as_a_rejection() -> None:
    """4.1.12 prints the same message for a filter and for any other failure. For a failure it adds details."""
    found = output.complaint(*read("4.1.12", "set_badname"))
    assert found
    refusal = command_of(SET).refusal(SET, found)
    assert refusal and not refusal.is_certain and "without the rejected value" in refusal.sentence
    said = f"[CRITICAL] Trace: 'NOWHERE'\n[CRITICAL] {found.reason} [eCode=7040]\n"
    other = output.complaint(said.encode())
    assert other and other.details == "'NOWHERE'" and command_of(SET).refusal(SET, other) is None


@pytest.mark.parametrize(
    "line",
    [
        "JOB: [SLURMY] is ignored as the [a001_SIM] platform is currently offline[eCode=6000]",  # 4.1.16
        "\x1b[38;5;214m[ERROR] JOB: [a001_SIM] is ignored as the [SLURMY] platform is currently offline\x1b[0m",
    ],
)
def test_active_jobs_of_an_unreachable_platform_are_named(line: str) -> None:
    said = f"CHANGED: job: a001_ONE status to: READY\n{line}\n"
    assert set_job_status.jobs_of_status("a001", said.encode()) == ["a001_ONE", "a001_SIM"]


def test_the_sentence_about_jobs_is_short() -> None:
    assert run_log.Jobs(13, {"a008_BAD": 1}, 0).sentence == "1 of 13 jobs failed: a008_BAD (1 attempt)."
    assert run_log.Jobs(4, {}, 2).sentence == "2 of 4 jobs were not run."
    assert run_log.Jobs(4, {}, 0).sentence == ""
    many = run_log.Jobs(None, {f"a000_{number}_SIM": 2 for number in range(500)}, 0).sentence
    assert many.startswith("500 jobs failed: a000_0_SIM (2 attempts), ") and many.endswith(" and 490 more.")


def test_many_changes_are_bounded() -> None:
    text = b"".join(b"CHANGED: job: a000_%d_SIM status to: READY\n" % number for number in range(3000))
    found = set_job_status.read_changes(text)
    assert (len(found.jobs), found.changed) == (set_job_status.CHANGED_LIMIT, 3000)


@pytest.mark.parametrize(
    "piece",
    [
        b"[CRITICAL] x",
        b"[WARNING] x:\n",
        b"Traceback (most recent call last):\n",
        b"CHANGED: job: ",
        b"fatal: x\n",
        b"[eCode=7",
    ]
    + [b"\x1b[0m", b"\x1b[", b" ", b"\n", b"error: argument ", b"a" * 100, b"[ERROR] Trace:\n", b"Job x changed from "],
)
def test_a_flood_is_read_in_linear_time(piece: bytes) -> None:
    data = piece * (1024 * 1024 // len(piece))
    start = time.process_time()
    output.complaint(data, data)
    output.warnings(data)
    set_job_status.read_changes(data)
    output.last_words(data, data)
    run_log.jobs(data)
    assert time.process_time() - start < 15
