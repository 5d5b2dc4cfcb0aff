"""What Autosubmit's output tells, whatever the command: complaints, warnings, usage errors. Pure functions.

The input is the raw output of a command: it is untrusted, so each function is linear in its length and returns at most
TEXT_LIMIT characters per text. The formats were recorded from Autosubmit 4.0.105 to 4.1.17.1 (tests/commands/outputs).
The lines that mean success are in the modules of the commands.

Autosubmit tags its messages: `[WARNING] text`, `[ERROR] text` and ` [CRITICAL] text`. A message can have several
lines. On a terminal and in a pipe each message is coloured, so the code that resets the colour ends the message. In the
files of ASLOGS there are no colours; then the next tag or a blank line ends it.

A command that fails prints its traceback as a [CRITICAL] message, then `[CRITICAL] Trace: details` (4.1.17; before,
the details follow "Details:" in the traceback), then `[CRITICAL] reason [eCode=7011]`, then "More info at ...".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from runners import printable
from runners.services.machines.output import last_lines, plain_text

LINE_LIMIT = 4000  # characters of a line that are examined
TEXT_LIMIT = 2000  # characters of a reason, and of a warning
WARNINGS_LIMIT = 50  # warnings that an answer lists
NAMES_LIMIT = 10  # jobs that a sentence names

_RESET = b"\x1b[0m"
END = "\x1e"  # replaces a reset of the colour; Autosubmit's texts do not contain this control character
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
LOCKED = "Another Autosubmit instance using the experiment"
_USAGE_ERROR = re.compile(r"^(?:autosubmit(?: [a-z]{1,40})?: )?error: (.{1,2000})", re.MULTILINE)
_LONG_OPTION = re.compile(r"--[A-Za-z_]{1,40}")
_LINE_START = r"^(?:\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ )?(?:\[WARNING\] )?"
_NO_EXPERIMENT = re.compile(r"^(?:[A-Z][a-z ]{1,80}: )?Experiment (?:[a-z0-9]{4,16} )?does(?: not|n't) exists?")
_GIT = re.compile(
    r"(fatal|remote|error|warning|ERROR|ssh|kex_exchange_identification|Host key verification|Load key|"
    r"Permission denied|[A-Za-z0-9._-]{1,64}@[A-Za-z0-9._-]{1,255})(:| |$)"
)
_ARGPARSE = re.compile(r"^(?:autosubmit[a-z ]{0,40}: )?error: (.+)$")


@dataclass(slots=True)
class Message:
    """One message of Autosubmit: its tag, and its lines without tag and date."""

    tag: str
    lines: list[str] = field(default_factory=list)

    @property
    def is_traceback(self) -> bool:
        return self.lines[0].startswith(_TRACEBACK)


def lines_of(data: bytes) -> list[str]:
    """Return the lines of an output, without colours, each of at most LINE_LIMIT characters.

    END marks the end of a coloured message.
    """
    text = plain_text(data.replace(END.encode(), b"").replace(_RESET, END.encode()))
    return [part for line in text.split("\n") for part in _parts(line)]


def _parts(line: str) -> list[str]:
    """Return the line, or only the beginning of a long line, so that patterns examine a bounded text.

    The end mark of its message is kept. A reason near the end of a long line is kept, too: another program may have
    printed text without a line end before it.
    """
    if len(line) <= LINE_LIMIT:
        return [line]
    beginning = line[:LINE_LIMIT] + (END if END in line[LINE_LIMIT:] else "")
    _, tag, reason = line[LINE_LIMIT:][-LINE_LIMIT:].rpartition("[CRITICAL]")
    return [beginning, tag + reason] if tag else [beginning]


def messages(data: bytes) -> list[Message]:
    """Return the tagged messages of an output, in order."""
    lines = lines_of(data)
    is_coloured = any(END in line for line in lines)
    found: list[Message] = []
    current: Message | None = None
    for line in lines:
        before, end, _ = line.partition(END)
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
    locked = next((message for message in found if message.lines[0].startswith(LOCKED)), None)
    if locked:
        return Complaint(LOCKED + ".", raw=LOCKED)
    traces = [message for message in found if message.lines[0].startswith("Trace:")]
    if critical:
        reason, details = _of_critical(critical, traces)
    elif traces:  # 4.0, of an experiment that does not exist
        reason, details = _trace(traces[-1]), []
    else:
        lines = [line.replace(END, "") for line in lines_of(stdout) + lines_of(stderr)]
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
        lines += _git_lines(lines_of(stdout) + lines_of(stderr))
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
        line = line.replace(END, "").strip()
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
    for line in lines_of(stdout) + lines_of(stderr):
        line = line.replace(END, "")
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


def is_locked(found: Complaint) -> bool:
    """Return True if another Autosubmit process, such as a run, holds the experiment."""
    return found.raw.startswith(LOCKED)


def is_experiment_missing(found: Complaint) -> bool:
    """Return True if Autosubmit says that the experiment of the command does not exist."""
    return _NO_EXPERIMENT.match(found.reason) is not None


def warnings(stdout: bytes) -> list[str]:
    """Return Autosubmit's warnings from a command that succeeded, each as a heading with its block."""
    told: dict[str, None] = {}
    for message in messages(stdout):
        text = printable.text("\n".join(_clean(message.lines)), TEXT_LIMIT)
        if text and message.tag != "CRITICAL" and not _HARMLESS.match(text):
            told[text] = None
    texts = list(told)
    if len(texts) > WARNINGS_LIMIT:
        texts[WARNINGS_LIMIT - 1 :] = [
            f"{len(texts) - WARNINGS_LIMIT + 1} more warnings are in the log of the command."
        ]
    return texts


def listed(names: Sequence[str], count: int) -> str:
    """Return the first NAMES_LIMIT names, and how many more of `count` there are."""
    more = f" and {count - NAMES_LIMIT} more" if count > NAMES_LIMIT else ""
    return ", ".join(names[:NAMES_LIMIT]) + more


def has_no_job_list(found: Complaint) -> bool:
    """Return True if Autosubmit says that create was never executed for the experiment."""
    return "couldn't load the workflow graph" in found.raw or "run autosubmit create first" in found.raw


def has_line(text: str, beginning: str) -> bool:
    """Return True if a line begins with `beginning`.

    A search anywhere in a line would be wrong. On failure, Autosubmit prints its arguments on one line
    (`Namespace(description=...`), so a success message can appear inside them.
    """
    return re.search(_LINE_START + re.escape(beginning), text, re.MULTILINE) is not None


# --- usage errors -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class UsageError:
    """What the installed version does not accept. Nothing was executed. `parameters`: members of `command_params`."""

    parameters: tuple[str, ...]
    words: str


def usage_error(text: str) -> str:
    """Return the words of argparse in an output; empty if there are none."""
    found = _USAGE_ERROR.search(text)
    return found[1] if found else ""


def long_options(words: str) -> list[str]:
    """Return the long options in the words of argparse."""
    return _LONG_OPTION.findall(words)
