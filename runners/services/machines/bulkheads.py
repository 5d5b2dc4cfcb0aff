"""Bulkheads: how many threads of a server process may wait for machines, so that one machine does not block the others.

This is the only admission control, for LOCAL and SSH alike. It is applied where a machine is contacted
(`Runner.execute`). Each server process counts for itself. The bounds are:

- A machine that gives no sign of life holds at most a share of the threads (RUNNERS_MACHINE_SHARE).
- Commands hold at most all threads minus a reserve for statuses and pages (RUNNERS_RESERVED_SHARE).
- Commands of one person, and commands in one account of a machine, have a bound of their own.

A request beyond a bound is rejected at once and nothing is sent (MachineBusy, TooManyCommands). While it is unknown
whether a machine answers, requests beyond the share may wait some seconds for its first sign of life. Threads that are
marked as background, and processes that are not servers (`watch_runs`), have no bounds here.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from django.conf import settings

from runners.exceptions import MachineBusy, TooManyCommands
from runners.services.machines.breaker import Target

SIGN_OF_LIFE = 3.0  # seconds of silence after which a machine counts as not answering
READ_PATIENCE = 1.0  # the same for a status or log that waits beyond the share
LAST_PATIENCE = 0.25  # the same for one that uses a thread of the reserve
ROOM_PATIENCE = 0.5  # seconds that a command waits for the end of another one, as long as commands end that fast
RETRY_AFTER_SILENCE = 5  # seconds after which a client may retry a rejected request
RETRY_AFTER_COMMANDS = 2
DEFAULT_THREADS = 8  # threads per process in the documented deployment
THREAD_OPTIONS = ("--threads", "--blocking-threads")  # of gunicorn and waitress, and of Granian


@dataclass(eq=False, slots=True)
class Wait:
    """One wait for a machine. `patience`: seconds within which a sign of life has to come; None: no bound here."""

    start: float
    holds_thread: bool
    patience: float | None = None
    is_answered: bool = False


@dataclass(eq=False, slots=True)
class Command:
    """A command that a request thread executes. `person` and `profile_name` may become known after its start."""

    name: str
    person: str = ""
    profile_name: str = ""
    targets: list[Target] = field(default_factory=list)  # it holds a place at each of them until its end


@dataclass(eq=False, slots=True)
class Machine:
    """One account of a machine, as this process sees it."""

    waits: list[Wait] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    heard: float = 0.0  # when it last gave a sign of life, by `time.monotonic`

    def is_silent(self, now: float) -> bool:
        """Return True if a thread has waited longer than SIGN_OF_LIFE without hearing from the machine."""
        return any(not wait.is_answered and now - max(wait.start, self.heard) > SIGN_OF_LIFE for wait in self.waits)

    @property
    def held_threads(self) -> int:
        """The number of threads that wait for the first sign of life."""
        return sum(wait.holds_thread and not wait.is_answered for wait in self.waits)


class Bulkheads:
    """The waits and commands of this process, and their bounds. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Condition(threading.Lock())  # notified when a command has ended
        self._changed = 0.0  # when a command last began or ended, by `time.monotonic`
        self._local = threading.local()
        self._machines: dict[Target, Machine] = {}
        self._commands: list[Command] = []
        self._lingering = 0
        self.threads = 0  # of this process; 0: it is not a server

    # --- the bounds ---

    def serve(self) -> None:
        """Declare that this process is a server from now on."""
        self.threads = settings.RUNNERS_SERVER_THREADS or threads_of(sys.argv) or DEFAULT_THREADS

    @property
    def share(self) -> int:
        """The number of threads that may wait for one machine that does not answer."""
        return max(1, int(self.threads * settings.RUNNERS_MACHINE_SHARE))

    @property
    def most_commands(self) -> int:
        return max(1, self.threads - max(1, int(self.threads * settings.RUNNERS_RESERVED_SHARE)))

    @property
    def most_per_person(self) -> int:
        return settings.RUNNERS_COMMANDS_PER_PERSON or max(1, self.threads // 2)

    @property
    def most_per_account(self) -> int:
        return settings.RUNNERS_COMMANDS_PER_ACCOUNT or self.most_commands

    # --- who asks ---

    @contextmanager
    def command(self, name: str, *, person: str = "", profile_name: str = "") -> Iterator[Command]:
        """Mark the thread as executing a command, within this block.

        The command takes a place at a machine when it first contacts the machine, and keeps the place until its end.
        """
        command = Command(name, person, profile_name)
        before = getattr(self._local, "command", None)
        self._local.command = command
        try:
            yield command
        finally:
            self._local.command = before
            self._release(command)

    def identify(self, *, person: str, profile_name: str) -> None:
        """Name the person and the profile of the command that the thread executes, if it executes one."""
        if command := getattr(self._local, "command", None):
            command.person, command.profile_name = person, profile_name

    @contextmanager
    def background(self) -> Iterator[None]:
        """Mark the thread as one that does not answer requests, within this block."""
        self._local.is_background = True
        try:
            yield
        finally:
            self._local.is_background = False

    @property
    def _holds_thread(self) -> bool:
        """Whether this thread answers requests and is not counted yet."""
        is_counted = getattr(self._local, "reading", None) is not None
        return bool(self.threads) and not is_counted and not getattr(self._local, "is_background", False)

    # --- questions to machines ---

    def admit(self, target: Target, where: str) -> None:
        """Take the place of the current command at a machine, before it begins. Raises the errors of `waiting`."""
        if self._holds_thread:
            with self._lock:
                self._admit(target, where, self._machines.get(target) or Machine())

    @contextmanager
    def waiting(self, target: Target, where: str) -> Iterator[Wait]:
        """Contact a machine within this block. The block calls `heard` when the machine gives a sign of life.

        Raises MachineBusy and TooManyCommands: then nothing was sent.
        """
        with self._lock:
            wait = Wait(time.monotonic(), self._holds_thread)
            machine = self._machines.get(target) or Machine()
            if reading := getattr(self._local, "reading", None):
                wait.patience = reading.patience
            if wait.holds_thread:
                self._admit(target, where, machine)
                machine = self._machines.get(target) or machine
                wait.patience = self._patience(machine, is_command=getattr(self._local, "command", None) is not None)
            self._machines[target] = machine
            machine.waits.append(wait)
        try:
            yield wait
        finally:
            with self._lock:
                machine.waits.remove(wait)
                self._forget_unused(target, machine)

    @contextmanager
    def reading(self, target: Target, seconds: float) -> Iterator[float | None]:
        """Wait within this block for a machine's answer to this thread, or to another thread that works for this one.

        Yield how long the thread may wait, at most `seconds`. Yield None if the machine does not answer and the
        maximum number of threads (`share`) waits for it already.
        """
        with self._lock:
            now = time.monotonic()
            wait = Wait(now, self._holds_thread)
            is_refused = False
            machine = self._machines.setdefault(target, Machine())
            if wait.holds_thread:
                is_refused = machine.held_threads >= self.share and machine.is_silent(now)
                wait.patience = self._patience(machine, is_command=False)
                seconds = seconds if wait.patience is None else min(seconds, wait.patience)
            machine.waits.append(wait)
        before = getattr(self._local, "reading", None)
        self._local.reading = wait
        try:
            yield None if is_refused else max(0.0, seconds)
        finally:
            self._local.reading = before
            with self._lock:
                machine.waits.remove(wait)
                self._forget_unused(target, machine)

    def heard(self, target: Target, wait: Wait) -> None:
        """Record that the machine gave a sign of life."""
        with self._lock:
            wait.is_answered = True
            if machine := self._machines.get(target):
                machine.heard = time.monotonic()

    def is_beyond_share(self, target: Target, wait: Wait) -> bool:
        """Return True if `share` other threads have been waiting for the machine since before this wait began."""
        with self._lock:
            machine = self._machines.get(target)
            waits = [each for each in machine.waits if each.holds_thread] if machine else []
            return wait in waits[self.share :]

    def is_silent(self, target: Target) -> bool:
        """Return True if a thread now waits longer than SIGN_OF_LIFE without hearing from the machine."""
        with self._lock:
            machine = self._machines.get(target)
            return machine is not None and machine.is_silent(time.monotonic())

    def busy(self, target: Target, where: str) -> MachineBusy:
        """Return the error for a request beyond the share that has waited in vain. Nothing was sent."""
        with self._lock:
            return self._silent(where, self._machines.get(target) or Machine())

    @contextmanager
    def lingering(self) -> Iterator[bool]:
        """Yield True if the thread may wait for a command that goes on without it. At most `share` threads may."""
        with self._lock:
            may = not self._holds_thread or self._lingering < self.share
            self._lingering += may
        try:
            yield may
        finally:
            with self._lock:
                self._lingering -= may

    # --- with the lock ---

    def _most_commands_with(self, target: Target) -> int:
        """Return how many commands may be under way if the next one is for `target`.

        A machine on which no command is under way may take one thread of the reserve, unless it is the last one. So the
        users of one machine do not block the users of another.
        """
        machine = self._machines.get(target)
        is_idle = machine is None or not machine.commands
        return max(self.most_commands, min(self.most_commands + is_idle, self.threads - 1))

    def _commands_of(self, person: str) -> int:
        return sum(bool(person) and each.person == person for each in self._commands)

    def _has_no_room(self, is_full: Callable[[], bool]) -> bool:
        """Return True if there is no room for one more command. While commands end quickly, wait for one to end.

        So a burst of short commands is not rejected, and slow commands do not fill the reserve with waiting requests.
        """
        end = time.monotonic() + ROOM_PATIENCE
        while is_full():
            now = time.monotonic()
            left = min(end, self._changed + ROOM_PATIENCE) - now
            if left <= 0:
                return True
            self._lock.wait(left)
        return False

    def _patience(self, machine: Machine, *, is_command: bool) -> float | None:
        """Return the seconds that one more thread may wait for a machine's first sign of life; None: no bound here."""
        if is_command:
            return SIGN_OF_LIFE if machine.held_threads >= self.share else None
        if sum(each.held_threads for each in self._machines.values()) >= self.most_commands:
            return LAST_PATIENCE
        return READ_PATIENCE if machine.held_threads >= self.share else None

    def _admit(self, target: Target, where: str, machine: Machine) -> None:
        """Take the place of the current command. Raises MachineBusy or TooManyCommands if there is no room."""
        command: Command | None = getattr(self._local, "command", None)
        if command and target in command.targets:
            return
        if machine.held_threads >= self.share and machine.is_silent(time.monotonic()):
            raise self._silent(where, machine)
        if command is None:
            return
        if command not in self._commands:
            if self._has_no_room(lambda: self._commands_of(command.person) >= self.most_per_person):
                mine = self._commands_of(command.person)
                raise TooManyCommands(
                    f"Too many concurrent commands of one person ({mine}). Nothing was started. Try again after one "
                    f"of your commands has ended.",
                    retry_after=RETRY_AFTER_COMMANDS,
                )
            if self._has_no_room(lambda: len(self._commands) >= self._most_commands_with(target)):
                raise MachineBusy(
                    f"This service executes {len(self._commands)} commands concurrently, which is its limit, "
                    f"{len(machine.commands)} of them on {where}. Nothing was started. Try again in "
                    f"{RETRY_AFTER_COMMANDS} s.",
                    **self._occupants(where, machine),
                    retry_after=RETRY_AFTER_COMMANDS,
                )
        if len(machine.commands) >= self.most_per_account:
            raise MachineBusy(
                f"{self._occupants_text(where, machine)}, which is the limit of one account. Nothing was started. "
                f"Try again in {RETRY_AFTER_COMMANDS} s.",
                **self._occupants(where, machine),
                retry_after=RETRY_AFTER_COMMANDS,
            )
        machine = self._machines.setdefault(target, machine)  # it may have been added or removed during the wait
        if command not in self._commands:
            self._commands.append(command)
            self._changed = time.monotonic()
        command.targets.append(target)
        machine.commands.append(command)

    def _silent(self, where: str, machine: Machine) -> MachineBusy:
        return MachineBusy(
            f"{self._occupants_text(where, machine)}, and it does not answer. Nothing was started. Try again in "
            f"{RETRY_AFTER_SILENCE} s.",
            **self._occupants(where, machine),
            retry_after=RETRY_AFTER_SILENCE,
        )

    def _occupants_text(self, where: str, machine: Machine) -> str:
        """Say who occupies a machine. Other people and their profiles are only counted."""
        facts = self._occupants(where, machine)
        count = facts["requests"]
        verb = "request waits for" if count == 1 else "requests wait for"
        parts = [f"{count} {verb} {where}"]
        if facts["of_your_profile"]:
            parts.append(f"{facts['of_your_profile']} with the profile {facts['profile_name']}")
        if facts["of_yours"]:
            parts.append(f"{facts['of_yours']} of yours")
        return parts[0] + (f" ({', '.join(parts[1:])})" if parts[1:] else "")

    def _occupants(self, where: str, machine: Machine) -> dict[str, str | int]:
        """Return the number of `requests` to the machine, and how many have the caller's profile and name."""
        mine: Command | None = getattr(self._local, "command", None)
        others = [each for each in machine.commands if each is not mine]
        profile = mine.profile_name if mine else ""
        return {
            "machine": where,
            "profile_name": profile,
            "requests": max(len(others), machine.held_threads),
            "of_your_profile": sum(bool(profile) and each.profile_name == profile for each in others),
            "of_yours": sum(bool(mine and mine.person) and each.person == mine.person for each in others if mine),
        }

    def _release(self, command: Command) -> None:
        with self._lock:
            if command in self._commands:
                self._commands.remove(command)
                self._changed = time.monotonic()
                self._lock.notify_all()
            for target in command.targets:
                if machine := self._machines.get(target):
                    machine.commands.remove(command)
                    self._forget_unused(target, machine)

    def _forget_unused(self, target: Target, machine: Machine) -> None:
        """Delete a machine without waits and commands, because requests may name any number of machines."""
        if not machine.waits and not machine.commands and self._machines.get(target) is machine:
            del self._machines[target]


def threads_of(argv: list[str]) -> int:
    """Return the number of threads that the server's command line gives each process; 0 if it gives none.

    The last option counts, as for the server: `serve --threads 16` appends to the documented options.
    """
    found = 0
    for option, following in zip(argv, [*argv[1:], ""], strict=True):
        name, _, value = option.partition("=")
        if name in THREAD_OPTIONS:
            text = value or following
            found = int(text) if text.isdecimal() and len(text) < 5 else 0
    return found


BULKHEADS = Bulkheads()
