"""The runner for the machine on which this service runs."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from django.conf import settings

from profiles.parameter import Values
from profiles.target import Target
from runners.exceptions import RunnerUnreachable
from runners.services.machines.exchange import Exchange, pump_streams
from runners.services.machines.own_account import own_account
from runners.services.machines.runner import Runner


@dataclass(frozen=True, slots=True)
class LocalTarget(Target):
    """The machine on which this service runs."""

    user: str = field(default_factory=lambda: own_account().pw_name)
    host: str = ""

    @property
    def machine(self) -> str:
        """The same on all nodes that share their home directories."""
        return "localhost"

    def describe(self) -> str:
        return "this machine"


class LocalRunner(Runner):
    """The machine on which this service runs, with the service's own account."""

    name = "LOCAL"
    label = "LOCAL: the machine of this service"
    is_local = True
    target_class = LocalTarget

    @classmethod
    def account(cls, values: Values) -> tuple[str, str]:
        target = LocalTarget()
        return target.user, target.machine

    def exchange(self, exchange: Exchange) -> None:
        with ExitStack() as stack:
            try:
                selector = stack.enter_context(selectors.DefaultSelector())
                process = subprocess.Popen(  # noqa: S603 -- the argv of scripts.bootstrap
                    exchange.argv,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    bufsize=0,
                    cwd="/",
                    env=local_environment(),
                    umask=settings.RUNNERS_LOCAL_UMASK,
                    start_new_session=True,
                )
                link = ProcessLink(process, selector)
                stack.callback(link.close)
                ended = os.pidfd_open(process.pid)
                stack.callback(os.close, ended)
            except OSError as error:
                raise RunnerUnreachable(
                    f"{self.where.capitalize()} cannot start a process now: {error.strerror}. Nothing was started."
                ) from error
            link.watch(ended)
            pump_streams(exchange, link)


class ProcessLink:
    """A command line in a process of this machine. See `exchange.Link`.

    The end is detected with the pidfd of the process, never by end-of-file: processes that the command leaves behind
    may keep its pipes open and continue to write into them.
    """

    def __init__(self, process: subprocess.Popen[bytes], selector: selectors.BaseSelector) -> None:
        assert process.stdin and process.stdout and process.stderr
        self.process = process
        self.stdin, self.stdout, self.stderr = process.stdin, process.stdout, process.stderr
        self._selector = selector
        self._ended = -1
        self._is_waiting_to_send = False
        self._open_streams = {self.stdout, self.stderr}

    def watch(self, ended: int) -> None:
        """Start to watch the process and its pipes. `ended`: the process's pidfd."""
        for pipe in (self.stdin, self.stdout, self.stderr):
            os.set_blocking(pipe.fileno(), False)
        self._ended = ended
        for source in (self.stdout, self.stderr, ended):
            self._selector.register(source, selectors.EVENT_READ)

    def send(self, data: memoryview) -> int:
        sent = 0
        try:
            while sent < len(data):
                sent += os.write(self.stdin.fileno(), data[sent:])
        except BlockingIOError:
            return sent
        except BrokenPipeError:  # no process reads any more
            return len(data)
        return sent

    def end_input(self) -> None:
        self._wait_to_send(False)
        self.stdin.close()

    def receive(self, exchange: Exchange) -> bool:
        if exchange.status is None and not exchange.signal and self.process.poll() is not None:
            self._selector.unregister(self._ended)
            code = self.process.returncode
            if code >= 0:
                exchange.status = code
            else:
                exchange.signal = signal.Signals(-code).name.removeprefix("SIG")
        got = False
        for stream, output in ((self.stdout, exchange.stdout), (self.stderr, exchange.stderr)):
            while stream in self._open_streams:
                try:
                    chunk = os.read(stream.fileno(), 65536)
                except BlockingIOError:
                    break
                if chunk:
                    output.feed(chunk)
                    got = True
                    if len(chunk) < 65536:
                        break
                else:
                    self._selector.unregister(stream)
                    self._open_streams.remove(stream)
        return got

    @property
    def is_over(self) -> bool:
        return not self._open_streams and self.process.returncode is not None

    def wait(self, seconds: float, *, is_full: bool) -> None:
        self._wait_to_send(is_full)
        self._selector.select(seconds)

    def _wait_to_send(self, is_waiting: bool) -> None:
        if is_waiting and not self._is_waiting_to_send:
            self._selector.register(self.stdin, selectors.EVENT_WRITE)
        elif self._is_waiting_to_send and not is_waiting:
            self._selector.unregister(self.stdin)
        self._is_waiting_to_send = is_waiting

    def kill(self) -> None:
        if self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End the process if it has not ended, and close the pipes."""
        self.kill()
        self.process.wait()
        for pipe in (self.stdin, self.stdout, self.stderr):
            pipe.close()


def local_environment() -> dict[str, str]:
    """Return a clean environment for LOCAL commands.

    It has the account's own variables, but none of this service's, because these contain secrets.
    """
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
