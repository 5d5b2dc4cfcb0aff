"""Test a configuration step by step: what works, how long each step takes, and how to fix the first step that fails.

The test uses the same code as commands (ssh/connect.py, Runner, ModuleLoader, scripts), but its own connections: a
pooled connection would prove nothing about keys, and closing it would disturb others.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import paramiko
from django.conf import settings

from profiles.config import RunnerConfig
from profiles.models import RunnerProfile
from runners import printable
from runners.commands import installation, output, remedies
from runners.commands.installation import ask_version
from runners.exceptions import (
    AuthenticationFailed,
    HostKeyChanged,
    HostKeyUnknown,
    RunnerServiceError,
    RunnerUnreachable,
)
from runners.models import new_run_key
from runners.services import autosubmit_databases
from runners.services.machines import answers, scripts
from runners.services.machines.breaker import BREAKER, Target
from runners.services.machines.bulkheads import BULKHEADS
from runners.services.machines.exchange import ConnectDeadline, Exchange
from runners.services.machines.observed import OBSERVED
from runners.services.machines.output import last_lines
from runners.services.machines.probe import Identity, Probe, ProbeTarget
from runners.services.machines.registry import get_module_loader, get_runner
from runners.services.machines.runner import CommandResult, Runner
from runners.services.machines.ssh import connect
from runners.services.machines.ssh.paramiko_fixes import GONE, Channel
from runners.services.machines.ssh.pool import exec_on_channel, open_session
from runners.services.machines.ssh.runner import SSHRunner, login_of
from runners.services.machines.ssh.target import SSHTarget
from runners_project import bounded, clock

NETWORK = ("resolve", "connect", "host_key", "authenticate")
STAGES = {  # in their order, with their titles on pages
    "resolve": "Resolve the address of the machine",
    "connect": "Connect to its SSH server",
    "host_key": "Verify its host key",
    "authenticate": "Log in",
    "login_shell": "Start a login shell",
    "module_loader": "Prepare the environment",
    "autosubmit": "Run autosubmit --version",
    "installation": "Read Autosubmit's configuration and find its database",
    "run_directory": "Write into the directory of runs",
    "survives_logout": "Keep a process alive after the logout",
}
SURVIVAL = 2.0  # seconds after the logout within which some machines end the processes that a login has left behind
LIFETIME = 60  # seconds for which the test process and its directory remain if the second login fails
SLOW_LOGIN = 2.0  # seconds
_TOOLS = ("timeout", "env", "flock", "head", "tail", "stat", "mkdir", "mv", "chmod", "grep", "id")
_MARK = "autosubmit-runners-login"
_UNREACHED = "Not tried, because an earlier step failed."


@dataclass(frozen=True, slots=True)
class Stage:
    """The result of one step. `ok`: None if it was not tried.

    `facts`: of an error, such as the `fingerprint` of an unknown key.
    """

    name: str  # a key of STAGES
    ok: bool | None
    milliseconds: int
    detail: str
    remedy: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return STAGES[self.name]


def check_profile(config: RunnerConfig, profiles: Iterable[RunnerProfile] = ()) -> Iterator[Stage]:
    """Yield every stage of STAGES, in order, as soon as its outcome is known. Errors of the machine are not raised.

    `profiles`: their databases are compared with this one's; the answer names them.
    The test starts one harmless process on the machine (`sleep`). It removes everything that it has made. If the
    machine allows no second login, everything is removed after LIFETIME. The caller has to call `BULKHEADS.admit`
    before.
    """
    pooled = get_runner(config)
    if not isinstance(pooled, SSHRunner):
        yield from _skipped(NETWORK, f"{pooled.name} commands need no connection.")
        good = yield from _prepare(pooled, profiles)
        yield from _skipped(["survives_logout"], f"{pooled.name} commands have no logout." if good else _UNREACHED)
        return
    clients = yield from _reach(pooled.target, pooled.ssh)
    if clients is None:
        yield from _skipped(list(STAGES)[len(NETWORK) :], _UNREACHED)
        return
    runner = OwnConnectionRunner(config, clients)
    try:
        if (yield from _prepare(runner, profiles)):
            yield _timed("survives_logout", lambda: _survives_logout(runner))
        else:
            yield from _skipped(["survives_logout"], _UNREACHED)
    finally:  # also if the caller does not read all stages
        connect.close(runner.clients)


def _skipped(names: Iterable[str], why: str) -> Iterator[Stage]:
    for name in names:
        yield Stage(name, None, 0, why)


def _failed(name: str, start: float, error: RunnerServiceError, remedy: str = "") -> Stage:
    """Return the stage for an error: its first sentence says what is wrong, the others say what to do."""
    what, _, then = error.detail.partition(". ")
    facts = dict(error.facts)
    advice = then or remedy
    if seconds := facts.pop("retry_after", None):
        until = clock.now() + timedelta(seconds=seconds)
        advice = f"{advice} The service does not connect to the machine again before {until:%H:%M:%S %Z}."
    return Stage(name, False, _since(start), what.rstrip(".") + ".", advice.strip(), facts)


def _since(start: float) -> int:
    return round((time.monotonic() - start) * 1000)


# --- the network ------------------------------------------------------------------------------------------------------


def _reach(target: Target, ssh: SSHTarget) -> Generator[Stage, None, list[paramiko.SSHClient] | None]:
    """Yield the first four stages. Return the connections if all of them succeed, else None."""
    start = time.monotonic()
    try:
        first = _first_host(ssh)
        found = bounded.resolve(first, 0, start + settings.RUNNERS_CONNECT_TIMEOUT)
    except RunnerUnreachable as error:
        stage = _failed("resolve", start, error, "Correct the service's ~/.ssh/config.")
    except bounded.NameServerSilent:
        remedy = (
            "Try again, or contact the administrators of the name server (/etc/resolv.conf of the service's machine)."
        )
        stage = Stage("resolve", False, _since(start), f"The name server (DNS) does not answer for {first}.", remedy)
    except OSError:
        remedy = "Correct SSH.HOST, or add the name to the DNS or to the ~/.ssh/config of the service."
        stage = Stage("resolve", False, _since(start), f"The host name {first} cannot be resolved (DNS).", remedy)
    else:
        addresses = ", ".join(dict.fromkeys(str(address[0]) for _, address in found))
        stage = Stage("resolve", True, _since(start), f"{first} is at {addresses}.")
    yield stage
    if not stage.ok:
        yield from _skipped(NETWORK[1:], _UNREACHED)
        return None

    start = time.monotonic()
    times: dict[str, float] = {}  # when each stage was done
    failure: Stage | None = None
    clients = None

    def reached(name: str) -> None:
        times[name] = time.monotonic()

    try:
        where, login = f"{ssh.user}@{ssh.host}:{ssh.port}", login_of(target, ssh)
        with BREAKER.attempt(login), OBSERVED.attempt(ssh), BULKHEADS.waiting(target, where) as wait:
            seconds = settings.RUNNERS_CONNECT_TIMEOUT
            try:
                limit = seconds if wait.patience is None else min(seconds, wait.patience)
                clients = connect.connect(ssh, start + limit, reached)
            except RunnerUnreachable as error:
                if wait.patience is not None and error.is_silence:
                    raise BULKHEADS.busy(target, where) from error  # other callers may wait longer
                raise
            BULKHEADS.heard(target, wait)
            BREAKER.answered(login)
            OBSERVED.answered(ssh)
    except (HostKeyUnknown, HostKeyChanged) as error:
        failure = _failed("host_key", times.get("connect", start), error)
    except AuthenticationFailed as error:
        failure = _failed("authenticate", times.get("host_key", start), error)
    except RunnerUnreachable as error:
        remedy = (
            "Check that SSH.PORT is correct, that an SSH server is running there, and that no firewall blocks the "
            "connection."
        )
        failure = _failed("connect", start, error, remedy)
    reached("authenticate")
    details = {"connect": f"{ssh.host}:{ssh.port} answers.", "host_key": "Its host key is trusted."}
    is_named = clients is not None and connect.has_certificate(clients)
    details["authenticate"] = f"Logged in as {ssh.user}{f' with a certificate for {ssh.person}' if is_named else ''}."
    try:
        for name in NETWORK[1:]:
            if failure and failure.name == name:
                yield failure
                yield from _skipped(NETWORK[NETWORK.index(name) + 1 :], _UNREACHED)
                return None
            done = times.get(name, start)
            yield Stage(name, True, round((done - start) * 1000), details[name])
            start = done
    except GeneratorExit:
        connect.close(clients or [])
        raise
    return clients


def _first_host(ssh: SSHTarget) -> str:
    """Return the only host whose name is resolved here. If there are jump hosts, they resolve the other names."""
    options = connect.options_of(ssh)
    if options.problem:
        raise RunnerUnreachable(options.problem)
    hops = connect.jump_targets(options)
    if hops:
        return connect.options_of(hops[0]).hostname
    return options.hostname


class OwnConnectionRunner(SSHRunner):
    """A runner that reaches the machine over one connection of its own."""

    def __init__(self, config: RunnerConfig, clients: list[paramiko.SSHClient]) -> None:
        super().__init__(config)
        self.clients = clients

    def exchange(self, exchange: Exchange) -> None:
        exec_on_channel(self, self.ssh, exchange)

    @contextmanager
    def channel(self, ssh: SSHTarget, deadline: ConnectDeadline) -> Iterator[Channel]:
        try:
            channel = open_session(self.clients[-1], max(0.1, deadline.left))
        except GONE as error:
            raise RunnerUnreachable(f"{self.where} closed the connection or rejected a session on it.") from error
        with closing(channel):
            yield channel

    def discard(self, ssh: SSHTarget) -> None:
        connect.close(self.clients)


# --- the machine ------------------------------------------------------------------------------------------------------


def _prepare(runner: Runner, profiles: Iterable[RunnerProfile]) -> Generator[Stage, None, bool]:
    """Yield the stages from login shell to run directory. Return True if a process may be started there."""
    shell = _timed("login_shell", lambda: _login_shell(runner))
    yield shell
    if not shell.ok:
        yield from _skipped(["module_loader", "autosubmit", "installation", "run_directory"], _UNREACHED)
        return False
    environment = _timed("module_loader", lambda: _module_loader(runner))
    yield environment
    if environment.ok is False:
        yield from _skipped(["autosubmit", "installation"], _UNREACHED)
    else:
        program = _timed("autosubmit", lambda: _autosubmit(runner))
        yield program
        if program.ok:
            yield _timed("installation", lambda: _installation(runner, profiles))
        else:
            yield from _skipped(["installation"], _UNREACHED)
    directory = _timed("run_directory", lambda: _run_directory(runner))
    yield directory
    return bool(directory.ok)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a stage on the machine."""

    ok: bool | None
    detail: str
    remedy: str = ""


def _timed(name: str, step: Callable[[], Outcome]) -> Stage:
    start = time.monotonic()
    try:
        outcome = step()
    except RunnerServiceError as error:
        return _failed(name, start, error, "Try again. If the error remains, log in by hand and try the command there.")
    return Stage(name, outcome.ok, _since(start), outcome.detail, outcome.remedy)


def _refusal(result: CommandResult, remedy: str) -> Outcome:
    return Outcome(False, result.last_words or f"It ended with exit code {result.exit_code} without a message.", remedy)


def _login_shell(runner: Runner) -> Outcome:
    mark = f"printf '\\n%s\\n' {_MARK}; printf '\\n%s\\n' {_MARK} >&2"
    script = f"""
bash -lc {shlex.quote(mark)} </dev/null
for tool in {" ".join(_TOOLS)}; do type -P "$tool" >/dev/null || printf ' %s' "$tool"; done
printf '\\n%s.%s\\n' "${{BASH_VERSINFO[0]}}" "${{BASH_VERSINFO[1]}}"
"""
    result = runner.execute(script, timeout=settings.RUNNERS_LAUNCH_TIMEOUT)
    noise, found, rest = result.stdout.partition(f"\n{_MARK}\n".encode())
    complaints = result.stderr.partition(f"\n{_MARK}\n".encode())[0]
    said = last_lines(noise + b"\n" + complaints, lines=3, characters=300)
    if not found:
        return Outcome(
            False,
            f"The login shell exits before it executes a command: {said or 'no output'}",
            "A profile script of the account (~/.bash_profile, ~/.bash_login, ~/.profile, /etc/profile.d) exits. "
            "Correct it, so that `bash -lc true` succeeds there.",
        )
    missing, _, version = rest.decode("ascii", "replace").strip("\n").rpartition("\n")
    if missing.strip():
        return Outcome(
            False,
            f"Not found there: {printable.line(missing.strip())}.",
            "Install coreutils, grep and util-linux on the machine.",
        )
    try:
        major, minor = (answers.integer(word, 0, 999) for word in version.split(".")[:3])
    except ValueError:  # Unreadable, or another number of words
        return Outcome(
            False,
            f"Its bash does not print a version: {printable.line(version) or 'no output'}",
            "A forced command or a wrapper runs instead of bash. It has to execute the given command.",
        )
    if (major, minor) < (4, 2):
        return Outcome(False, f"Its bash is {version}.", "The first bash on PATH has to be version 4.2 or newer.")
    detail = f"bash {version}"
    if said:
        detail += f"; it prints at login (harmless here, but scp and rsync may fail because of it): {said}"
    if result.duration > SLOW_LOGIN:
        detail += f"; it takes {result.duration:.1f} s, which delays every command"
    return Outcome(True, detail)


def _module_loader(runner: Runner) -> Outcome:
    loader = get_module_loader(runner.config)
    prelude = loader.prelude()
    if not prelude:
        return Outcome(None, f"{loader.name}: no preparation needed.")
    result = runner.execute(_in_root([*prelude, ":"]), login=True, timeout=settings.RUNNERS_LAUNCH_TIMEOUT)
    if result.exit_code:
        return _refusal(result, loader.remedy)
    return Outcome(True, f"{loader.name} {' '.join(runner.config.modules)}")


def _autosubmit(runner: Runner) -> Outcome:
    result = ask_version(runner)
    version = installation.version_in(result.all_text)
    if result.exit_code or not version:
        return _refusal(
            result,
            "Autosubmit has to be on PATH in the prepared environment: correct MODULE_LOADER_TYPE and MODULES, or "
            "install it there.",
        )
    return Outcome(True, f"Autosubmit {version}")


def _installation(runner: Runner, profiles: Iterable[RunnerProfile]) -> Outcome:
    """Test that Autosubmit finds .autosubmitrc and its database. `autosubmit -v` needs neither; every command does.

    If the database is known, it is compared with those of the other profiles.
    """
    argv = installation.describe(installation.NO_EXPERIMENT)
    lines = [*get_module_loader(runner.config).steps(argv), f"exec {shlex.join(argv)}"]
    result = runner.execute(_in_root(lines), login=True, timeout=settings.RUNNERS_LAUNCH_TIMEOUT)
    found = output.complaint(result.stdout, result.stderr)
    if found and not output.is_experiment_missing(found):
        remedy = remedies.remedy(found.text) or "Log in by hand and try `autosubmit describe` there."
        return Outcome(False, found.text, remedy)
    if result.exit_code in (126, 127):
        return _refusal(result, "Autosubmit has to be on PATH in the prepared environment.")
    database, conflicts = autosubmit_databases.compare(runner, profiles)
    where = f" of the installation '{runner.config.installation}': {database}" if database else ""
    return Outcome(True, f"Autosubmit finds its configuration and its database{where}.", " ".join(conflicts))


def _in_root(lines: list[str]) -> str:
    """Return the script that runs `lines` like a command, but in `/`: another stage tests the directory of runs."""
    return " && ".join([scripts.surroundings("/"), *lines])


def _run_directory(runner: Runner) -> Outcome:
    script = f"""
base={scripts.base_directory(runner.config.run_directory)}; code=0
mkdir -p -m 700 "$base" && dir=$(mktemp -d "$base/check.XXXXXX") || exit 73
{{ printf '%4096s' x >"$dir/new" && mv "$dir/new" "$dir/file" && [ "$(stat -c %s "$dir/file")" = 4096 ]; }} || code=74
rm -rf "$dir"
df -Pk "$base" | {{ read -r _; read -r _ _ _ available _; echo "$available"; }}
printf '%s\\n' "$base"
exit $code
"""
    result = runner.execute(script, timeout=settings.RUNNERS_PROBE_TIMEOUT)
    if result.exit_code:
        place = runner.config.run_directory or f"~/{scripts.BASE}"
        return _refusal(
            result,
            f"{place} has to be a directory that the account can write to. Check its owner, its quota and its free "
            f"space. An admin can set RUN_DIRECTORY of the profile to another place.",
        )
    told = result.text.strip().split("\n")[-2:]
    if len(told) != 2 or not told[1].startswith("/"):
        return _refusal(result, "A forced command or a wrapper runs instead of bash. It has to execute our script.")
    try:
        free = f", {answers.size(told[0]) / 2**20:.1f} GiB free"
    except answers.Unreadable:  # `df` reports nothing for this file system
        free = ""
    return Outcome(True, printable.line(told[1]) + free)


def _survives_logout(runner: OwnConnectionRunner) -> Outcome:
    """Start a process as runs are started, close the connection, and probe the process over a second connection."""
    key = new_run_key()
    # The command removes its own directory, because the second connection may fail. It closes its log before that: on
    # NFS, an open log would keep the directory.
    command = f"{{ sleep {LIFETIME}; exec >/dev/null 2>&1; cd .. && rm -rf {key}; }}"
    identity = runner.launch(key, command, timeout=settings.RUNNERS_LAUNCH_TIMEOUT)
    connect.close(runner.clients)
    deadline = time.monotonic() + settings.RUNNERS_CONNECT_TIMEOUT
    runner.clients = connect.connect(runner.ssh, deadline)
    try:
        return _judged(_watch(runner, ProbeTarget(key, identity)), runner.ssh.user)
    finally:
        with suppress(RunnerServiceError):  # the process then removes its directory itself
            _remove(runner, key, identity)
        connect.close(runner.clients)


def _watch(runner: Runner, target: ProbeTarget) -> Probe:
    end = time.monotonic() + SURVIVAL
    while True:
        probe = runner.probe([target], timeout=settings.RUNNERS_PROBE_TIMEOUT)[target.key]
        if probe.answer != Probe.RUNNING or time.monotonic() > end:
            return probe
        time.sleep(0.25)


def _judged(probe: Probe, user: str) -> Outcome:
    if probe.answer == Probe.RUNNING:
        return Outcome(True, f"It was still alive after {SURVIVAL:g} s.")
    if probe.answer == Probe.CANNOT_TELL:
        return Outcome(
            None,
            f"Not known: {probe.detail}.",
            "If SSH.HOST is an alias of several login nodes, give the name of one node: a run can only be probed on "
            "its own node.",
        )
    return Outcome(
        False,
        "The machine killed it when the connection was closed: runs would not survive there.",
        f"Ask the machine's admins for `loginctl enable-linger {user}`, or for KillUserProcesses=no in logind.conf.",
    )


def _remove(runner: Runner, key: str, identity: Identity) -> None:
    runner.signal(key, identity, "KILL", timeout=settings.RUNNERS_PROBE_TIMEOUT)
    base = scripts.base_directory(runner.config.run_directory)
    runner.execute(f"rm -rf {base}/{key}", timeout=settings.RUNNERS_PROBE_TIMEOUT)
