"""Why an Autosubmit command failed, what it warned of, and which of its parameters it rejected. Pure functions.

The input is the raw output of a command: it is untrusted, so each function is linear in its length and returns at most
TEXT_LIMIT characters per text. The formats were recorded from Autosubmit 4.0.105 to 4.1.17.1 (tests/reasons/). The
words that mean success are in `autosubmit.py`.

Autosubmit tags its messages: `[WARNING] text`, `[ERROR] text` and ` [CRITICAL] text`. A message can have several
lines. On a terminal and in a pipe each message is coloured, so the code that resets the colour ends the message. In the
files of ASLOGS there are no colours; then the next tag or a blank line ends it.

A command that fails prints its traceback as a [CRITICAL] message, then `[CRITICAL] Trace: details` (4.1.17; before,
the details follow "Details:" in the traceback), then `[CRITICAL] reason [eCode=7011]`, then "More info at ...".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from runners import printable
from runners.commands import autosubmit
from runners.services.machines.output import last_lines, plain_text

LINE_LIMIT = 4000  # characters of a line that are examined
TEXT_LIMIT = 2000  # characters of a reason, and of a warning
WARNINGS_LIMIT = 50  # warnings that an answer lists
CHANGED_LIMIT = 1000  # jobs that an answer lists
NAMES_LIMIT = 10  # failed jobs that a sentence names

_RESET = b"\x1b[0m"
_END = "\x1e"  # replaces a reset of the colour; Autosubmit's texts do not contain this control character
_DATE = r"(?:\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ )?"
_TAG = re.compile(rf"^ ?\[(WARNING|ERROR|CRITICAL)\] ?{_DATE}(.*)$", re.DOTALL)
_TRACEBACK = "Traceback (most recent call last)"
_FRAME = re.compile(r'^ {0,4}File "')
_PYTHON_WARNING = re.compile(r"/[^ :]+\.py:\d+: [A-Za-z]+Warning: ")
_EXCEPTION = re.compile(r"^[A-Za-z_][A-Za-z0-9_.]{0,200}: ?")
_CODE = re.compile(r"\[eCode=([0-9]{1,6})\]")
# Lines that say nothing about the cause: numbers that the reason already has, headings, and advice for a terminal.
_NOISE = re.compile(
    r"Error code: \d+$|## .* ##$|Please report it to Autosubmit|This file and the correctness of its content|"
    r"To suppress this check see|https://yaml\.dev/|Process stopped\. Review the format|"
    r"Remember that this option expects|"
    r"Details:$|Arguments provided: |This is the experiment: |More info at https?:|"
    r"Unhandled error: If you see this message"
)
# Warnings that every command of a valid experiment prints.
_HARMLESS = re.compile(
    r"Remember to MODIFY the MODEL config files|File \S+ does not exist|Joblist will be created from scratch due|"
    r"Failed to set last Autosubmit command, using fallback|Arguments provided: |This is the experiment: "
)
_UNKNOWN_ARGUMENT = "this version of Autosubmit does not know one of the arguments: it only printed its usage"
_LOCKED = "Another Autosubmit instance using the experiment"
_GIT = re.compile(
    r"(fatal|remote|error|warning|ERROR|ssh|kex_exchange_identification|Host key verification|Load key|"
    r"Permission denied|[A-Za-z0-9._-]{1,64}@[A-Za-z0-9._-]{1,255})(:| |$)"
)
_ARGPARSE = re.compile(r"^(?:autosubmit[a-z ]{0,40}: )?error: (.+)$")
_CHANGED = re.compile(r"^CHANGED: job: (.{1,255}?) status to: ([A-Z]{1,32})\s*$")
_SELECTED = re.compile(r"^The selected number of jobs to change is: ([0-9]{1,9})\s*$")


@dataclass(slots=True)
class Message:
    """One message of Autosubmit: its tag, and its lines without tag and date."""

    tag: str
    lines: list[str] = field(default_factory=list)

    @property
    def is_traceback(self) -> bool:
        return self.lines[0].startswith(_TRACEBACK)


def _lines(data: bytes) -> list[str]:
    """Return the lines of an output, without colours, each of at most LINE_LIMIT characters.

    _END marks the end of a coloured message.
    """
    text = plain_text(data.replace(_END.encode(), b"").replace(_RESET, _END.encode()))
    return [part for line in text.split("\n") for part in _parts(line)]


def _parts(line: str) -> list[str]:
    """Return the line, or only the beginning of a long line, so that patterns examine a bounded text.

    The end mark of its message is kept. A reason near the end of a long line is kept, too: another program may have
    printed text without a line end before it.
    """
    if len(line) <= LINE_LIMIT:
        return [line]
    beginning = line[:LINE_LIMIT] + (_END if _END in line[LINE_LIMIT:] else "")
    _, tag, reason = line[LINE_LIMIT:][-LINE_LIMIT:].rpartition("[CRITICAL]")
    return [beginning, tag + reason] if tag else [beginning]


def messages(data: bytes) -> list[Message]:
    """Return the tagged messages of an output, in order."""
    lines = _lines(data)
    is_coloured = any(_END in line for line in lines)
    found: list[Message] = []
    current: Message | None = None
    for line in lines:
        before, end, _ = line.partition(_END)
        if tag := _TAG.match(before):
            current = Message(tag[1], [tag[2]])
            found.append(current)
        elif before.startswith("More info at http"):
            current = None
        elif current is not None and (is_coloured or _continues(current, before)):
            current.lines.append(before)
        else:
            current = None
        if end:
            current = None
    return found


def _continues(message: Message, line: str) -> bool:
    """Return True if a line without a colour belongs to the message above it."""
    if message.tag == "CRITICAL":
        return True
    # A heading has a block below it. Other warnings have one line; the next line belongs to another message.
    is_heading = message.lines[0].rstrip().endswith(":")
    return is_heading and bool(line.strip()) and _CODE.search(message.lines[-1]) is None


@dataclass(frozen=True, slots=True)
class Complaint:
    """Why a command failed.

    `reason` is Autosubmit's sentence, `details` are the lines that belong to it (its "Trace:" block, lines of git).
    `raw` contains both as Autosubmit printed them. `code`: the N of `[eCode=N]`.
    """

    reason: str
    details: str = ""
    raw: str = ""
    code: int | None = None

    @property
    def text(self) -> str:
        """Reason and details, for users."""
        return printable.text("\n".join(part for part in (self.reason, self.details) if part), TEXT_LIMIT)


def complaint(stdout: bytes, stderr: bytes = b"") -> Complaint | None:
    """Return Autosubmit's reason; None if the output has none (a shell, a module or a signal ended the command).

    The result never contains a traceback, a usage line or a path of the installation.
    """
    found = messages(stdout)
    critical = [message for message in found if message.tag == "CRITICAL"]
    locked = next((message for message in found if message.lines[0].startswith(_LOCKED)), None)
    if locked:
        return Complaint(_LOCKED + ".", raw=_LOCKED)
    traces = [message for message in found if message.lines[0].startswith("Trace:")]
    if critical:
        reason, details = _of_critical(critical, traces)
    elif traces:  # 4.0, of an experiment that does not exist
        reason, details = _trace(traces[-1]), []
    else:
        lines = [line.replace(_END, "") for line in _lines(stdout) + _lines(stderr)]
        if usage := next((match[1] for line in lines if (match := _ARGPARSE.match(line))), None):
            return Complaint(printable.line(usage, TEXT_LIMIT), raw=usage[:TEXT_LIMIT])
        if not any(line.startswith(_TRACEBACK) for line in lines):
            is_usage = any(line.startswith("usage: autosubmit") for line in lines)
            return Complaint(_UNKNOWN_ARGUMENT, raw=_UNKNOWN_ARGUMENT) if is_usage else None
        reason, details = _exception(lines)
    raw = "\n".join([*reason, *details])[: 4 * TEXT_LIMIT]
    codes = _CODE.findall("\n".join(reason))
    reason_text = "\n".join(_clean(reason))
    known = set(reason_text.split("\n"))
    lines = [line for line in _clean(details) if line not in known]
    if "clone" in reason_text or "git" in reason_text.lower():
        lines += _git_lines(_lines(stdout) + _lines(stderr))
    if not reason_text and not lines:
        return None
    return Complaint(
        printable.text(reason_text, TEXT_LIMIT),
        printable.text("\n".join(lines), TEXT_LIMIT),
        raw,
        int(codes[-1]) if codes else None,
    )


def _of_critical(critical: Sequence[Message], traces: Sequence[Message]) -> tuple[list[str], list[str]]:
    """Return the lines of the reason, and those of the details."""
    last = critical[-1]
    if last.is_traceback:
        return _exception(last.lines)
    if traces:
        return last.lines, _trace(traces[-1])
    if len(critical) > 1 and critical[-2].is_traceback:
        return last.lines, _exception(critical[-2].lines)[1]
    return last.lines, []


def _trace(message: Message) -> list[str]:
    """Return the lines of a "Trace:" block. Reduce a traceback in it to the message of its exception."""
    block = [message.lines[0].removeprefix("Trace:"), *message.lines[1:]]
    return _exception(block)[0] if any(_TRACEBACK in line for line in block) else block


def _exception(lines: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the message of the last exception of a traceback, and the lines that follow "Details:" in it."""
    said: list[str] = []
    in_frame = False
    for line in lines:
        if _FRAME.match(line):
            said, in_frame = [], True
        elif line.lstrip().startswith(_TRACEBACK):
            said, in_frame = [], False
        elif not (in_frame and line.startswith("    ")):
            in_frame = False
            said.append(line)
    if said:
        said[0] = _EXCEPTION.sub("", said[0], count=1) or said[0]
    place = next((index for index, line in enumerate(said) if line.strip() == "Details:"), len(said))
    code = next((index for index, line in enumerate(said) if line.startswith("Error code: ")), place)
    return said[: min(place, code)], said[place + 1 :]


def _clean(lines: Iterable[str]) -> list[str]:
    """Remove codes, noise, blank lines, frames of tracebacks and repeated lines."""
    kept = []
    for line in lines:
        line = _CODE.sub(" ", line).strip()
        if line and not _NOISE.match(line) and "/site-packages/" not in line:
            kept.append(line.removesuffix(".") if line.endswith("..") else line)
    return list(dict.fromkeys(kept))


def _git_lines(lines: Iterable[str]) -> list[str]:
    """Return git's last `fatal:` line, and the lines of git and ssh directly above it."""
    block: list[str] = []
    found: list[str] = []
    for line in lines:
        line = line.replace(_END, "").strip()
        if not _GIT.match(line):
            block = []
            continue
        block = [*block[-4:], line[:500]]
        if line.startswith("fatal:"):
            found = block
    return found


def last_words(stdout: bytes, stderr: bytes = b"") -> str:
    """Return the last lines of an output without a complaint, but no frames of tracebacks and no usage."""
    kept: list[str] = []
    in_frame = in_usage = False
    for line in _lines(stdout) + _lines(stderr):
        line = line.replace(_END, "")
        if line.startswith("usage: "):
            in_usage = True
        elif in_usage and line and not line.startswith((" ", "positional arguments", "options", "optional arguments")):
            in_usage = not _ARGPARSE.match(line)
        if _FRAME.match(line) or line.startswith(_TRACEBACK) or _PYTHON_WARNING.match(line):
            in_frame = True
        elif in_frame and not line.startswith("  "):
            in_frame = False
        if not in_frame and not in_usage:
            kept.append(line)
    return last_lines("\n".join(kept).encode())


def reason_of(stdout: bytes, stderr: bytes = b"") -> str:
    """Return the complaint, or else the last words; empty if the output contains no reason."""
    found = complaint(stdout, stderr)
    return found.text if found else last_words(stdout, stderr)


_JOBS_FAILED = "Some jobs have failed and reached maximum retrials"


def reason_of_run(log: bytes, *, has_failed_jobs: bool) -> str:
    """Return why a run failed, according to the end of its log.

    This is the complaint; else that jobs failed, if the log says so; else the last words, unless `has_failed_jobs`.
    """
    if found := complaint(log):
        return found.text
    if _JOBS_FAILED.encode() in log:  # they may be jobs of an earlier run, which the log of this run does not name
        return f"{_JOBS_FAILED}."
    return "" if has_failed_jobs else last_words(log)


# --- what to do about it ----------------------------------------------------------------------------------------------

_REMEDIES: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"uses \(\s*\) which is not the running|has no yml data"),
        "The experiment tells no version. A configuration of Autosubmit 3 (.conf files) has to be converted first, "
        "with `autosubmit upgrade EXPID` on the machine; of any other, send `update_version: true`.",
    ),
    (
        re.compile(r"which is not the running Autosubmit version"),
        "Send `update_version: true` in command_params of set-job-status or create-job-list: the experiment then uses "
        "the running version.",
    ),
    (
        re.compile(r"while generating a new experiment in the db: *\Z"),  # up to 4.1.12
        "Autosubmit does not say more. If `copy` was sent: does that experiment exist?",
    ),
    (
        re.compile(r"disk is full|No space left on device|Disk quota exceeded"),
        "The disk, or the account's quota, is full where the experiments or Autosubmit's database are.",
    ),
    (
        re.compile(r"readonly database|Read-only file system|\[Errno 13\]|unable to open database"),
        "The account may not read or write a file that Autosubmit needs, or its folder: of the experiment, or of "
        "Autosubmit's database.",
    ),
    (
        re.compile(r"exceeded the timeout limit|database is locked"),
        "Another process holds Autosubmit's database, or it is damaged or cannot be written. Try again later; if it "
        "stays so, ask the installation's admins.",
    ),
    (
        re.compile(r"file is not a database|disk image is malformed|no such table: "),
        "A database of Autosubmit is damaged or empty. Ask the installation's admins; `autosubmit install` makes a new "
        "one where there is none.",
    ),
    (
        re.compile(r"File contains no section headers|autosubmitrc.{0,40}line: \d"),
        "Correct the .autosubmitrc of the account; `autosubmit configure` makes a new one.",
    ),
    (
        re.compile(r"couldn't load the workflow graph|Please run autosubmit create first"),
        "The experiment has no job list, or one that Autosubmit cannot read. If it never had one, make it with "
        "create-job-list. Else look first whether its file in pkl/ is damaged or the disk full: a new one begins anew.",
    ),
    (
        re.compile(r"No configuration file ?\(autosubmitrc\)"),
        "Run `autosubmit configure` in the account, or let its login shell set AUTOSUBMIT_CONFIGURATION.",
    ),
    (
        re.compile(r"database not found|database .{0,200}does not exist"),
        "Run `autosubmit install` in the account, or correct the path of the database in its .autosubmitrc.",
    ),
    (
        re.compile(
            r"'(NoneType|list|str|int|bool|float|dict)' (object (is not|has no|does not)|is not iterable|has no len)|"
            r"unhashable type: |indices must be integers|unsupported operand type|not enough values to unpack"
        ),
        "A section of the configuration is probably empty, incomplete or of another form than Autosubmit expects, such "
        "as JOBS, or a wrapper without JOBS_IN_WRAPPER.",
    ),
    (
        re.compile(r"^Unexpected error: '[^' ]{1,100}'\.?$", re.MULTILINE),
        "Autosubmit looks this name up and does not find it: is it a platform, a section or a setting that the "
        "configuration lacks?",
    ),
    (
        re.compile(r"invalid literal for int\(\) with base 10: ''"),
        "A setting of the configuration that has to be a number is missing, such as CHUNKSIZE or NUMCHUNKS. Is the "
        "file with EXPERIMENT there?",
    ),
    (
        re.compile(r"invalid literal for int\(\)|could not convert string to float"),
        "A setting of the configuration that has to be a number is none.",
    ),
    (
        re.compile(r"time data .{0,200} does not match format|unconverted data remains"),
        "A date of the configuration is none, such as one of DATELIST. Write it as in 20000101.",
    ),
    (
        re.compile(r"'utf-8' codec can't decode"),
        "A file of the configuration is not in UTF-8: save it in UTF-8.",
    ),
)


def remedy(text: str) -> str:
    """Return a sentence about what to do about a complaint; empty if no remedy is known."""
    return next((words for pattern, words in _REMEDIES if pattern.search(text)), "")


# --- refusals ---------------------------------------------------------------------------------------------------------

_CHUNKS = ("--filter_chunks", "--filter_type_chunk", "--filter_type_chunk_split")
_FILTERS = ("--list", "--filter_status", "--filter_type", *_CHUNKS)
# Maps a sentence of Autosubmit to the options that it may reject; only options in the command count. Tried in order: up
# to 4.1.16 `-ft` also heads errors of job names, so the headings of the details come first.
_REFUSALS: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = (
    (re.compile(r"Specified job\(s\)|Job Validation Message|List of jobs has a format error"), ("--list",)),
    (re.compile(r"-fc // -ftc|Chunk Validation Message|chunk formula"), _CHUNKS),
    (re.compile(r"Section Validation Message|Specified section"), ("--filter_type",)),
    (re.compile(r"Status Validation Message|There are no jobs with status"), ("--filter_status",)),
    (re.compile(r"supplied input for -fl"), ("--list",)),
    (re.compile(r"supplied input for -fs"), ("--filter_status",)),
    (re.compile(r"supplied input for -ftc|supplied input for -fc"), _CHUNKS),
    (re.compile(r"supplied input for -ft"), ("--filter_type", "--list")),
    (re.compile(r"Cannot set jobs to the active status|Invalid status '"), ("--status_final",)),
    (re.compile(r"^Experiment [a-z0-9]{4,16} doesn't exists?"), ("--copy",)),
)
_UNEXPLAINED = (
    "Autosubmit says no more than '{}'. A job, section, status or chunk that does not exist is the usual cause."
)
# 4.1.8 to 4.1.12 print this for every error in setstatus. The details that 4.1.12 adds are empty for a filter's error.
_NO_CHANGES = "while setting some of the workflow jobs, no changes were made"
_UNTOLD = (
    "Autosubmit says no more than '{}'. It does not tell which it refuses, or whether it refuses one at all: a job, "
    "section, status or chunk that does not exist is the usual cause; a platform that cannot be used is another."
)
_NO_EXPERIMENT = re.compile(r"^(?:[A-Z][a-z ]{1,80}: )?Experiment (?:[a-z0-9]{4,16} )?does(?: not|n't) exists?")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Autosubmit rejected a parameter and changed nothing."""

    fields: tuple[str, ...]  # of command_params; several if Autosubmit does not say which
    sentence: str
    is_certain: bool = True  # False: the cause may be something other than a parameter


def _names(option: str) -> list[str]:
    return [name for name, each in autosubmit.OPTIONS.items() if each == option]


def refusal(argv: Sequence[str], found: Complaint) -> Refusal | None:
    """Return which parameter of the command Autosubmit rejected; None if the command failed for another reason.

    `autosubmit.usage_error` handles usage errors.
    """
    options = {word.partition("=")[0] for word in argv if word.startswith("--")}
    for pattern, candidates in _REFUSALS:
        given = tuple(name for each in candidates if each in options for name in _names(each))
        if given and pattern.search(found.raw):
            sentence = found.details or found.reason.partition("\n")[2]
            if not sentence:
                is_whole = candidates[0] in ("--copy", "--status_final")
                sentence = found.reason if is_whole else _UNEXPLAINED.format(found.reason)
            return Refusal(given, sentence)
    if _NO_CHANGES in found.reason and not found.details:
        given = tuple(name for each in _FILTERS if each in options for name in _names(each))
        return Refusal(given, _UNTOLD.format(found.reason), is_certain=False) if given else None
    return None


def is_experiment_missing(argv: Sequence[str], found: Complaint) -> bool:
    """Return True if Autosubmit says that the experiment of the command does not exist."""
    return "expid" not in argv and _NO_EXPERIMENT.match(found.reason) is not None


def is_locked(found: Complaint) -> bool:
    """Return True if another Autosubmit process, such as a run, holds the experiment."""
    return found.raw.startswith(_LOCKED)


# --- warnings and changes ---------------------------------------------------------------------------------------------


def warnings(stdout: bytes) -> list[str]:
    """Return Autosubmit's warnings from a command that succeeded, each as a heading with its block."""
    told: dict[str, None] = {}
    for message in messages(stdout):
        text = printable.text("\n".join(_clean(message.lines)), TEXT_LIMIT)
        if text and message.tag != "CRITICAL" and not _HARMLESS.match(text):
            told[text] = None
    texts = list(told)
    if len(texts) > WARNINGS_LIMIT:
        texts[WARNINGS_LIMIT - 1 :] = [f"{len(texts) - WARNINGS_LIMIT + 1} more warnings are in the command's log."]
    return texts


@dataclass(frozen=True, slots=True)
class Changes:
    """What a setstatus has changed.

    `changed`: the number of changed jobs. `jobs`: the new status of each of them, at most CHANGED_LIMIT. `selected`:
    how many jobs the filters select; None if this version does not say.
    """

    jobs: dict[str, str]
    changed: int
    selected: int | None

    @property
    def unchanged(self) -> int | None:
        return None if self.selected is None else max(self.selected - self.changed, 0)


def changes(stdout: bytes) -> Changes:
    """Read the output of a setstatus, whether it saved the changes or not."""
    jobs: dict[str, str] = {}
    selected = None
    for line in _lines(stdout):
        line = line.replace(_END, "")
        if line.startswith("CHANGED: ") and (found := _CHANGED.match(line[:400])):
            jobs[printable.line(found[1])] = found[2]
        elif line.startswith("The selected") and (found := _SELECTED.match(line[:100])):
            selected = int(found[1])
    return Changes(dict(list(jobs.items())[:CHANGED_LIMIT]), len(jobs), selected)


def sections_left_out(found: Changes, sections: Iterable[str]) -> list[str]:
    """Return the sections of which a setstatus has certainly selected no job, although it selected other jobs.

    4.1.17.1 leaves out sections without splits if another section has splits.
    """
    if not found.changed or found.unchanged != 0 or found.changed > len(found.jobs):
        return []  # the sections of the selected jobs that were not changed, or are not listed, are unknown
    names = [name.upper() for name in found.jobs]
    return [each for each in sections if not any(name.endswith(f"_{each.upper()}") for name in names)]


def lost_progress(found: Changes, *, at_least: bool = False) -> str:
    """Return a warning of what a new job list does to the COMPLETED jobs in `found`; empty if there are none.

    `at_least`: the output was too long, and `found` was read from its end only.
    """
    if not found.changed:
        return ""
    jobs = "1 COMPLETED job becomes" if found.changed == 1 else f"{found.changed} COMPLETED jobs become"
    jobs = f"At least {jobs}" if at_least else jobs
    return (
        f"{jobs} READY or WAITING again by a new job list, and the next run executes them again: "
        f"{_named(list(found.jobs), found.changed)}. set-job-status with final_status COMPLETED restores them."
    )


def active_jobs(found: Mapping[str, Sequence[str]], *, is_done: bool) -> str:
    """Return a warning for a new job list: jobs are in the queues of their platforms, or running there.

    `found`: their names by status; empty if Autosubmit only says that there are some. `is_done`: the new list has
    already been created.
    """
    count = sum(map(len, found.values()))
    named = [f"{name} ({status})" for status, names in found.items() for name in names]
    jobs = "Jobs" if not count else "1 job" if count == 1 else f"{count} jobs"
    which = f": {_named(named, count)}" if count else ". Autosubmit does not say which"
    verb = "was" if count == 1 else "were"
    head = f"{jobs} of an earlier run {verb} left on the platforms, queuing or running, and may go on there{which}."
    if is_done:
        return (
            f"{head} The new job list does not know of them: the next run executes them a second time, at once with "
            "the first. Cancel them on their platforms before it; stop-experiment does not find them any more."
        )
    return (
        f"{head} A new job list forgets them, so the next run would execute them a second time, at once with the "
        "first. Cancel them before: stop-experiment with cancel_jobs."
    )


def _named(names: Sequence[str], count: int) -> str:
    more = f" and {count - NAMES_LIMIT} more" if count > NAMES_LIMIT else ""
    return ", ".join(names[:NAMES_LIMIT]) + more


# Versions up to 4.1.16 print this for an active job whose platform cannot be reached, even if nothing is to be saved.
# 4.1.16 names the platform first, older versions name the job first.
_OFFLINE = re.compile(r"^(?:\[[A-Z]+\] )?JOB: \[(.{1,255}?)\] is ignored as the \[(.{1,255}?)\] platform is currently")


def jobs_of_status(expid: str, stdout: bytes) -> list[str]:
    """Return the jobs that a setstatus without `save` selects, including those whose platform cannot be reached."""
    names = dict.fromkeys(changes(stdout).jobs)
    for line in _lines(stdout):
        if found := _OFFLINE.match(line[:600]):
            names |= {printable.line(name, 255): None for name in found.groups() if name.startswith(f"{expid}_")}
    return list(names)


def has_no_job_list(found: Complaint) -> bool:
    """Return True if Autosubmit says that create was never executed for the experiment."""
    return "couldn't load the workflow graph" in found.raw or "run autosubmit create first" in found.raw


# --- the jobs of a run ------------------------------------------------------------------------------------------------

# For grep -E: the lines of a run's log that contain the results of its jobs, in every version.
JOB_LINES = (
    "changed from [A-Z]+ to (COMPLETED|FAILED)|is COMPLETED|completion check failed|COMPLETED file|jobs remaining|"
    "submitted with job_id|[^ ]_[^ ]+ submitted$|No more jobs to run"
)
# Autosubmit prints such a line every few seconds, for days. Of consecutive ones only the last one counts.
REPEATED_LINES = "jobs remaining"
_NAME = r"([^\s\x1e]{1,255})"
_REMAINING = re.compile(r"^([0-9]{1,7}) of ([0-9]{1,7}) jobs remaining")
_JOB_CHANGED = re.compile(rf"^Job {_NAME} changed from [A-Z]{{1,32}} to ([A-Z]{{1,32}})")  # 4.1.17
_JOB_COMPLETED = re.compile(rf"^Job {_NAME} is COMPLETED")  # up to 4.1.16
_JOB_FAILED = re.compile(
    rf"^\[WARNING\] Couldn't find {_NAME} COMPLETED file|^\[ERROR\] Job {_NAME} completion check failed"
)
_JOB_SUBMITTED = re.compile(rf"^Job: {_NAME} submitted with job_id|^{_NAME} submitted$")


_OVER = "No more jobs to run"  # every version prints this when no job is active or READY any more


@dataclass(frozen=True, slots=True)
class Jobs:
    """The results of the jobs of a run that has ended.

    `failed`: the number of attempts of each job whose last attempt failed, in order. `not_run`: the number of jobs
    whose completion or failure the run has not seen; None if unknown. `total`: None if the log does not contain it.
    `at_least`: the log is too long to read completely, so more jobs may have failed. `is_idle`: the run found no job
    that it could run, and ended at once. `unseen`: jobs that it submitted before it broke off, and whose end it has not
    seen.
    """

    total: int | None
    failed: dict[str, int]
    not_run: int | None
    at_least: bool = False
    is_idle: bool = False
    unseen: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """The sentence of `jobs_sentence`, with the attempts of each failed job and a note on `unseen` jobs."""
        if self.is_idle:
            return "This run executed no job: none was READY, queuing or running."
        attempts = self.failed.items()
        # With `at_least`, the attempts in the unread part of the log are unknown, too.
        named = [name if self.at_least else f"{name} ({n} attempt{'s' if n > 1 else ''})" for name, n in attempts]
        told = jobs_sentence(self.total, len(named), named[:NAMES_LIMIT], self.not_run, at_least=self.at_least)
        if not self.unseen:
            return told
        count = len(self.unseen)
        jobs = "1 job that it had submitted" if count == 1 else f"{count} jobs that it had submitted"
        return f"{told} The run broke off, and {jobs} may go on: {_named(self.unseen, count)}.".strip()


def jobs_sentence(
    total: int | None, failed: int, names: Sequence[str], not_run: int | None, *, at_least: bool = False
) -> str:
    """Return "1 of 13 jobs failed: a008_BAD. 2 of 13 jobs were not run." or the like; empty if nothing is known."""
    parts = []
    if failed:
        named = ", ".join(names[:NAMES_LIMIT])
        more = f" and {failed - NAMES_LIMIT} more" if failed > NAMES_LIMIT else ""
        parts.append(f"{'At least ' if at_least else ''}{_of(failed, total)} failed: {named}{more}.")
    if not_run:
        parts.append(f"{_of(not_run, total)} {'was' if not_run == 1 else 'were'} not run.")
    return " ".join(parts)


def _of(count: int, total: int | None) -> str:
    noun = "job" if (count if total is None else total) == 1 else "jobs"
    return f"{count} {noun}" if total is None else f"{count} of {total} {noun}"


def jobs(lines: bytes, *, is_whole: bool = True) -> Jobs | None:
    """Read the JOB_LINES of a log and return the results of the jobs; None if the lines contain none.

    `is_whole`: `lines` are all JOB_LINES of the log, else only the last ones. Jobs that were not run are counted only
    if `is_whole` and the log says that the run ended by itself. After any other end, jobs may be queuing or running.
    """
    status: dict[str, bool] = {}  # True: the last known event of the job is its completion; False: its failure
    attempts: dict[str, int] = {}
    older: dict[str, int] = {}  # the same, from the lines of 4.1.8; 4.1.10 to 4.1.16 print both
    counts: tuple[int, int] | None = None
    completed: set[str] = set()  # since the last "N of M jobs remaining"
    is_over = False
    for line in _lines(lines):
        line = line.replace(_END, "").rstrip()
        if found := _REMAINING.match(line):
            counts, completed, is_over = (int(found[1]), int(found[2])), set(), False
        elif line.startswith(_OVER):
            is_over = True
        elif found := _JOB_SUBMITTED.match(line):
            name = printable.line(found[1] or found[2], 255)
            counted = attempts if found[1] else older
            counted[name] = counted.get(name, 0) + 1
            status.pop(name, None)  # a new attempt: its result comes in a later line, or never
        elif (found := _JOB_COMPLETED.match(line)) or ((found := _JOB_CHANGED.match(line)) and found[2] == "COMPLETED"):
            name = printable.line(found[1], 255)
            status[name] = True
            completed.add(name)
        elif (found := _JOB_FAILED.match(line)) or ((found := _JOB_CHANGED.match(line)) and found[2] == "FAILED"):
            name = printable.line(found[1] or found[2], 255)
            status[name] = False
            completed.discard(name)
    failed = {
        name: attempts.get(name) or older.get(name, 1) for name, is_completed in status.items() if not is_completed
    }
    unseen = () if is_over else tuple(name for name in attempts | older if name not in status)
    if counts is None:
        is_idle = is_whole and is_over and not (status or attempts or older)
        return Jobs(None, failed, None, not is_whole, is_idle, unseen) if failed or is_idle or unseen else None
    left = max(counts[0] - len(completed) - len(failed), 0)
    return Jobs(counts[1], failed, left if is_whole and is_over else None, not is_whole, unseen=unseen)
