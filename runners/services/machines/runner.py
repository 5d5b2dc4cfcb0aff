"""Reach a machine: the base class `Runner`. `local.py` and `ssh/runner.py` have its implementations.

A runner has one primitive, `execute`. Launching, probing, signalling and log reading are implemented once on top of it,
with the scripts in `scripts/`, so LOCAL and SSH behave the same.
"""

from __future__ import annotations

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from django.conf import settings
from django.dispatch import Signal

from profiles.config import RunnerConfig
from profiles.rules import RunnerRules
from runners.exceptions import (
    CommandFailed,
    CommandTimedOut,
    ForeignRun,
    MachineBusy,
    OutcomeUnknown,
    RunDirectoryUnusable,
    RunnerUnreachable,
    TooManyCommands,
)
from runners.printable import TEXT_LIMIT
from runners.services.machines import foreign_process, scripts, startup
from runners.services.machines.answers import Unreadable
from runners.services.machines.breaker import BREAKER
from runners.services.machines.bulkheads import BULKHEADS, Wait
from runners.services.machines.exchange import ConnectDeadline, Exchange
from runners.services.machines.log_search import LogMatches, LogSearch, parse_lines, parse_search
from runners.services.machines.observed import OBSERVED
from runners.services.machines.output import last_lines, plain_text
from runners.services.machines.probe import (
    EndOfRun,
    Identity,
    LogChunk,
    Probe,
    ProbeTarget,
    cannot_tell,
    parse_end,
    parse_failed_launch,
    parse_first_match,
    parse_launch,
    parse_log,
    parse_probes,
)
from runners_project import metrics

# Sent by `Runner.execute` after each wait for a machine, which may have taken minutes, also if it failed.
exchange_ended = Signal()
# Exit codes at the deadline: of `timeout` and of our reader after a TERM, and after a KILL.
AT_DEADLINE = (124, scripts.KILLED)
NOT_ASKED = "Its machine was not probed: too many requests wait for it, or are executed there."
JOBS_SECONDS = 2  # of a probe, for counting jobs
FAILED_NAMES = 10  # of each run, in a probe
# Seconds after the deadline that the machine gets to end a command itself, before we stop waiting.
CLIENT_GRACE = scripts.KILL_AFTER + 5


@dataclass(frozen=True, slots=True)
class CommandResult:
    """The result of a command.

    `stdout` and `stderr`: the last `RUNNERS_OUTPUT_LIMIT` bytes of each, without the output of login start-up files.
    """

    exit_code: int
    stdout: bytes
    stderr: bytes
    duration: float  # seconds
    truncated: bool = False
    peer: str = ""  # the address of the machine; empty if it is not known

    @property
    def text(self) -> str:
        """Standard output without colours. Autosubmit prints its messages there."""
        return plain_text(self.stdout)

    @property
    def all_text(self) -> str:
        """Both streams, because Autosubmit prints its version (3.14) and usage errors on standard error."""
        return plain_text(self.stdout + b"\n" + self.stderr)

    @property
    def last_words(self) -> str:
        """The last lines of both streams, for error messages."""
        return last_lines(self.stdout + b"\n" + self.stderr)


class Runner(RunnerRules, ABC):
    """The way to execute commands on a machine, and the rules for its parameters (`RunnerRules`).

    Subclasses implement `exchange`; everything else is common code.
    """

    def __init__(self, config: RunnerConfig) -> None:
        self.config = config

    @property
    def where(self) -> str:
        """The account and the machine, in messages."""
        return self.config.target.describe()

    @property
    def target(self) -> tuple[str, ...]:
        """A key that is equal for runners that reach the same account of the same machine."""
        return (self.name, self.where)

    @property
    def login(self) -> tuple[str, ...]:
        """A key that is equal for runners that reach the same target with the same credentials.

        One round trip serves all runs with the same key, and they share the memory of a failure.
        """
        return self.target

    @abstractmethod
    def exchange(self, exchange: Exchange) -> None:
        """Start the exchange's command line and `pump_streams` with it.

        Raises RunnerUnreachable if the machine was not reached, so that the script was certainly not handed over.
        """

    def execute(
        self, script: str, *, timeout: float, stdin: bytes = b"", login: bool = False, until: str = ""
    ) -> CommandResult:
        """Evaluate a bash script on the machine and wait for its end.

        `timeout`: seconds in total; at this deadline the processes on the machine are ended, too. With `login` the
        script runs in a login shell, which has the functions of site profiles (`module`, `conda`). `until`: the script
        enforces the deadline itself and has succeeded as soon as it prints this line; processes that it leaves behind
        live on. An exit code other than 0 is returned, not raised.
        Raises RunnerUnreachable (certainly not started), CommandTimedOut (ended on the machine at the deadline),
        OutcomeUnknown.
        """
        if self.config.run_directory:
            script = scripts.in_run_directory(script, self.config.run_directory)
        payload = scripts.encoded(script)
        marker = f"autosubmit-runners-{secrets.token_hex(8)}"
        limit = None if until else timeout
        argv = scripts.bootstrap(len(payload), marker=marker, login=login, timeout=limit)
        start = time.monotonic()
        outcome = "unreachable"
        exchange = Exchange(
            argv, payload, stdin, marker, settings.RUNNERS_OUTPUT_LIMIT, start + timeout + CLIENT_GRACE, until
        )
        try:
            self._admitted_exchange(exchange, timeout, login=login)
            outcome = "unknown" if exchange.exit_code is None else "answered"
        finally:
            duration = time.monotonic() - start
            metrics.MACHINE_SECONDS.labels(self.name, outcome).observe(duration)
            exchange_ended.send(type(self))
        stdout, stderr, code = exchange.stdout, exchange.stderr, exchange.exit_code
        if not until and (exchange.status if code is None else code) in AT_DEADLINE and duration >= timeout:
            not_begun = "" if stdout.started else " " + self._not_evaluated(exchange, timeout)
            raise CommandTimedOut(
                f"The command on {self.where} timed out after {timeout:g} s and was ended.{not_begun}",
                output=last_lines(stdout.data + b"\n" + stderr.data),
            )
        if not exchange.is_handed_over or (
            code == scripts.CUT_SHORT and stdout.data.strip() == scripts.UNREAD.encode()
        ):
            raise RunnerUnreachable(self._not_evaluated(exchange, timeout))
        if code is None:
            if exchange.is_abandoned:
                why = f"{self.where} has stopped answering during the command. The command may still run there"
            elif exchange.is_late:
                why = f"{self.where} did not answer before the timeout. The command has a timeout there, too"
            else:
                why = (
                    f"The connection to {self.where}, or the reporting shell, was lost during the command. The "
                    f"command may have continued there"
                )
            raise OutcomeUnknown(
                f"{why}. Check the experiment before you retry the command.",
                output=last_lines(stdout.data + b"\n" + stderr.data),
                **({"host": self.config.target.host} if self.config.target.host else {}),
            )
        if code in (scripts.NO_RUN_DIRECTORY, scripts.CANNOT_WRITE):
            self._check_run_directory(code, stderr.data)
        truncated = stdout.truncated or stderr.truncated
        return CommandResult(code, stdout.data, stderr.data, duration, truncated, exchange.peer)

    def _check_run_directory(self, code: int, stderr: bytes) -> None:
        """Raise RunDirectoryUnusable if one of our scripts says so. A command may end with the same exit code."""
        words, found, _ = stderr.rpartition(scripts.UNUSABLE.encode())
        if not found:
            return
        said = last_lines(words)
        if self.config.run_directory:
            remedy = f"Ask an admin to check RUN_DIRECTORY of the profile, {self.config.run_directory}."
        else:
            remedy = (
                f"Check that the home directory of the account exists, is mounted and writable, and has free space and "
                f"quota for ~/{scripts.BASE}. Or an admin sets RUN_DIRECTORY of the profile to another place."
            )
        raise RunDirectoryUnusable(
            f"The directory of runs on {self.where} cannot be used: {said or 'no reason given'} Nothing was started. "
            f"{remedy}",
            exit_code=code,
            output=said,
        )

    def _admitted_exchange(self, exchange: Exchange, timeout: float, *, login: bool) -> None:
        """Run the exchange if the breaker and the bulkheads admit it. Raise an error if the machine did not answer."""
        with (
            BREAKER.attempt(self.login),
            OBSERVED.attempt(self.config.target),
            BULKHEADS.waiting(self.target, self.where) as wait,
        ):
            exchange.on_answer = partial(self._answered, wait)
            exchange.connect_deadline = ConnectDeadline(exchange.deadline, wait.patience)
            exchange.should_abandon = partial(self._should_abandon, wait) if wait.holds_thread else None
            try:
                self.exchange(exchange)
                if exchange.was_slow:
                    exchange.patience = None
                    exchange.restart()
                    exchange.connect_deadline.restart()
                    self.exchange(exchange)
            except RunnerUnreachable as error:
                if wait.patience is not None and not exchange.connect_deadline.left:
                    raise BULKHEADS.busy(self.target, self.where) from error
                raise
            if exchange.is_late and exchange.status is None and not exchange.stdout.started:
                if wait.patience is not None:
                    raise BULKHEADS.busy(self.target, self.where)
                silence = RunnerUnreachable(self._not_evaluated(exchange, timeout))
                silence.is_silence = True
                silence.is_remembered = not login  # start-up files may block login shells only
                raise silence

    def admit(self) -> None:
        """Reserve a command's place at the machine, before the command is recorded or sent.

        Raises the remembered error if the machine has just failed to answer (RunnerUnreachable and its subclasses),
        MachineBusy and TooManyCommands.
        """
        if known := BREAKER.known(self.login):
            raise known
        BULKHEADS.admit(self.target, self.where)

    def _should_abandon(self, wait: Wait) -> bool:
        """Return True if the machine hangs and this thread exceeds the number of threads that may wait for it."""
        known = BREAKER.known(self.login)
        return known is not None and known.is_silence and BULKHEADS.is_beyond_share(self.target, wait)

    def _answered(self, wait: Wait) -> None:
        BREAKER.answered(self.login)
        OBSERVED.answered(self.config.target)
        BULKHEADS.heard(self.target, wait)

    def _not_evaluated(self, exchange: Exchange, timeout: float) -> str:
        return startup.explain(self.where, exchange, timeout, is_remote=bool(self.config.target.host))

    def launch(
        self,
        key: str,
        command: str,
        *,
        timeout: float,
        prelude: Sequence[str] = (),
        unless_runs: foreign_process.Search | None = None,
        label: str = "",
    ) -> Identity:
        """Start a command detached, in the run directory `key`, and return its identity.

        `prelude` lines run first, in the same login shell; the call waits for them but not for the command.
        `label`: as in `scripts.launch`.
        Raises CommandFailed, with the end of the output, if the launch script reports that the prelude failed or that
        the run directory cannot be created. Raises RunnerUnreachable if it reports that start-up files have replaced
        the login shell. Raises ForeignRun if another process runs the experiment of `unless_runs`. In these cases the
        command certainly did not start. After OutcomeUnknown (the connection or the
        reporting shell was lost, or the answer is not valid) or CommandTimedOut (the prelude still runs) the command
        may still start; probe `key` to find out. Otherwise raises the errors of `execute`.
        """
        search = unless_runs or foreign_process.Search("")
        script = scripts.launch(
            key, command, prelude=prelude, timeout=timeout, unless_runs=search.expid, known=search.known, label=label
        )
        result = self.execute(script, timeout=timeout, until=scripts.READY)
        answer = _lines(result)
        if answer.strip() == scripts.LATE:
            raise CommandTimedOut(
                f"The environment on {self.where} was not ready within {timeout:g} s. The command may still start: "
                f"check its status before you retry it.",
                output=result.last_words,
            )
        try:
            if result.exit_code == 0:
                identity = parse_launch(answer, scripts.READY)
                self.learn_node(identity.host, result.peer)
                return identity
            code, words = parse_failed_launch(answer, scripts.FAILED)
            if code == scripts.FOREIGN_RUN:
                raise ForeignRun(search.expid, self.where, foreign_process.parse_lines(words))
        except Unreadable as error:  # the program that answered may also have started the command
            raise OutcomeUnknown(
                f"The answer of {self.where} to the launch is not valid ({error}). The reporting shell was killed, or "
                f"a forced command or a wrapper replaces the shell of the account. It is not known whether the "
                f"command was started: check its status before you retry it.",
                output=result.last_words,
            ) from error
        last_words = last_lines(words.encode() + b"\n" + result.stderr)
        if code == scripts.NO_LOGIN_SHELL:
            raise RunnerUnreachable(
                f"The login shell on {self.where} ended before our command: {startup.REPLACED}. {startup.REMEDY} "
                f"{last_words}".strip()
            )
        raise CommandFailed(
            f"The command was not started on {self.where}: {last_words or 'no output'}",
            exit_code=code,
            output=last_words,
        )

    def probe(self, targets: Iterable[ProbeTarget], *, timeout: float) -> dict[str, Probe]:
        """Probe any number of runs in one round trip and return one answer per key.

        Another node of a login alias may answer than the one on which a run was started. Then the node of the run is
        asked, within the same `timeout`. Errors of the machine are not raised: they become answers.
        """
        targets = list(targets)
        deadline = time.monotonic() + timeout
        answers = self._probe(targets, timeout=timeout)
        on_other_nodes: dict[str, list[ProbeTarget]] = {}
        for target in targets:
            node = target.identity.host if target.identity else ""
            if answers[target.key].node not in ("", node):
                on_other_nodes.setdefault(node, []).append(target)
        for node, lost in on_other_nodes.items():
            answers |= self._probe_on_node(node, lost, answers, deadline)
        return answers

    def _probe(self, targets: Sequence[ProbeTarget], *, timeout: float) -> dict[str, Probe]:
        script = scripts.probe((t.key, t.claim, t.identity.words if t.identity else ()) for t in targets)
        if wanted := [(target.key, target.expid, target.stamp) for target in targets if target.expid]:
            script += scripts.job_counts(wanted, names=FAILED_NAMES, seconds=JOBS_SECONDS)
        try:
            result = self.execute(script, timeout=timeout)
        except (MachineBusy, TooManyCommands) as error:  # says nothing about the machine
            retry_after = error.facts["retry_after"]
            return {target.key: cannot_tell(NOT_ASKED, retry_after=retry_after, was_asked=False) for target in targets}
        except (RunnerUnreachable, OutcomeUnknown, CommandTimedOut, RunDirectoryUnusable) as error:
            retry_after = error.facts.get("retry_after", 0)
            return {target.key: cannot_tell(error.detail, retry_after=retry_after) for target in targets}
        answers = self._answers((target.key for target in targets), result)
        nodes = (answer.identity.host if answer.identity else answer.node for answer in answers.values())
        if node := next(filter(None, nodes), ""):
            self.learn_node(node, result.peer)
        return answers

    def _probe_on_node(
        self, node: str, targets: Sequence[ProbeTarget], answers: dict[str, Probe], deadline: float
    ) -> dict[str, Probe]:
        """Return the answers of the node with this name, or "cannot tell" with the names of both nodes."""
        why = "this service finds no way to that node"
        for runner in self.runners_at(node, deadline):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            found = runner._probe(targets, timeout=left)
            if any(answer.answer != Probe.CANNOT_TELL for answer in found.values()):
                self.learn_way(node, runner)
                return found
            if silent := next((answer.detail for answer in found.values() if not answer.node), ""):
                why = f"that node cannot be asked: {silent}"
        on = f" on {node}" if node else ""
        return {
            target.key: replace(answers[target.key], detail=f"{answers[target.key].detail}{on}; {why}"[:TEXT_LIMIT])
            for target in targets
        }

    def signal(self, key: str, identity: Identity, name: str, *, timeout: float, spare_jobs_of: str = "") -> Probe:
        """Send a signal (`TERM`, `KILL`) to the run's own processes if the identity matches, then probe the run.

        If another node of a login alias answers, the node of the run gets the signal. Raises the errors of `execute`.
        """
        script = scripts.signal(key, identity.words, name, spare_jobs_of=spare_jobs_of)
        deadline = time.monotonic() + timeout
        answer = self._answers([key], self.execute(script, timeout=timeout))[key]
        if answer.node in ("", identity.host):
            return answer
        for runner in self.runners_at(identity.host, deadline):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            with suppress(RunnerUnreachable):  # the next way may lead there
                found = self._answers([key], runner.execute(script, timeout=left))[key]
                if found.answer != Probe.CANNOT_TELL:
                    return found
        return answer

    # --- several nodes behind one address: see ssh/nodes.py ---

    def at_node(self, node: str) -> Runner:
        """Return the runner for the node of this name, if this process has already found it, else this runner."""
        return self

    def runners_at(self, node: str, deadline: float) -> Iterator[Runner]:
        """Yield runners that may reach the node of this name. The default, for a machine with one node, is none."""
        return iter(())

    def learn_node(self, node: str, address: str) -> None:
        """Store that the node of this name answered at `address` (empty: not known)."""

    def learn_way(self, node: str, way: Runner) -> None:
        """Store that `way`, one of `runners_at`, has reached the node."""

    def first_match(self, expid: str, *, timeout: float) -> int | None:
        """Return the pid that `autosubmit stop` would signal for `expid`; None: no process matches.

        The process may be a run in another home. Raises CommandFailed if the machine's answer is not valid, and the
        errors of `execute`.
        """
        result = self.execute(scripts.first_match(expid), timeout=timeout)
        try:
            return parse_first_match(_lines(result))
        except Unreadable as error:
            raise self._not_valid(f"to the search for `autosubmit run {expid}`", error, result) from error

    def read_log(self, key: str, *, offset: int, limit: int, timeout: float) -> LogChunk | None:
        """Return at most `limit` bytes of the run's log from byte `offset` (negative: from the end); None: no log.

        Raises CommandFailed if the machine cannot read the log, and the errors of `execute`.
        """
        result = self.execute(scripts.read_log(key, offset=offset, limit=limit), timeout=timeout)
        if result.exit_code == scripts.NO_LOG:
            return None
        try:
            return parse_log(result.stdout, offset=offset, limit=limit)
        except Unreadable as error:
            raise self._not_valid("to the request for the log", error, result) from error

    def search_log(self, key: str, search: LogSearch, *, timeout: float) -> LogMatches | None:
        """Search the log of a run on its machine, for at most half of `timeout`; None: no log.

        Raises CommandFailed if the machine cannot search the log, and the errors of `execute`.
        """
        script = search.script(key, seconds=max(1, int(timeout / 2)))
        result = self.execute(script, timeout=timeout)
        if result.exit_code == scripts.NO_LOG:
            return None
        try:
            return parse_search(result.stdout, search)
        except Unreadable as error:
            raise self._not_valid("to the search of the log", error, result) from error

    def count_lines(self, key: str, end: int, *, timeout: float) -> int | None:
        """Return the number of line ends before byte `end` of a run's log; None: no log, or they were not counted.

        Raises CommandFailed if the machine's answer is not valid, and the errors of `execute`.
        """
        script = scripts.count_lines(key, end, seconds=max(1, int(timeout / 2)))
        result = self.execute(script, timeout=timeout)
        if result.exit_code == scripts.NO_LOG:
            return None
        try:
            return parse_lines(result.stdout)
        except Unreadable as error:
            raise self._not_valid("to the count of lines", error, result) from error

    def read_end(
        self, key: str, pattern: str, *, repeated: str, tail: int, jobs: scripts.Shell, timeout: float
    ) -> EndOfRun:
        """Return all that explains the end of a run, with one round trip.

        The machine searches the whole log for `pattern` (a `grep -E` pattern), but not longer than half of `timeout`.
        Most of RUNNERS_OUTPUT_LIMIT is for the last matching lines. Of consecutive lines that contain `repeated`, only
        the last one is returned. `tail`: bytes at the end of the log. `jobs`: a script part whose output is returned.
        Raises CommandFailed if the machine cannot read the log, and the errors of `execute`.
        """
        mark = f"#{secrets.token_hex(16)}"
        part = settings.RUNNERS_OUTPUT_LIMIT // 8
        tail, lines = min(tail, part), settings.RUNNERS_OUTPUT_LIMIT - 3 * part
        seconds = max(1, round(timeout / 2))
        script = scripts.read_end(
            key, pattern, repeated=repeated, seconds=seconds, lines=lines, tail=tail, jobs=jobs, mark=mark
        )
        result = self.execute(script, timeout=timeout)
        has_log = result.exit_code != scripts.NO_LOG
        try:
            return parse_end(result.stdout, mark=mark, lines=lines, tail=tail, has_log=has_log)
        except Unreadable as error:
            raise self._not_valid("to the request for the end of the log", error, result) from error

    def _answers(self, keys: Iterable[str], result: CommandResult) -> dict[str, Probe]:
        return parse_probes(keys, _lines(result), f"{self.where} did not answer: {result.last_words}")

    def _not_valid(self, question: str, error: Unreadable, result: CommandResult) -> CommandFailed:
        return CommandFailed(
            f"The answer of {self.where} {question} is not valid: {error}."
            f" Its last output: {result.last_words or 'no output'}",
            exit_code=result.exit_code,
            output=result.last_words,
        )


def _lines(result: CommandResult) -> str:
    """Decode the output of our own scripts. Control characters are kept, so that none of them becomes a line end."""
    return result.stdout.decode("utf-8", "replace")
