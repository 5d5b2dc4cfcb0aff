"""The shell scripts that run on the machine: one set for LOCAL and SSH. Pure functions that return `str`.

Each script is a `.sh` file in this directory, which `make lint` checks with shellcheck. A placeholder such as `@key@`
is replaced by a value, which is quoted here and only here (`_shell_word`). A line such as `. machine.sh` is replaced by
that file. Comments, blank lines and indentation are not sent: a comment must have a line of its own.

The scripts need bash 4.2, coreutils (`timeout`, `env`, `head`, `tail`, `stat`, `mkdir`, `mv`, `chmod`, `id`), grep and
awk, as every Linux cluster has.

A run's directory `~/.autosubmit-runners/<key>/` (mode 0700; elsewhere if the profile has RUN_DIRECTORY) holds:
    command.sh   what is executed; its first line is a comment with the label of the command (services/found_runs.py)
    identity     one line, see `Identity` in probe.py; created by the supervisor before the command may execute, or
                 by a probe after the launch deadline (it then holds "claimed"): the first of the two wins the race
    log          standard output and error of the command
    begun        created after the prelude has succeeded, right before the command starts; it holds the value of
                 AUTOSUBMIT_CONFIGURATION in the command's environment
    running      an empty file; at the end it is renamed to ended.<exit code>.<signal name or ->.<epoch seconds>
"""

from __future__ import annotations

import ast
import json
import math
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from shlex import join, quote
from typing import Any

BASE = ".autosubmit-runners"
RUN_KEY_VARIABLE = "AUTOSUBMIT_RUNNERS_KEY"  # in the environment of a run's processes, so that a stop finds them all
EXPID_LOCK = "expid.lock"  # in the base directory, for create-experiment
EXPERIMENTS = "#experiments"  # the first word of the line with the list of experiments
JOBS = "#jobs"  # the first word of a line about the jobs of an experiment
PYTHONS = ("/usr/bin/python3", "/usr/libexec/platform-python", "python3")  # the second one is that of Red Hat 8
READY = "ready"  # the last line of a launch that succeeded
FAILED = "failed"  # the first word of a launch that certainly has not started its command; the exit code follows
LATE = "late"  # the first line of a launch that timed out and whose command may still start
# Exit codes of a launch that failed.
PRELUDE_FAILED, NO_LOGIN_SHELL, FOREIGN_RUN, NO_RUN_DIRECTORY, CANNOT_WRITE = 70, 71, 72, 73, 74
UNUSABLE = "autosubmit-runners-unusable"  # the last line on standard error if the base directory cannot be used
LABEL_LIMIT = 16_384  # characters of the first line of command.sh
NO_EXPERIMENT = 67  # exit code of `list_scripts` and `read_script`
NO_LOG = 66  # exit code of the scripts that read a log
PLACEHOLDER = "placeholder-of-autosubmit-runners"  # an argument of the process that `cancelling` makes
BUSY = 76  # exit code of `cancelling`: a process runs the experiment
NO_PLACEHOLDER = 77  # exit code of `cancelling`: that process did not start
KILL_AFTER = 5  # seconds between the TERM and the KILL of `timeout` at a command's deadline
OPENING = b"exit 125\n"  # ends any shell that executes it: bash, dash, ksh, zsh, tcsh, fish
KILLED = 128 + 9  # exit code that a shell reports for a process that a KILL ended
OTHER_SHELL = 125  # exit code of a shell that is not our reader and has executed OPENING
END = "#end"
UNREAD = "#unread"  # what our reader prints when the script arrived incomplete; the script is then not evaluated
CUT_SHORT = 126  # exit code when the script arrived incomplete; no part of it was executed

SEARCH_BLOCK = 8 * 1024**2  # bytes that a search of a log reads at once
COUNTED_BYTES = 512 * 1024**2  # no lines are counted behind this byte of a log

# --norc: sshd's bash has already read ~/.bashrc, and a bash that finds SSH_CLIENT would read it again. -p: ignore
# $BASH_ENV and the functions in the environment, which can have the names of builtins.
_BASH = ("bash", "--norc", "-p")
_FOLDER = Path(__file__).parent
_INCLUDE = re.compile(r"\. ([a-z_]+)\.sh")
_PLACEHOLDER = re.compile(r"@([A-Za-z_]+)@")
# Two threads that parse at once may get a SystemError (AST constructor recursion depth mismatch) in CPython 3.11.
_PARSING = threading.Lock()
_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./,:+@-")


class Shell(str):
    """Shell text. A placeholder that stands for it is replaced by the text as it is."""


Value = str | int | Sequence[str]

# `run_directory.sh` sets the variable.
_BASE_DIRECTORY = Shell(f'"${{autosubmit_runners_base:-$HOME/{BASE}}}"')
# Constants may stand inside of words and quotes, so none of them needs quotes.
_CONSTANTS: dict[str, Value] = {
    "BASE_DIRECTORY": _BASE_DIRECTORY,
    "BUSY": BUSY,
    "CANNOT_WRITE": CANNOT_WRITE,
    "CUT_SHORT": CUT_SHORT,
    "END": END,
    "EXPID_LOCK": EXPID_LOCK,
    "FAILED": FAILED,
    "FOREIGN": Shell(
        f"{{ echo {_BASE_DIRECTORY} 'belongs to another account, or its mode cannot be changed. Remove it, or change "
        f"its owner to this account and its mode to 0700.' >&2; echo {UNUSABLE} >&2; exit {NO_RUN_DIRECTORY}; }}"
    ),
    "FOREIGN_RUN": FOREIGN_RUN,
    "KILLED": KILLED,
    "LATE": LATE,
    "NO_EXPERIMENT": NO_EXPERIMENT,
    "NO_LOG": NO_LOG,
    "NO_LOGIN_SHELL": NO_LOGIN_SHELL,
    "NO_PLACEHOLDER": NO_PLACEHOLDER,
    "NO_RUN_DIRECTORY": NO_RUN_DIRECTORY,
    "OPENING": OPENING.decode().strip(),
    "PLACEHOLDER": PLACEHOLDER,
    "PRELUDE_FAILED": PRELUDE_FAILED,
    "READY": READY,
    "RUN_KEY_VARIABLE": RUN_KEY_VARIABLE,
    "UNREAD": UNREAD,
    "UNUSABLE": UNUSABLE,
}


@cache
def _lines(name: str) -> tuple[str, ...]:
    """Return the lines of a script with those of the scripts that it includes, without comments and indentation."""
    lines: list[str] = []
    for line in (_FOLDER / f"{name}.sh").read_text(encoding="utf-8").splitlines():
        text = line.strip()
        if include := _INCLUDE.fullmatch(text):
            lines += _lines(include[1])
        elif text and not text.startswith("#"):
            lines.append(text)
    return tuple(lines)


def _shell_word(value: Value) -> str:
    """Return a value as the shell has to read it: one quoted word, or one for each item of a sequence."""
    if isinstance(value, Shell):
        return value
    return quote(str(value)) if isinstance(value, str | int) else join(value)


def _filled(name: str, separator: str = "\n", /, **values: Value) -> Shell:
    """Return a script with its placeholders replaced. Raises KeyError for one without a value."""
    known = _CONSTANTS | values
    text = separator.join(_lines(name))
    return Shell(_PLACEHOLDER.sub(lambda found: _shell_word(known[found[1]]), text))


def base_directory(run_directory: str = "") -> str:
    """Return the shell word for the directory of all runs of an account. `run_directory`: empty for the home."""
    return f'{quote(run_directory)}/autosubmit-runners-"$EUID"' if run_directory else f'"$HOME"/{BASE}'


def in_run_directory(script: str, run_directory: str) -> str:
    """Return the script with the base directory below `run_directory` instead of the home.

    It ends with NO_RUN_DIRECTORY, and `failed` and this code on standard output, if that place is not safe.
    """
    return _filled("run_directory", directory=run_directory) + "\n" + script


def encoded(script: str) -> bytes:
    """Encode a script as one word without blanks, quotes or line ends, for `printf %b` of bash.

    Any other shell or interpreter that reads this word, or a part of it, can only report an error.
    """
    data = f"{script}\n{END}".encode()
    unsafe = set(data) - _SAFE
    # Few different bytes are unsafe, so this takes a tenth of the time of one replacement per byte. The backslash comes
    # first: the escapes themselves contain it.
    for byte in sorted(unsafe, key=lambda each: each != ord("\\")):
        data = data.replace(bytes([byte]), b"\\x%02x" % byte)
    return data


def bootstrap(length: int, *, marker: str, login: bool, timeout: float | None) -> list[str]:
    """Return the argv that starts our reader, which evaluates a script that arrives as `length` bytes of `encoded`.

    The argv is short for every script, so no argument limit applies and `ps` does not show the script. Any login shell
    can parse the argv after `shlex.join`, including csh and fish; so it is one line. The profile scripts of a login
    shell get /dev/null as standard input, so that they cannot consume the script.

    The reader prints `marker` on both streams when it is ready. Everything before the marker is output of start-up
    files. Then the reader expects OPENING and the script. It does not evaluate anything else and prints UNREAD instead.
    The last line on both streams is `<marker> <exit code>`. This line is missing in two cases: a script outside of a
    login shell ended with `exec`, or a KILL ended a script in a login shell. The command line contains the marker in
    two parts, so that a program that echoes the command line does not print the marker.

    `timeout` in seconds ends everything that was started; None: the script ends by itself.
    """
    half = len(marker) // 2
    values: dict[str, Value] = {"half": marker[:half], "other_half": marker[half:], "length": length}
    bounded = [] if timeout is None else ["timeout", "-k", str(KILL_AFTER), f"{timeout:g}"]
    if login:
        shell = join([*bounded, "bash", "-lc", _filled("bootstrap_login", "; ", **values)])
        report = _filled("report", "; ", **values)
        return ["sh", "-c", _filled("bootstrap_login_parent", "; ", shell=Shell(shell), report=report)]
    report_and_exit = str(_filled("report_and_exit", "; ", **values))
    return [*bounded, *_BASH, "-c", _filled("bootstrap", "; ", report=report_and_exit, **values)]


def surroundings(directory: str = _BASE_DIRECTORY) -> str:
    """Return a shell list that sets the working directory and the user names that Autosubmit depends on.

    Autosubmit reads `./.autosubmitrc`, deletes `./autosubmit.lock` and finds its processes by the name in USER. So
    the working directory is one of ours, and the names are those of the account. `directory`: one shell word.
    """
    parts = [_filled("working_directory", "; ", directory=Shell(directory))]
    if directory == _BASE_DIRECTORY:
        parts.append(_filled("private_directory", "; "))
    return "{ " + "; ".join([*parts, _filled("user_names", "; ")]) + "; }"


def replaced_by(argv: Sequence[str]) -> str:
    """Return a shell list that replaces a login shell by a command.

    The command gets POSIXLY_CORRECT if the account has set it, because this changes, for example, what `df` prints in a
    job. Our own shells do not have it (normal.sh).
    """
    return f'builtin eval "${{autosubmit_runners_posix-}}" && exec {join(argv)}'


def launch(
    key: str,
    command: str,
    *,
    timeout: float,
    prelude: Sequence[str] = (),
    unless_runs: str = "",
    known: Sequence[str] = (),
    label: str = "",
) -> str:
    """Return the script that starts `command` detached and reports its identity.

    `mkdir` of the run directory fails if it exists, so one key is launched at most once, even if this script arrives
    several times. The script checks that it can write there before it starts anything.

    `label`: letters, digits and `_:.-`, to find the row of the directory again.

    The script prints one of these answers:
    - the identity and `ready`: the prelude has succeeded and the command is about to execute
    - `failed CODE` and then the end of the log: the command certainly was not and will not be started. With code 72,
      the lines of `foreign_look` follow instead: `unless_runs` is an expid, and another process of the account runs it
    - `late`: the prelude takes longer than `timeout` seconds
    After any other answer it is unknown whether the command was started. Codes: 70 the prelude failed, 71 start-up
    files replaced or ended the login shell, 72 another process runs the experiment, 73 no run directory, 74 cannot
    write.
    """
    steps = " && ".join([surroundings('"$1"'), *prelude])
    text = str(_filled("command", key=key, steps=Shell(steps), command=Shell(command)))
    return _filled(
        "launch",
        key=key,
        text=f"# {label}\n{text}\n" if label else f"{text}\n",
        shell=str(_filled("command_shell", "; ")),
        timeout=f"{timeout:g}",
        whole_seconds=math.ceil(timeout),
        expid=unless_runs,
        known=" ".join(known),
    )


def list_directories(*, after: str = "", most: int) -> str:
    """Return the script that lists directories of runs, by name: `KEY LABEL` each, at most `most`, then END.

    LABEL is `-` if the directory has none. `after`: begin behind this key.
    """
    return _filled("list_directories", after=after, most=most, label_limit=LABEL_LIMIT)


def foreign_look(expid: str, known: Sequence[str]) -> str:
    """Return the script that prints a line for each `autosubmit run EXPID` of the account, and then `end`.

    A line is `foreign HOST BOOT NAMESPACE PID START SINCE COMMAND LINE`. START: clock ticks since boot. SINCE: epoch
    seconds. Processes in `known` (words `PID.START`, or the key of a run) are left out, and so are those with another
    home directory, wrapper scripts around a found process, and its forks. At most 10 lines.
    Source: the arguments of `autosubmit run` in 3.14 to 4.1, measured; proc(5).
    """
    return _filled("foreign_look", expid=expid, known=" ".join(known))


def foreign_signal(expid: str, process: Sequence[str], name: str = "") -> str:
    """Return the script that sends a signal to a process that `foreign_look` has found, and prints what it is then.

    `process`: host, boot id, namespace, pid and start time. The signal is sent only if the process is the same, of this
    account, and still has the arguments of `autosubmit run EXPID`. TERM and KILL are also sent to the processes below
    it, except jobs of the local platform. Empty `name`: no signal. Answers: `alive`, `gone`, `changed` (other
    arguments), `elsewhere HOST`.
    """
    host, boot, space, pid, start = process
    return _filled("foreign_signal", expid=expid, host=host, boot=boot, space=space, pid=pid, start=start, name=name)


def probe(targets: Iterable[tuple[str, bool, Sequence[str]]]) -> str:
    """Return the script that prints the state of runs, one line per run: `<key> <answer> <facts>`.

    Each target is `(key, claim, identity fields or nothing)`. Answers: `ended CODE.SIGNAL.EPOCH interrupted|-`,
    `running IDENTITY`, `gone IDENTITY`, `rebooted IDENTITY`, `elsewhere HOST`, `starting`, `never_started`,
    `unknown WHY`. With `claim`, the script creates a missing identity file, so that a later launch of this key fails.
    Only then does it answer never_started. While the directory of all runs cannot be read, it answers neither this nor
    gone or rebooted.

    Then it prints a line for each log that exists: `log <clock> <key>/log <bytes> <time of the last change>`, both
    times by the clocks of the machine, in epoch seconds.
    """
    targets = list(targets)
    calls = [join(["probe", key, "claim" if claim else "look", *identity]) for key, claim, identity in targets]
    return "\n".join([_filled("probe"), *calls, join(["logs", *(key for key, _, _ in targets)]), ""])


def signal(key: str, identity: Sequence[str], name: str, *, spare_jobs_of: str = "") -> str:
    """Return the script that sends the signal `name` to the run's own processes, then prints the answer of a probe.

    The run's own processes are those that have the run's key in their environment, and the process group of the
    command. The group counts only while the command is still the process that we started (same pid *and* start time)
    and leads the group. Another process that has reused the pid never gets the signal. The supervisor is neither, so it
    gets no signal and can write the exit code. The script never sends to pid 1 or below: `kill -- -1` means every
    process. `spare_jobs_of`: an expid; its jobs on the local platform get no signal, because they are meant to outlive
    the run.
    """
    return _filled(
        "signal",
        key=key,
        identity=identity,
        boot=identity[1],
        space=identity[2],
        pid=identity[3],
        start=identity[4],
        name=name,
        expid=spare_jobs_of,
        variable=f"{RUN_KEY_VARIABLE}={key}",
    )


def first_match(expid: str) -> str:
    """Return the script that prints the pid that `autosubmit stop` would signal for `expid`, if there is one.

    `autosubmit stop` picks the account's lowest pid whose arguments, reduced to `autosubmit`, `run` and the expid, are
    exactly these three. It ignores home and database, so it may pick a run of the same name in another home.
    Source: measured on 4.1.17.1.
    """
    return _filled("first_match", expid=expid)


def cancelling(expid: str, command: str) -> str:
    """Return the script with which `command` cancels the jobs of `expid` after the run's end.

    `command` is an `autosubmit stop --cancel` in its environment. Autosubmit cancels only the jobs of a run that it has
    just stopped. It recognizes a run by its arguments (see `first_match`), so the script starts a placeholder process,
    which only waits, with the arguments `autosubmit run EXPID`. Autosubmit sends INT to the placeholder, sees that it
    ends, and cancels the jobs. The placeholder also ends with this script. If a real process has these arguments, the
    script does not execute `command`: it prints `busy PID` and ends with exit code 76. If the placeholder does not
    start, the exit code is 77.
    Source: Autosubmit's `stop` in 4.1.8 to 4.1.17.1; measured on 4.1.17.1.
    """
    return _filled(
        "cancelling",
        expid=expid,
        first_match=Shell(first_match(expid)),
        placeholder=str(_filled("placeholder")),
        command=Shell(command),
    )


def platform_types(files: Sequence[str]) -> str:
    """Return the script that prints `NAME TYPE` for each platform in these YAML files of an experiment.

    It prints at most 200 lines.
    """
    return _filled("platform_types", files=files)


def leftovers(
    keys: Sequence[str], identity: Sequence[str], expid: str, *, group: bool, helpers: str = "", jobs: str = ""
) -> str:
    """Return the script that prints the remaining processes of an ended run: `left PID KIND COMMAND LINE`, then `end`.

    KIND is `job` for processes of jobs on this machine, else `helper`. Autosubmit starts jobs of the local platform as
    `bash .../LOG_EXPID/JOB.cmd`, or with another interpreter. They write into that folder, and so do batch jobs that
    got the run's environment. The processes below them are `job`, too. `helpers` and `jobs`: the signal that each kind
    gets; empty: none.

    A process belongs to the run if its environment has one of the `keys`. With `group`, which is meant for the moments
    after the end, the members of the command's process group belong to it, too: Autosubmit's log recovery overwrites
    its environment with a title. A group keeps its number while it has members. So if the leader is gone, members that
    started after the leader belong to this run. After a reboot the script prints only `rebooted`, on another machine
    only `elsewhere`.
    """
    return _filled(
        "leftovers",
        host=identity[0],
        patterns=[word for key in keys for word in ("-e", f"{RUN_KEY_VARIABLE}={key}")],
        boot=identity[1],
        space=identity[2],
        pid=identity[3],
        start=identity[4],
        expid=expid,
        group=int(group),
        helpers=helpers,
        jobs=jobs,
    )


def read_end(
    key: str, pattern: str, *, repeated: str, seconds: int, lines: int, tail: int, jobs: Shell, mark: str
) -> str:
    """Return the script that reads all that explains the end of a run, in three parts.

    First the log lines that match an extended regular expression: their last `lines` bytes. Of consecutive lines that
    contain the text `repeated`, it prints only the last one. `seconds` end the search. Then `<mark> <exit code>`: 0 or
    1 if the whole log was searched. Then what the script part `jobs` prints, and `<mark>`. The third part is that of
    `read_log` for the last `tail` bytes. Exit code NO_LOG: the log does not exist or is not a regular file.
    """
    return _filled(
        "read_end",
        key=key,
        pattern=pattern,
        repeated=repeated,
        seconds=seconds,
        lines=lines,
        jobs=jobs,
        mark=mark,
        offset=-tail,
        limit=tail,
    )


def read_log(key: str, *, offset: int, limit: int) -> str:
    """Return the script that prints `<size> <start>` and a line end, then at most `limit` log bytes from `offset`.

    A negative offset counts from the end. Exit code NO_LOG: the log does not exist or is not a regular file.
    """
    return _filled("read_log", key=key, offset=offset, limit=limit)


def search_log(
    key: str,
    texts: Sequence[str],
    *,
    ignore_case: bool,
    begin: int,
    end: int,
    backward: bool,
    most: int,
    context: int,
    seconds: int,
) -> str:
    """Return the script that searches a log for fixed texts, in blocks, for at most `seconds`.

    A match begins at byte `begin` or later, and before byte `end`. It prints the first `most` matches, or the last ones
    if `backward`, in ascending order: `match OFFSET LENGTH LINES BEFORE BASE64`. LINES: the line ends before the match;
    `-`: they were not counted, because that would take too long. BASE64: the match with the BEFORE bytes before it and
    at most `context` bytes behind it. Before the matches it prints `size BYTES`, and behind them `until OFFSET`: where
    the search stopped. Then all matches from `begin` to that byte were found (from that byte to `end` if `backward`).
    The last line is END. Exit code NO_LOG: the log does not exist or is not a regular file. A text has no line end.
    """
    return _filled(
        "search_log",
        key=key,
        options=[*(["-i"] if ignore_case else []), *(word for text in texts for word in ("-e", text))],
        overlap=max(len(text.encode()) for text in texts) - 1,
        begin=begin,
        end=end,
        backward=int(backward),
        most=most,
        context=context,
        block=SEARCH_BLOCK,
        seconds=seconds,
        count_limit=COUNTED_BYTES,
        count_until=seconds,
        count_seconds=max(1, seconds // 2),
    )


def count_lines(key: str, end: int, *, seconds: int) -> str:
    """Return the script that prints `lines NUMBER`: the line ends of a log before byte `end`. The last line is END.

    NUMBER is `-` if it would take too long to count them. Exit code NO_LOG: the log does not exist.
    """
    return _filled(
        "count_lines",
        key=key,
        end=end,
        count_limit=COUNTED_BYTES,
        count_until=seconds,
        count_seconds=max(1, seconds // 2),
    )


def _tree(name: str) -> ast.Module:
    """Return a Python script without docstrings and annotations. A file of this directory replaces its own import."""
    tree = ast.parse((_FOLDER / f"{name}.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
    body: list[ast.stmt] = []
    for statement in tree.body:
        module = (isinstance(statement, ast.ImportFrom) and statement.module) or ""
        if module.startswith(f"{__name__}."):
            body += _tree(module.removeprefix(f"{__name__}.")).body
        elif module not in ("__future__", "typing"):
            body.append(statement)
    tree.body = body
    return tree


@cache
def _python(name: str) -> str:
    """Return the code of a Python script: without comments, docstrings and annotations, for Python 3.6.

    It is sent with each request, so it is made short.
    """
    with _PARSING:
        tree = _tree(name)
    return re.sub(r"(?m)^ +", lambda found: " " * (len(found[0]) // 4), ast.unparse(tree))


def experiments(*, seconds: int) -> Shell:
    """Return the script that lists the experiments of an account with Python 3, in the environment that is loaded.

    It prints one line `#experiments - {json}`; the JSON has a member `problem`, a word, if there is no list. It ends
    itself after `seconds`.
    """
    return _filled(
        "jobs",
        pythons=PYTHONS[::-1],
        bounded=("timeout", "-k", "1", str(seconds)),
        code=_python("list_experiments"),
        request=json.dumps({"mark": EXPERIMENTS}),
        mark=EXPERIMENTS,
    )


def jobs(request: Mapping[str, Any], *, environment: bool = False, seconds: int = 0) -> Shell:
    """Return the script that reads an experiment's jobs with Python 3. It changes nothing and starts no Autosubmit.

    `request`: what `main` of read_jobs.py expects. The script prints lines `#jobs KEY {json}`, and after the line of a
    log at most `limit` bytes of it. The JSON has a member `problem`, a word, if there is no answer. `environment`:
    prefer the Python of the environment that is loaded. `seconds`: end the reading then; 0: the caller has a timeout.
    """
    return _filled(
        "jobs",
        pythons=PYTHONS[::-1] if environment else PYTHONS,
        bounded=("timeout", "-k", "1", str(seconds)) if seconds else ("env",),
        code=_python("read_jobs"),
        request=json.dumps({**request, "mark": JOBS}, separators=(",", ":")),
        mark=JOBS,
    )


def job_counts(wanted: Iterable[tuple[str, str, str]], *, names: int = 0, seconds: int = 5) -> str:
    """Return the part of a script that prints the counts of runs' jobs: a line `#jobs KEY {json}` for each run.

    Each of `wanted` is a run's key, its expid, and the stamp of the counts that are known, or an empty text. `names`:
    how many names of failed jobs. Append the part to a probe: it ends itself, and fails silently.
    """
    request = {"ask": "counts", "experiments": [list(each) for each in wanted], "names": names}
    return jobs(request, seconds=seconds)


def job_failures(key: str, expid: str, *, names: int, limit: int, seconds: int = 5) -> Shell:
    """Return the part of a script that prints a line `#jobs KEY {json}` about the jobs of a run that has ended.

    The line has the counts, and for the first `names` failed jobs the last `limit` bytes of their error logs. The part
    ends itself, and fails silently.
    """
    request = {"ask": "failures", "expid": expid, "key": key, "jobs": names, "limit": limit}
    return jobs(request, seconds=seconds)


def job_list_size(expid: str) -> str:
    """Return the script that prints the size in bytes of an experiment's job list (`pkl/job_list_EXPID.pkl`).

    It prints nothing if the file is not found. Experiments are in the `path` of `[local]` in .autosubmitrc, else in
    ~/autosubmit. Source: `autosubmit configure` of 3.14 to 4.1.
    """
    return _filled("job_list_size", expid=expid)


def run_options(expid: str, other: str) -> str:
    """Return the script that prints what the options of a run need to be checked.

    `clock 2026-11-26T08:00:00+0100`: the time of the machine. With `other`, an experiment to wait for, also `other
    found`, `other missing`, or `other never-ran` (it has no history), if the directory of the experiments is known.
    """
    return _filled("run_options", expid=expid, other=other)


def list_scripts(expid: str, *, offset: int, limit: int) -> str:
    """Return the script that prints `NAME SIZE MODIFIED` of generated job scripts, by name, then `total NUMBER`.

    It leaves out the first `offset` and prints at most `limit`. MODIFIED: seconds since the epoch, with a fraction.
    Exit code NO_EXPERIMENT: the experiment has no directory.
    Source: `autosubmit inspect` and `run` of 4.0.105 to 4.1.17.1 write tmp/JOB.cmd.
    """
    return _filled("list_scripts", expid=expid, offset=offset, limit=limit)


def read_script(expid: str, name: str, *, offset: int, limit: int) -> str:
    """Return the script that prints a part of a generated job script, in the format of `read_log`.

    Exit codes: NO_EXPERIMENT, and NO_LOG if the file does not exist or is no regular file.
    """
    return _filled("read_script", expid=expid, name=name, offset=offset, limit=limit)


def hold_lock(expid: str, *, locked: str) -> str:
    """Return a shell list that takes Autosubmit's lock of an experiment for the command that the same shell executes.

    It fails with the sentence `locked` if another process holds the lock. An experiment without a lock file is not
    running. Source: `run`, `create` and `setstatus` of 4.0.105 to 4.1.17.1 lock `tmp/autosubmit.lock` with flock(2).
    """
    return _filled("hold_lock", expid=expid, locked=locked)


def not_archived(expid: str) -> str:
    """Return a shell list that fails with a sentence if the experiment is archived.

    Source: `autosubmit archive` of 4.0.105 to 4.1.17.1 writes YEAR/EXPID.tar.gz or .tar beside the experiments.
    """
    return _filled("not_archived", expid=expid)


def no_directory(expid: str) -> str:
    """Return a shell list that fails with a sentence if the experiment has a directory."""
    return _filled("no_directory", expid=expid)


def write_update_list(directory: str, name: str, others: Sequence[str], size: int) -> str:
    """Return the script that writes standard input, `size` bytes, into the new file `name` of `directory`.

    It prints `written INODE`; `waiting` if that file or one of `others` exists; `no-directory`; or `not-written`.
    """
    return _filled("write_update_list", directory=directory, name=name, others=others, size=size)


def update_list_state(directory: str, name: str, inode: int, *, remove: bool = False) -> str:
    """Return the script that prints `waiting` while the file still has this inode, else `gone`.

    `remove`: remove the file then, and print `removed`.
    """
    return _filled(
        "update_list_state", directory=directory, name=name, inode=inode, remove=Shell("true" if remove else "false")
    )


def clean(targets: Iterable[tuple[str, Sequence[str]]], *, dry_run: bool) -> str:
    """Return the script that removes the directories of ended runs. It prints a line for each run: `KEY ANSWER KIB`.

    Each target is `(key, identity fields or nothing)`. ANSWER is `removed`, `absent`, or `kept`: the run may still be
    running, or its directory cannot be seen or removed. KIB: the size of the directory. `dry_run`: nothing is removed.
    """
    calls = [join(["clean", key, *identity]) for key, identity in targets]
    return "\n".join([_filled("clean", remove=":" if dry_run else "rm -rf --"), *calls, ""])


def autosubmitrc(*, marker: str, limit: int) -> str:
    """Return a shell list that prints `marker`, the machine's name and Autosubmit's configuration file.

    It prints the first `limit` bytes of the file that Autosubmit 4.1.17 reads, which is the first of these that exists
    (BasicConfig.read). Commands run in our own directory, so that is searched before the home.
    """
    return _filled("autosubmitrc", marker=marker, limit=limit)


def modules_loaded(modules: Sequence[str]) -> str:
    """Return a shell list that fails, with a sentence on standard error, unless these environment modules are loaded.

    Source: LOADEDMODULES in module(1) of Environment Modules and in Lmod's documentation; the exit code 0 in
    `module() { eval `modulecmd bash $*`; }` of Environment Modules 3.2.
    """
    return _filled("modules_loaded", modules=modules)


def configuration_files(request: Mapping[str, object]) -> list[str]:
    """Return the argv that lists, reads or replaces the configuration files of an experiment: configuration_files.py.

    The argv is executed in the environment of the profile, because Autosubmit finds its experiments by variables of
    this environment. The program needs Python 3.6 there, as Autosubmit itself does.
    """
    return ["python3", "-I", "-c", _python("configuration_files"), json.dumps(request)]
