"""One contract for LOCAL and SSH, with each module loader: what `runners/services` promises about running a command.

sshd, Lmod and the virtual environment are real. conda is real if the machine has it (tests/support/environments.py).
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from profiles.config import RunnerConfig
from runners.exceptions import (
    AuthenticationFailed,
    CommandTimedOut,
    HostKeyChanged,
    HostKeyUnknown,
    RunnerUnreachable,
)
from runners.services.machines.probe import Probe, ProbeTarget
from runners.services.machines.registry import get_runner
from runners.services.machines.runner import Runner
from runners.services.machines.scripts import Shell
from tests.support.contract import HOSTILE, TIMEOUT, Configs, commands_with, launch, probe
from tests.support.environments import StubAccount
from tests.support.processes import PATIENCE, is_alive, kill_all, wait_for
from tests.support.servers import SSHServer

pytestmark = pytest.mark.django_db

MEGABYTE = 1024 * 1024


def echo_all(words: list[str]) -> list[str]:
    """Return an argv that prints each word followed by NUL."""
    return ["printf", r"%s\0", *words]


# --- execute ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("login", [False, True], ids=["plain", "login"])
def test_streams_and_exit_code(runner: Runner, login: bool) -> None:
    result = runner.execute("echo out; echo err >&2; exit 7", timeout=TIMEOUT, login=login)
    assert (result.exit_code, result.stdout, result.stderr) == (7, b"out\n", b"err\n")
    assert not result.truncated
    assert 0 < result.duration < TIMEOUT


def test_standard_input_arrives_whole(runner: Runner) -> None:
    data = bytes(range(256)) * 4096
    result = runner.execute("wc -c; echo done", stdin=data, timeout=TIMEOUT)
    assert result.text.split() == [str(len(data)), "done"]
    assert runner.execute("cat", stdin=b"\0\xff #end\n", timeout=TIMEOUT).stdout == b"\0\xff #end\n"


@pytest.mark.parametrize("left", ["while echo x; do sleep 0.05; done", "yes"], ids=["trickle", "flood"])
def test_background_processes_of_a_command_may_write_forever(runner: Runner, left: str) -> None:
    """The background process holds the streams of the command, but only the command's own end counts."""
    begin = time.monotonic()
    result = runner.execute(
        f"setsid timeout {40 * PATIENCE:g} sh -c {shlex.quote(left)} & sleep 0.3; exit 7", timeout=TIMEOUT
    )
    assert result.exit_code == 7
    assert time.monotonic() - begin < 10 * PATIENCE


def test_without_input_a_command_reads_the_end(runner: Runner) -> None:
    assert runner.execute("cat; echo end", timeout=5).stdout == b"end\n"


def test_a_command_that_does_not_read_its_input(runner: Runner) -> None:
    result = runner.execute("echo no, thanks", stdin=b"x" * MEGABYTE, timeout=TIMEOUT)
    assert (result.exit_code, result.stdout) == (0, b"no, thanks\n")


def test_floods_on_both_streams_are_bounded(runner: Runner, settings: Any) -> None:
    flood = f"head -c {5 * MEGABYTE} /dev/zero | tr '\\0' {{}}"
    script = f"{flood.format('o')}; {flood.format('e')} >&2; echo last words; echo last complaint >&2; exit 3"
    result = runner.execute(script, timeout=TIMEOUT)
    assert (result.exit_code, result.truncated) == (3, True)
    assert result.stdout.endswith(b"ooo" + b"last words\n")
    assert result.stderr.endswith(b"eee" + b"last complaint\n")
    assert len(result.stdout) == len(result.stderr) == settings.RUNNERS_OUTPUT_LIMIT


def test_both_streams_are_read_at_once(runner: Runner) -> None:
    """A command would block for ever on a full pipe that nobody reads."""
    script = "for i in {1..300}; do head -c 9999 /dev/zero; head -c 9999 /dev/zero >&2; done; echo end"
    assert runner.execute(script, timeout=TIMEOUT).stdout.endswith(b"end\n")


def test_colours_are_stripped_from_the_text(runner: Runner) -> None:
    assert runner.execute(r"printf '\e[32mgreen\e[0m\n'", timeout=TIMEOUT).text == "green\n"


@pytest.mark.parametrize("word", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_arguments_stay_one_argument(runner: Runner, word: str) -> None:
    result = runner.execute(f"exec {shlex.join(echo_all([word, 'after']))}", timeout=TIMEOUT)
    assert result.stdout == f"{word}\0after\0".encode()


def test_a_script_of_a_megabyte(runner: Runner) -> None:
    result = runner.execute(f": {'x' * MEGABYTE}\necho arrived", timeout=TIMEOUT)
    assert result.stdout == b"arrived\n"


def test_a_script_with_a_syntax_error(runner: Runner) -> None:
    result = runner.execute("echo before; if", timeout=TIMEOUT)
    assert result.exit_code != 0
    assert b"syntax error" in result.stderr


def test_timeout_ends_the_processes_there(runner: Runner, account: StubAccount) -> None:
    seconds = "7654"
    started = time.monotonic()
    with pytest.raises(CommandTimedOut) as caught:
        runner.execute(f"echo so far; sleep {seconds}", timeout=1)
    assert time.monotonic() - started < 10 * PATIENCE
    assert "so far" in caught.value.facts["output"]
    wait_for(lambda: not commands_with(seconds, account), 10, what="end of the sleep")


def test_timeout_of_a_command_that_ignores_term(runner: Runner, account: StubAccount) -> None:
    seconds = "7653"
    with pytest.raises(CommandTimedOut):
        runner.execute(f"trap '' TERM INT HUP; sleep {seconds}", timeout=1)
    wait_for(lambda: not commands_with(seconds, account), 15, what="end of the sleep")


def test_124_is_an_exit_code_like_any_other(runner: Runner) -> None:
    assert runner.execute("exit 124", timeout=TIMEOUT).exit_code == 124
    assert runner.execute("kill -KILL $$", timeout=TIMEOUT).exit_code == 137


def test_does_not_wait_for_what_a_command_leaves_behind(runner: Runner) -> None:
    """Autosubmit's log process holds its parent's streams for a minute."""
    started = time.monotonic()
    result = runner.execute("sleep 60 & echo done", timeout=TIMEOUT)
    assert result.stdout == b"done\n"
    assert time.monotonic() - started < 10 * PATIENCE


def test_default_signals(runner: Runner) -> None:
    result = runner.execute("grep -E 'Sig(Ign|Blk)' /proc/self/status", timeout=TIMEOUT)
    assert not any(int(line.split()[1], 16) & 0x4007 for line in result.text.splitlines())


def test_secrets_of_the_service_stay_here(config_of: Configs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "do-not-tell")
    monkeypatch.setenv("DATABASE_URL", "postgres://do-not-tell")
    result = get_runner(config_of("NO_MODULE")).execute("env", login=True, timeout=TIMEOUT)
    assert "do-not-tell" not in result.text


def test_output_of_the_login_shell_is_not_output_of_the_command(
    runner_type: str, account: StubAccount, make_sshd: Callable[..., SSHServer], tmp_path: Path, monkeypatch: Any
) -> None:
    home = tmp_path / "noisy"
    home.mkdir()
    noise = "echo welcome; echo careful >&2; printf 'no line end'\n"
    (home / ".bashrc").write_text(noise)  # sshd's bash reads it, although the shell is not interactive
    (home / ".bash_profile").write_text(noise + "read -r stolen && echo stole $stolen\n")
    runner = get_runner(RunnerConfig("LOCAL", "NO_MODULE"))
    if runner_type == "SSH":
        runner = get_runner(make_sshd(home).config())
    monkeypatch.setenv("HOME", str(home))
    for login in (False, True):
        result = runner.execute("echo $HOME; cat", stdin=b"input\n", login=login, timeout=TIMEOUT)
        assert (result.stdout, result.stderr) == (f"{home}\ninput\n".encode(), b"")
    identity = runner.launch("noisy", "exec sleep 60", timeout=TIMEOUT)
    assert runner.probe([ProbeTarget("noisy", identity)], timeout=TIMEOUT)["noisy"].answer == Probe.RUNNING
    kill_all([identity.pid])


def test_a_shell_that_swallows_the_script(
    make_sshd: Callable[..., SSHServer], tmp_path: Path, account: StubAccount
) -> None:
    """sshd's bash reads .bashrc with our standard input. It must not execute half a script, but report an error."""
    home = tmp_path / "thief"
    home.mkdir()
    (home / ".bashrc").write_text("read -r stolen\n")
    done = home / "done"
    with pytest.raises(RunnerUnreachable):
        get_runner(make_sshd(home).config()).execute(f"true\ntouch {done}", timeout=TIMEOUT)
    assert not done.exists()


def test_a_login_shell_that_ends(runner: Runner, account: StubAccount) -> None:
    profile = account.home / ".bash_profile"
    before = profile.read_text()
    try:
        profile.write_text("echo this account is closed >&2; exit 9\n")
        with pytest.raises(RunnerUnreachable, match="this account is closed"):
            runner.execute("echo never", login=True, timeout=TIMEOUT)
    finally:
        profile.write_text(before)


# --- faults of a machine ----------------------------------------------------------------------------------------------


def test_host_down(sshd: SSHServer) -> None:
    sshd.stop()
    with pytest.raises(RunnerUnreachable, match="refused"):
        get_runner(sshd.config()).execute("true", timeout=TIMEOUT)


def test_unknown_host_key_is_refused_with_its_fingerprint(sshd: SSHServer) -> None:
    sshd.forget_host_key()
    with pytest.raises(HostKeyUnknown) as caught:
        get_runner(sshd.config()).execute("true", timeout=TIMEOUT)
    assert caught.value.facts["fingerprint"] == sshd.host_key_fingerprint


def test_changed_host_key_is_refused(sshd: SSHServer) -> None:
    sshd.swap_host_key()
    with pytest.raises(HostKeyChanged) as caught:
        get_runner(sshd.config()).execute("true", timeout=TIMEOUT)
    assert caught.value.facts["fingerprint"] == sshd.host_key_fingerprint
    assert "Accepted publickey" not in sshd.log.read_text().splitlines()[-1]


def test_refused_key(sshd: SSHServer) -> None:
    sshd.authorized = False
    with pytest.raises(AuthenticationFailed):
        get_runner(sshd.config()).execute("true", timeout=TIMEOUT)


def test_a_frozen_machine_ends_at_the_deadline(sshd: SSHServer, settings: Any) -> None:
    settings.RUNNERS_CONNECT_TIMEOUT = 2
    with sshd.frozen():
        started = time.monotonic()
        with pytest.raises(RunnerUnreachable):
            get_runner(sshd.config()).execute("true", timeout=TIMEOUT)
        assert time.monotonic() - started < 10 * PATIENCE


def test_a_broken_pooled_connection_is_replaced(sshd: SSHServer) -> None:
    runner = get_runner(sshd.config())
    runner.execute("true", timeout=TIMEOUT)
    before = sshd.connection_count()
    runner.execute("true", timeout=TIMEOUT)
    assert sshd.connection_count() == before
    sshd.drop_connections()
    assert runner.execute("echo again", timeout=TIMEOUT).stdout == b"again\n"
    assert sshd.connection_count() == before + 1


def test_a_run_survives_its_connection_and_sshd(sshd: SSHServer, account: StubAccount) -> None:
    config = sshd.config()
    key, identity = launch(config, ["sleep", "60"])
    sshd.restart()
    assert probe(config, key, identity).answer == Probe.RUNNING
    sshd.stop()
    assert probe(config, key, identity).answer == Probe.CANNOT_TELL
    assert is_alive(identity.pid)
    sshd.start()
    assert probe(config, key, identity).answer == Probe.RUNNING
    kill_all([identity.pid])


def test_a_server_that_allows_few_sessions(account: StubAccount, make_sshd: Callable[..., SSHServer]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    runner = get_runner(make_sshd(account.home, max_sessions=2).config())
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda number: runner.execute(f"echo {number}", timeout=TIMEOUT).text, range(16)))
    assert results == [f"{number}\n" for number in range(16)]


# --- matching lines of a log ------------------------------------------------------------------------------------------


def test_the_last_of_repeated_lines_is_returned(runner: Runner, account: StubAccount) -> None:
    """Autosubmit prints job counts every few seconds, for days. They must not displace the lines about jobs."""
    folder = account.home / ".autosubmit-runners" / "r1"
    folder.mkdir(parents=True)
    counts = "".join(f"{n} of 9 left\nChecking\n" for n in range(50_000))
    (folder / "log").write_text(f"job a_\u00c9 done\n{counts}job b done\n1 of 9 left\n2 of 9 left\n")
    end = runner.read_end("r1", "done|left", repeated="left", tail=20, jobs=Shell("echo of the jobs"), timeout=TIMEOUT)
    assert end.lines.decode() == "job a_\u00c9 done\n49999 of 9 left\njob b done\n2 of 9 left\n" and end.is_whole
    log = (folder / "log").read_bytes()
    assert end.log and (end.tail, end.log.size) == (log[-20:], len(log))
    assert end.jobs == "of the jobs\n"


def test_lines_beyond_the_limit_are_reported_as_missing(runner: Runner, account: StubAccount, settings: Any) -> None:
    settings.RUNNERS_OUTPUT_LIMIT = 4096
    folder = account.home / ".autosubmit-runners" / "r1"
    folder.mkdir(parents=True)
    (folder / "log").write_text("".join(f"job {n} done\n" for n in range(1000)))
    end = runner.read_end("r1", "done", repeated="left", tail=10, jobs=Shell(":"), timeout=TIMEOUT)
    assert end.lines.endswith(b"job 999 done\n") and len(end.lines) == 4096 * 5 // 8 and not end.is_whole


def test_the_end_of_a_run_without_a_log_is_empty(runner: Runner) -> None:
    end = runner.read_end("r2", "done", repeated="left", tail=10, jobs=Shell("echo of the jobs"), timeout=TIMEOUT)
    assert (end.lines, end.log, end.jobs) == (b"", None, "of the jobs\n")
