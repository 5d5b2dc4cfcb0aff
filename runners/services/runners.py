"""Reach a machine: `Runner`, and its two ways `LocalRunner` and `SSHRunner`.

A runner has one primitive, `execute`. Launching, probing, signalling and log reading are written once on top of it,
with the texts of `scripts.py`, so LOCAL and SSH cannot differ.
"""

from __future__ import annotations

import os
import pwd
import secrets
import selectors
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from django.conf import settings

from profiles.config import RunnerConfig, RunnerType
from runners.exceptions import CommandFailed, CommandTimedOut, OutcomeUnknown, RunnerUnreachable
from runners.services import scripts
from runners.services.answers import Unreadable
from runners.services.output import BoundedOutput, last_lines, plain_text
from runners.services.probe import (
    Identity,
    LogChunk,
    Probe,
    ProbeTarget,
    cannot_tell,
    parse_first_match,
    parse_launch,
    parse_log,
    parse_probes,
)
from runners.services.ssh import POOL, run_on_channel

CLIENT_GRACE = scripts.KILL_AFTER + 5  # seconds that the machine gets to end a command itself before we stop waiting
# Seconds of silence, and in all, after which the output of an ended command is complete if others hold its pipes.
DRAIN, DRAIN_MOST = 0.2, 1.0


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a command said. `stdout` and `stderr` are its last `RUNNERS_OUTPUT_LIMIT` bytes, login noise removed."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    duration: float  # seconds
    truncated: bool = False

    @property
    def text(self) -> str:
        """Standard output, where Autosubmit says everything, without colours."""
        return plain_text(self.stdout)

    @property
    def all_text(self) -> str:
        """Both streams, for what Autosubmit says on standard error: its version (3.14) and usage errors."""
        return plain_text(self.stdout + b"\n" + self.stderr)

    @property
    def last_words(self) -> str:
        """The last lines of both streams, for an error."""
        return last_lines(self.stdout + b"\n" + self.stderr)


class Runner(ABC):
    """How a command reaches a machine. Subclasses give `_exchange`; nothing else differs between machines."""

    def __init__(self, config: RunnerConfig) -> None:
        self.config = config

    @property
    @abstractmethod
    def where(self) -> str:
        """The machine in words, for errors."""

    @property
    @abstractmethod
    def target(self) -> tuple[str, ...]:
        """Equal for runners that reach the same account of the same machine: one round trip then serves many runs."""

    @abstractmethod
    def _exchange(
        self,
        command_line: str,
        script: bytes,
        stdin: bytes,
        stdout: BoundedOutput,
        stderr: BoundedOutput,
        deadline: float,
    ) -> int | None:
        """Run a short command line with `script` and `stdin` as its standard input and return its exit code.

        0 as soon as `stdout.is_complete`; None: it was ended at the deadline (of `time.monotonic`). Raises
        RunnerUnreachable when it certainly did not start, OutcomeUnknown when the connection was lost later.
        """

    def execute(
        self, script: str, *, timeout: float, stdin: bytes = b"", login: bool = False, until: str = ""
    ) -> CommandResult:
        """Evaluate a bash script there and wait for its end.

        `timeout` in seconds is a total deadline which also ends the processes there. With `login` the script runs in
        a login shell, which has what site profiles give (`module`, `conda`). `until`: the script keeps the deadline
        itself (exit code 124), has succeeded as soon as it prints this line, and what it leaves behind lives on. An
        exit code other than 0 is a result.
        Raises RunnerUnreachable (certainly not started), CommandTimedOut, OutcomeUnknown.
        """
        payload = f"{script}\n{scripts.END}".encode()
        marker = f"autosubmit-runners-{secrets.token_hex(8)}"
        stdout = BoundedOutput(marker, settings.RUNNERS_OUTPUT_LIMIT, last_line=until)
        stderr = BoundedOutput(marker, settings.RUNNERS_OUTPUT_LIMIT)
        line = scripts.bootstrap(len(payload), marker=marker, login=login, timeout=None if until else timeout)
        start = time.monotonic()
        exit_code = self._exchange(line, payload, stdin, stdout, stderr, start + timeout + CLIENT_GRACE)
        duration = time.monotonic() - start
        # `timeout` answers 124 after its TERM; after its KILL it is killed itself.
        if exit_code is None or (duration >= timeout and exit_code in (124, 137)):
            raise CommandTimedOut(
                f"The command on {self.where} was ended after {timeout:g} s.",
                output=last_lines(stdout.data + b"\n" + stderr.data),
            )
        if not stdout.started:
            words = last_lines(stdout.noise + b"\n" + stderr.noise) or "no output"
            raise RunnerUnreachable(
                f"The shell of the account on {self.where} ended with exit code {exit_code} before running anything: "
                f"{words}"
            )
        return CommandResult(exit_code, stdout.data, stderr.data, duration, stdout.truncated or stderr.truncated)

    def launch(self, key: str, command: str, *, timeout: float, prelude: Sequence[str] = ()) -> Identity:
        """Start a command detached, in the run directory `key`, and return its identity.

        `prelude` lines run first, in the same login shell; the call waits for them but not for the command.
        Raises CommandFailed, with the last words, when the prelude fails or the run directory cannot be made: then
        the command certainly did not start. After OutcomeUnknown (the connection was lost, or the answer is not valid)
        or CommandTimedOut (the prelude goes on) it may start yet, and a probe of `key` tells. Else as `execute`.
        """
        script = scripts.launch(key, command, prelude=prelude, timeout=timeout)
        try:
            result = self.execute(script, timeout=timeout, until=scripts.READY)
        except CommandTimedOut as error:
            raise CommandTimedOut(
                f"The environment on {self.where} was not ready within {timeout:g} s. The command may still begin: ask "
                "for its status before you start it again.",
                **error.facts,
            ) from error
        if result.exit_code == 0:
            try:
                return parse_launch(_lines(result), scripts.READY)
            except Unreadable as error:  # whatever answered may have started the command, too
                raise OutcomeUnknown(
                    f"The answer of {self.where} to the launch is not valid ({error}). Is there a forced command or a "
                    "wrapper around the account's shell? Whether the command was started is not known: ask for its "
                    "status before you start it again.",
                    output=result.last_words,
                ) from error
        raise CommandFailed(
            f"The command was not started on {self.where}: {result.last_words or 'no output'}",
            exit_code=result.exit_code,
            output=result.last_words,
        )

    def probe(self, targets: Iterable[ProbeTarget], *, timeout: float) -> dict[str, Probe]:
        """Ask after any number of runs in one round trip. Each key gets an answer; a machine raises nothing here."""
        targets = list(targets)
        script = scripts.probe((t.key, t.claim, t.identity.words if t.identity else ()) for t in targets)
        try:
            result = self.execute(script, timeout=timeout)
        except (RunnerUnreachable, OutcomeUnknown, CommandTimedOut) as error:
            return {target.key: cannot_tell(error.detail) for target in targets}
        return self._answers((target.key for target in targets), result)

    def signal(self, key: str, identity: Identity, name: str, *, timeout: float) -> Probe:
        """Send a signal (`TERM`, `KILL`) to the run's own processes if the identity matches; answer as a probe does."""
        result = self.execute(scripts.signal(key, identity.words, name), timeout=timeout)
        return self._answers([key], result)[key]

    def first_match(self, expid: str, *, timeout: float) -> int | None:
        """The pid that `autosubmit stop` would take for the run of `expid`, maybe another home's. None: no process.

        Raises CommandFailed when the machine's answer is not valid, and as `execute`.
        """
        result = self.execute(scripts.first_match(expid), timeout=timeout)
        try:
            return parse_first_match(_lines(result))
        except Unreadable as error:
            raise self._not_valid(f"to the search for `autosubmit run {expid}`", error, result) from error

    def read_log(self, key: str, *, offset: int, limit: int, timeout: float) -> LogChunk | None:
        """At most `limit` bytes of the run's log from byte `offset` (negative: from the end). None: there is no log.

        Raises CommandFailed when the machine cannot read it, and as `execute`.
        """
        result = self.execute(scripts.read_log(key, offset=offset, limit=limit), timeout=timeout)
        if result.exit_code == 66:
            return None
        try:
            return parse_log(result.stdout, offset=offset, limit=limit)
        except Unreadable as error:
            raise self._not_valid("to the request for the log", error, result) from error

    def _answers(self, keys: Iterable[str], result: CommandResult) -> dict[str, Probe]:
        return parse_probes(keys, _lines(result), f"{self.where} gave no answer: {result.last_words}")

    def _not_valid(self, question: str, error: Unreadable, result: CommandResult) -> CommandFailed:
        return CommandFailed(
            f"The answer of {self.where} {question} is not valid: {error}. Its last words: "
            f"{result.last_words or 'no output'}",
            exit_code=result.exit_code,
            output=result.last_words,
        )


def _lines(result: CommandResult) -> str:
    """What our own scripts printed. Nothing of it is cleaned, so that nothing becomes the end of a line."""
    return result.stdout.decode("utf-8", "replace")


class LocalRunner(Runner):
    """The machine that this service lives on, as the account that it runs as."""

    @property
    def where(self) -> str:
        return "this machine"

    @property
    def target(self) -> tuple[str, ...]:
        return ("LOCAL",)

    def _exchange(
        self,
        command_line: str,
        script: bytes,
        stdin: bytes,
        stdout: BoundedOutput,
        stderr: BoundedOutput,
        deadline: float,
    ) -> int | None:
        with ExitStack() as stack:
            try:  # the script comes only later: without descriptors, processes or memory nothing of it is executed
                selector = stack.enter_context(selectors.DefaultSelector())
                process = subprocess.Popen(  # noqa: S603 -- the one short line of scripts.bootstrap
                    ["/bin/sh", "-c", command_line],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    bufsize=0,
                    cwd="/",
                    env=local_environment(),
                    umask=settings.RUNNERS_LOCAL_UMASK,
                    start_new_session=True,
                )
                stack.callback(self._clean_up, process)
                ended = os.pidfd_open(process.pid)
                stack.callback(os.close, ended)
            except OSError as error:
                raise RunnerUnreachable(
                    f"{self.where.capitalize()} cannot start a process now: {error.strerror}. Nothing was started."
                ) from error
            return self._converse(process, ended, selector, script + stdin, stdout, stderr, deadline)

    @staticmethod
    def _clean_up(process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe:
                pipe.close()

    @staticmethod
    def _converse(
        process: subprocess.Popen[bytes],
        ended: int,
        selector: selectors.BaseSelector,
        data: bytes,
        stdout: BoundedOutput,
        stderr: BoundedOutput,
        deadline: float,
    ) -> int | None:
        """Feed and read all three pipes at once until the process has ended.

        The end is seen on the process itself (`ended`, its pidfd), never as end of file: what a command leaves behind
        may hold its pipes, and go on writing into them.
        """
        assert process.stdin and process.stdout and process.stderr
        os.set_blocking(process.stdin.fileno(), False)
        pending = memoryview(data)
        selector.register(process.stdin, selectors.EVENT_WRITE)
        selector.register(process.stdout, selectors.EVENT_READ, stdout)
        selector.register(process.stderr, selectors.EVENT_READ, stderr)
        selector.register(ended, selectors.EVENT_READ)
        is_over, end = False, deadline
        while True:
            if not is_over and process.poll() is not None:
                is_over, end = True, time.monotonic() + DRAIN_MOST
            left = end - time.monotonic()
            wait = min(left, DRAIN) if is_over else left
            ready = selector.select(wait) if wait > 0 and selector.get_map() else []
            if not ready:
                return exit_code(process) if is_over else None
            for key, _ in ready:
                if key.fileobj is process.stdin:
                    try:
                        pending = pending[os.write(key.fd, pending) :]
                    except BrokenPipeError:  # it ended without reading all
                        pending = pending[:0]
                    if not pending:
                        selector.unregister(process.stdin)
                        process.stdin.close()
                elif key.fileobj == ended:
                    selector.unregister(ended)
                elif chunk := os.read(key.fd, 65536):
                    key.data.feed(chunk)
                else:
                    selector.unregister(key.fileobj)
            if stdout.is_complete:
                return 0


def exit_code(process: subprocess.Popen[bytes]) -> int:
    """The exit code as a shell tells it: 128 + the signal, when one ended the process."""
    code: int = process.wait()
    return code if code >= 0 else 128 - code


def own_account() -> pwd.struct_passwd:
    """The account that this service, and so every LOCAL command, runs as.

    Containers run as numbers that no database knows: then the environment says what they are called.
    """
    uid = os.geteuid()
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        name, home = os.environ.get("USER") or str(uid), os.environ.get("HOME") or "/"
        return pwd.struct_passwd((name, "x", uid, os.getegid(), "", home, "/bin/sh"))


def local_environment() -> dict[str, str]:
    """A clean environment for LOCAL commands: the account's own, and nothing of this service's (it has secrets)."""
    account = own_account()
    own_bin = os.path.join(sys.prefix, "bin")
    path = [part for part in os.environ.get("PATH", os.defpath).split(os.pathsep) if part and part != own_bin]
    environment = {
        "HOME": os.environ.get("HOME") or account.pw_dir,
        "USER": account.pw_name,
        "LOGNAME": account.pw_name,
        "SHELL": account.pw_shell or "/bin/sh",
        "PATH": os.pathsep.join(path),
        "TERM": "dumb",
    }
    passed = {"LANG", "LC_ALL", "LC_CTYPE", "TZ", *settings.RUNNERS_LOCAL_ENV_PASS}
    return environment | {name: os.environ[name] for name in passed if name in os.environ}


class SSHRunner(Runner):
    """Another machine, over a pooled SSH connection."""

    @property
    def where(self) -> str:
        assert self.config.ssh
        return f"{self.config.ssh.user}@{self.config.ssh.host}:{self.config.ssh.port}"

    @property
    def target(self) -> tuple[str, ...]:
        return ("SSH", self.where)

    def _exchange(
        self,
        command_line: str,
        script: bytes,
        stdin: bytes,
        stdout: BoundedOutput,
        stderr: BoundedOutput,
        deadline: float,
    ) -> int | None:
        assert self.config.ssh
        return run_on_channel(POOL, self.config.ssh, command_line, script, stdin, stdout, stderr, deadline)


RUNNERS: dict[RunnerType, type[Runner]] = {RunnerType.LOCAL: LocalRunner, RunnerType.SSH: SSHRunner}


def get_runner(config: RunnerConfig) -> Runner:
    return RUNNERS[config.runner_type](config)
