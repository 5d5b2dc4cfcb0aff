"""Accounts of every login shell whose start-up files replace, end or block the shell: no command runs by accident."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

from profiles.config import RunnerConfig
from runners.exceptions import CommandTimedOut, RunnerServiceError, RunnerUnreachable
from runners.models import new_run_key
from runners.services.machines import exchange
from runners.services.machines import runner as runners
from runners.services.machines.probe import Probe, ProbeTarget
from runners.services.machines.registry import get_module_loader, get_runner
from runners.services.machines.ssh.pool import POOL
from runners.services.machines.ssh.target import SSHTarget
from tests.support import contract
from tests.support.environments import StubAccount
from tests.support.processes import PATIENCE, is_alive, kill_all, wait_for
from tests.support.requirements import need
from tests.support.servers import AppServer, SSHServer, find_sshd, use

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make accounts and let sshd lead into them"),
]

TIMEOUT = 3.0 * PATIENCE  # time limit of a command in seconds
TRIPWIRE = '#!/bin/sh\necho "$0 $*" >>"$HOME/tripwire"\necho "Experiment a000 created"\n'


@dataclass(frozen=True)
class Shell:
    """`file`: the file that the shell reads when it is not interactive, or that our reader's login bash reads."""

    name: str
    file: str
    guarded: str  # acts in interactive shells only, as the error message recommends
    read: str = "read -r line"
    end: str = "exit 3"


SHELLS = {
    shell.name: shell
    for shell in (
        Shell("bash", ".bashrc", "[[ $- == *i* ]] && exec cat"),
        Shell("dash", ".profile", "case $- in *i*) exec cat ;; esac"),
        Shell("tcsh", ".tcshrc", "if ($?prompt) exec cat", read="set line = $<", end="exec false"),
        Shell(
            "fish",
            ".config/fish/config.fish",
            "status is-interactive; and exec cat",
            read="read line",
            end="exec false",
        ),
        Shell("zsh", ".zshenv", "[[ -o interactive ]] && exec cat"),
        Shell("ksh", ".profile", "case $- in *i*) exec cat ;; esac"),
    )
}
KINDS: dict[str, Callable[[Shell], str]] = {
    "replaced": lambda shell: "exec bash",
    "replaced by a program": lambda shell: "exec cat",
    "ended": lambda shell: shell.end,  # in tcsh and fish, `exit` ends the file and not the shell
    "blocked": lambda shell: "sleep 4321",
    "reading": lambda shell: shell.read,
}


@dataclass(frozen=True)
class UnixAccount:
    """An account of this machine with its own home and login shell."""

    name: str
    shell: Shell
    home: Path
    uid: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "uid", pwd.getpwnam(self.name).pw_uid)

    def start_up(self, text: str) -> None:
        """Set what the account's start-up file does from now on."""
        for name, words in ((".bash_profile", ""), (self.shell.file, text)):
            path = self.home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            # /etc/profile sets another PATH.
            path.write_text(f"PATH={self.home.parent}/bin:$PATH\n{words}\n" if "profile" in name else f"{words}\n")
        if self.shell.file == ".profile":
            (self.home / ".bash_profile").unlink()
        subprocess.run(["chown", "-R", self.name, str(self.home)], check=True)

    @property
    def tripwire(self) -> str:
        """Return the commands that were executed in the account."""
        file = self.home / "tripwire"
        return file.read_text() if file.exists() else ""

    def processes(self) -> list[int]:
        """Return the account's living processes except sshd's."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and entry.stat().st_uid == self.uid:
                    is_sshd = (entry / "comm").read_text().startswith("sshd")
                    found += [int(entry.name)] if not is_sshd and is_alive(int(entry.name)) else []
            except OSError:
                continue
        return found


@dataclass(frozen=True)
class Machine:
    """An sshd in front of several accounts, whose `autosubmit` only records its call."""

    sshd: SSHServer
    accounts: dict[str, UnixAccount]

    def config(self, shell: str) -> RunnerConfig:
        target = SSHTarget("127.0.0.1", self.sshd.port, self.accounts[shell].name)
        return RunnerConfig("SSH", "NO_MODULE", (), target)


@contextmanager
def unix_account(shell: Shell, folder: Path) -> Iterator[UnixAccount]:
    name, home = f"shell{secrets.token_hex(4)}", folder / shell.name
    home.mkdir()
    program = shutil.which(shell.name)
    need(program, shell.name)
    # "*" and not "!": sshd refuses a locked account, which is one whose password starts with "!".
    argv = ["useradd", "-M", "-d", str(home), "-s", str(program), "-p", "*", name]
    subprocess.run(argv, check=True, capture_output=True)
    account = UnixAccount(name, shell, home)
    try:
        yield account
    finally:
        kill_all(account.processes())
        subprocess.run(["userdel", name], check=True, capture_output=True)


@pytest.fixture(scope="module")
def _machine() -> Iterator[Machine]:
    need(find_sshd(), "sshd")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shells-")))
        folder.chmod(0o755)
        programs = folder / "bin"
        programs.mkdir()
        (programs / "autosubmit").write_text(TRIPWIRE)
        (programs / "autosubmit").chmod(0o755)
        accounts = {name: stack.enter_context(unix_account(shell, folder)) for name, shell in SHELLS.items()}
        path = f"{programs}:/usr/local/bin:/usr/bin:/bin"
        sshd = SSHServer(folder / "sshd", home=folder, options={"SetEnv": f"PATH={path}", "MaxStartups": "100"})
        for path in (programs, sshd.folder):
            path.chmod(0o755)
        (sshd.folder / "authorized_keys").chmod(0o644)  # sshd reads it with the rights of the account
        with sshd:
            yield Machine(sshd, accounts)


@pytest.fixture
def machine(_machine: Machine, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    use(_machine.sshd, settings)
    monkeypatch.setattr(exchange, "PATIENCE", 2.0 * PATIENCE)
    monkeypatch.setattr(runners, "CLIENT_GRACE", 2.0 * PATIENCE)
    yield _machine
    POOL.close()
    for account in _machine.accounts.values():
        kill_all(account.processes())
        for file in (account.shell.file, ".bash_profile", "tripwire"):
            (account.home / file).unlink(missing_ok=True)


def attempt(config: RunnerConfig, *, launch: bool) -> RunnerServiceError | None:
    """Create an experiment or start a run. Return the error, if any."""
    runner, loader = get_runner(config), get_module_loader(config)
    argv = ["autosubmit", "expid"]
    try:
        if launch:
            runner.launch(new_run_key(), "exec autosubmit run a000", prelude=loader.steps(argv), timeout=TIMEOUT)
        else:
            runner.execute(loader.wrap(argv), login=True, timeout=TIMEOUT)
    except RunnerServiceError as error:
        return error
    return None


def check(machine: Machine, shell: str, kind: str) -> list[str]:
    """Return what is wrong with an account whose start-up file has this kind."""
    account = machine.accounts[shell]
    account.start_up(KINDS[kind](account.shell))
    wrong = []
    is_blocked = kind in ("blocked", "reading")
    # A run whose login shell is blocked can be seen and stopped: see tests/faults/test_noise.py.
    for launch in (False,) if is_blocked and account.shell.file == ".profile" else (False, True):
        case = f"{shell}, {kind}, {'launch' if launch else 'execute'}"
        error = attempt(machine.config(shell), launch=launch)
        if kind == "reading" and account.shell.file == ".profile":  # our login bash reads from /dev/null
            wrong += [f"{case}: {error}"] if error or not account.tripwire else []
            (account.home / "tripwire").unlink(missing_ok=True)
            continue
        if not isinstance(error, RunnerUnreachable | (CommandTimedOut if is_blocked else RunnerUnreachable)):
            wrong.append(f"{case}: {error!r}")
        elif not all(words in error.detail for words in ("start-up file", "Nothing was executed", "$?prompt")):
            wrong.append(f"{case}: {error.detail}")
        if account.tripwire:
            wrong.append(f"{case}: executed {account.tripwire}")
    try:
        wait_for(lambda: not account.processes(), 10, what=f"{shell}, {kind}: end of its processes")
    except AssertionError as error:
        wrong.append(f"{error}")
    connections.close_all()
    return wrong


def test_nothing_is_executed_whatever_start_up_files_do(machine: Machine) -> None:
    """Test six login shells in parallel, each with every kind of start-up file."""
    with ThreadPoolExecutor(len(SHELLS)) as pool:
        found = pool.map(lambda shell: [check(machine, shell, kind) for kind in KINDS], SHELLS)
        wrong = [line for kinds in found for lines in kinds for line in lines]
    assert wrong == []


@pytest.mark.parametrize("launch", [False, True])
@pytest.mark.parametrize(
    "start_up",
    ['read -r a; read -r b; eval "$(printf %b "$b")"', 'x=$(tail -n +2); printf %b "$x" | bash; exit'],
    ids=["eval", "another bash"],
)
def test_a_start_up_file_that_decodes_and_executes_its_input_gets_no_script(
    machine: Machine, start_up: str, launch: bool
) -> None:
    account = machine.accounts["bash"]
    account.start_up(start_up)
    assert isinstance(attempt(machine.config("bash"), launch=launch), RunnerUnreachable)
    wait_for(lambda: not account.processes(), what="the end of its processes")
    assert account.tripwire == ""


def test_the_guard_that_the_error_names_helps(machine: Machine) -> None:
    def guarded(shell: str) -> str:
        account = machine.accounts[shell]
        account.start_up(account.shell.guarded)
        error = attempt(machine.config(shell), launch=False) or attempt(machine.config(shell), launch=True)
        connections.close_all()
        if error:
            return f"{shell}: {error}"
        wait_for(lambda: "run a000" in account.tripwire, what=f"the run of {shell}")
        return ""

    with ThreadPoolExecutor(len(SHELLS)) as pool:
        assert [error for error in pool.map(guarded, SHELLS) if error] == []


@pytest.mark.parametrize("kind", ["replaced", "replaced by a program", "ended", "blocked"])
@pytest.mark.parametrize("file", [".bash_profile", ".profile"])
def test_nothing_is_executed_on_this_machine(
    file: str, kind: str, account: StubAccount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LOCAL reads the start-up files of a login bash, whatever login shell the account has."""
    home = tmp_path / "home"
    home.mkdir()
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "autosubmit").write_text(TRIPWIRE)
    (programs / "autosubmit").chmod(0o755)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    (home / file).write_text(KINDS[kind](SHELLS["bash"]) + "\n")
    config = account.config("NO_MODULE")
    for launch in (False,) if kind == "blocked" else (False, True):
        error = attempt(config, launch=launch)
        assert isinstance(error, CommandTimedOut if kind == "blocked" else RunnerUnreachable), repr(error)
        assert "start-up file" in error.detail
        assert "Nothing was executed" in error.detail
    assert not (home / "tripwire").exists()


PROFILES = """
RUNNER_CONFIGURATION:
  PROFILES:
    THERE: {{RUNNER_TYPE: SSH, MODULE_LOADER_TYPE: NO_MODULE, SSH: {{HOST: 127.0.0.1, PORT: {port}, USER: {user}}}}}
"""


def test_a_repeated_request_creates_one_experiment_at_most(
    machine: Machine, account: StubAccount, make_app: Callable[..., AppServer]
) -> None:
    """502 means that nothing was executed, so clients retry with the same Idempotency-Key."""
    tcsh = machine.accounts["tcsh"]
    tcsh.start_up("exec bash")
    app = make_app(account=account, sshd=machine.sshd)
    file = app.folder / "profiles.yml"
    file.write_text(PROFILES.format(port=machine.sshd.port, user=tcsh.name))
    app.manage("import_profiles", str(file), "--prune")
    body = {"profile_name": "THERE", "profile_params": {}, "command_params": {"description": "three times"}}

    def create() -> tuple[int, str]:
        answer = app.post("/v4/runners/command/create-experiment", body, Idempotency_Key="the-same")
        assert "config.fish" in answer.body["detail"], answer
        return answer.status, answer.body["code"]

    assert [create() for _ in range(3)] == [(502, "runner_unreachable")] * 3
    run = {"expid": "a000", "profile_name": "THERE", "profile_params": {}}
    answers = [app.post("/v4/runners/command/run-experiment", run).body["code"] for _ in range(2)]
    assert answers == ["runner_unreachable"] * 2
    assert tcsh.tripwire == ""
    tcsh.start_up("if ($?prompt) exec bash")
    assert app.post("/v4/runners/command/create-experiment", body, Idempotency_Key="another").status == 200
    assert tcsh.tripwire.count("expid") == 1


CHANGED = {
    "separators": "export IFS=:",
    "options": "set -eufC -o pipefail",
    "traps": "trap 'exit 0' EXIT; trap 'exit 3' ERR; trap '' INT HUP TERM",
    "functions": "exit() { :; }; echo() { :; }; read() { :; }; eval() { :; }; kill() { :; }; "
    "[ -z $BASH_VERSION ] || export -f exit echo read eval kill",
    "joined streams": "exec 2>&1",
    "a file of its own": "export BASH_ENV=$HOME/.env",
}


@pytest.mark.parametrize("change", CHANGED.values(), ids=CHANGED.keys())
def test_start_up_files_may_change_the_shell(
    change: str, account: StubAccount, make_sshd: Callable[..., SSHServer], tmp_path: Path
) -> None:
    """~/.bashrc of the account changes the shell, but our own scripts are executed unchanged."""
    home = tmp_path / "home"
    home.mkdir()
    (home / ".bashrc").write_text(change + "\n")
    (home / ".env").write_text("exec cat\n")
    runner = get_runner(make_sshd(home).config())
    result = runner.execute("set -- a b; echo $1-$2; exit 7", timeout=10)
    assert (result.exit_code, result.stdout) == (7, b"a-b\n")
    key = new_run_key()
    identity = runner.launch(key, "exec sleep 60", timeout=10)
    assert runner.probe([ProbeTarget(key, identity)], timeout=10)[key].answer == Probe.RUNNING
    runner.signal(key, identity, "TERM", timeout=10)
    wait_for(lambda: not is_alive(identity.pid), what="end of the command")


@pytest.mark.parametrize(
    ("file", "text", "is_seen"),
    [
        (".bashrc", "export POSIXLY_CORRECT=1", True),
        (".bash_profile", "export POSIXLY_CORRECT=1", True),
        (".bash_profile", "set -o posix", False),
    ],
)
def test_an_account_in_the_posix_mode(
    file: str, text: str, is_seen: bool, account: StubAccount, make_sshd: Callable[..., SSHServer], tmp_path: Path
) -> None:
    """Our shells leave the mode, so the end of a run is seen. The command gets the variable if it is exported."""
    home = tmp_path / "home"
    home.mkdir()
    for name, words in ((".bash_profile", "export FROM_PROFILE=here\n"), (file, f"{text}\n")):
        with (home / name).open("a") as start_up:
            start_up.write(words)
    _check_posix_mode(make_sshd(home).config(), is_seen=is_seen)


def test_a_service_in_the_posix_mode(
    account: StubAccount, at_login: Callable[[str], None], settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSIXLY_CORRECT", "1")
    at_login("export FROM_PROFILE=here\n")
    _check_posix_mode(account.config(), is_seen=False)
    settings.RUNNERS_LOCAL_ENV_PASS = ["POSIXLY_CORRECT"]
    _check_posix_mode(account.config(), is_seen=True)


def _check_posix_mode(config: RunnerConfig, *, is_seen: bool) -> None:
    shown = "; ".join(f"printenv {name}" for name in ("FROM_PROFILE", "POSIXLY_CORRECT", "autosubmit_runners_posix"))
    argv = ["dash", "-c", f"{shown}; sleep 0.3; exit 3"]
    words = ["here", "y"] if is_seen else ["here"]
    result = contract.run_loaded(config, argv)
    assert (result.exit_code, result.text.split()) == (3, words)
    key, identity = contract.launch(config, argv)
    end = contract.wait_over(config, key, identity)
    assert (end.answer, end.exit_code, end.signal) == (Probe.ENDED, 3, "")
    assert contract.log_of(config, key).decode().split() == words


def test_a_login_that_outlasts_the_timeout_executes_the_script_once(
    account: StubAccount, make_sshd: Callable[..., SSHServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "PATIENCE", 0.5)
    home = tmp_path / "home"
    home.mkdir()
    (home / ".bashrc").write_text(f"sleep {exchange.RELEASED + 1.5}\n")
    runner = get_runner(make_sshd(home).config())
    assert runner.execute("echo once | tee -a ~/proof; exit 7", timeout=30).exit_code == 7
    assert (home / "proof").read_text() == "once\n"


FORCED = {
    "cat": "cat",
    "a shell": "bash",
    "a greeting": "echo hello; echo ready",
    "an interpreter": "python3",
    "files only": "internal-sftp",
    "the words twice": 'printf "%s\\n" $SSH_ORIGINAL_COMMAND; printf "%s" "$SSH_ORIGINAL_COMMAND"',
}


@pytest.mark.parametrize("forced", FORCED.values(), ids=FORCED.keys())
def test_a_forced_command_executes_nothing(
    forced: str, account: StubAccount, make_sshd: Callable[..., SSHServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "PATIENCE", 2.0 * PATIENCE)
    monkeypatch.setattr(runners, "CLIENT_GRACE", 5.0)
    account.experiment("a000")
    sshd = make_sshd(account.home, options={"ForceCommand": forced})
    for launch in (False, True):
        error = attempt(sshd.config(), launch=launch)
        assert isinstance(error, RunnerUnreachable), repr(error)
        assert "$SSH_ORIGINAL_COMMAND" in error.detail
    assert account.calls() == []
    assert not (account.home / ".autosubmit-runners").exists()


def test_a_wrapper_that_executes_our_command_twice_executes_the_script_once(
    account: StubAccount, make_sshd: Callable[..., SSHServer]
) -> None:
    twice = 'sh -c "$SSH_ORIGINAL_COMMAND"; sh -c "$SSH_ORIGINAL_COMMAND" </dev/null'
    runner = get_runner(make_sshd(account.home, options={"ForceCommand": twice}).config())
    proof = account.home / "proof"
    assert runner.execute(f"echo once | tee -a {proof}; exit 3", timeout=TIMEOUT).exit_code == 3
    assert proof.read_text() == "once\n"
