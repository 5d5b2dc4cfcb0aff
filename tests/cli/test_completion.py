"""Completion in the real bash, zsh and fish: with names of a service, hostile names, and a service that hangs."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runners.cli import completion
from runners_project.client_file import build
from tests.support.cli import StrangerHandler, serving
from tests.support.processes import PATIENCE
from tests.support.requirements import need

HOSTILE = "$(touch tripwire);x y"  # the name of a profile
PROFILES = {"CLUSTER": {"RUNNER_TYPE": "SSH"}, HOSTILE: {"RUNNER_TYPE": "LOCAL"}, "bad\nname": {}, "bad\x1b[2J": {}}
RUNS = {
    "results": [
        {"expid": "a001", "runner_id": 7, "status": "ACTIVE"},
        {"expid": "a002", "runner_id": 3, "status": "COMPLETED"},
    ]
}
JOBS = {"results": [{"name": "a001_SIM", "status": "FAILED"}]}
FILES = {"files": [{"path": "jobs_a001.yml"}]}


class Handler(StrangerHandler):
    def do_GET(self) -> None:
        answers = (("profiles", PROFILES), ("/jobs", JOBS), ("/config", FILES), ("/runs", RUNS))
        body = next((answer for word, answer in answers if word in self.path), {})
        self.reply(json.dumps(body).encode())


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(Handler) as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the program `asr` as one file, in which the shells work."""
    path = tmp_path_factory.mktemp("completion")
    (path / "bin").mkdir()
    program = path / "bin/asr"
    program.write_bytes(build().replace(b"/usr/bin/env python3", sys.executable.encode(), 1))
    program.chmod(0o755)
    for shell in completion.SHELLS:
        done = subprocess.run([program, "completion", shell], capture_output=True, check=True, env={"HOME": str(path)})
        (path / f"asr.{shell}").write_bytes(done.stdout)
    return path


def environment(folder: Path, url: str) -> dict[str, str]:
    search = f"{folder / 'bin'}:{os.environ['PATH']}"
    return {
        "PATH": search,
        "HOME": str(folder),
        "TERM": "dumb",
        "LC_ALL": "C.UTF-8",
        "AUTOSUBMIT_RUNNERS_URL": url,
        "AUTOSUBMIT_RUNNERS_TOKEN": "asr_x",
    }


def bash(folder: Path, url: str, line: str) -> list[str]:
    """Return the candidates of bash for the end of a line. The words are separated by one blank."""
    script = (
        f'source {folder}/asr.bash; COMP_WORDS=({line}); [[ "$1" == *" " ]] && COMP_WORDS+=(""); '
        'COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _asr; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script, "bash", line],
        env=environment(folder, url),
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=60 * PATIENCE,
    )
    return done.stdout.split("\n")[:-1] if done.stdout.strip() else []


def fish(folder: Path, url: str, line: str) -> list[str]:
    need(shutil.which("fish"), "fish")
    script = f"source {folder}/asr.fish; complete -C '{line}'"
    done = subprocess.run(
        ["fish", "--no-config", "-c", script],
        env=environment(folder, url),
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=60 * PATIENCE,
    )
    return [each.split("\t")[0] for each in done.stdout.splitlines()]


def zsh(folder: Path, url: str, line: str, expected: str) -> str:
    """Return what an interactive zsh shows after the line and two tabs, until it shows `expected`."""
    need(shutil.which("zsh"), "zsh")
    start = f"PS1=; autoload -Uz compinit; compinit -u; source {folder}/asr.zsh; print READY\n"
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.execve(shutil.which("zsh") or "", ["zsh", "-f", "-i"], {**environment(folder, url), "TERM": "vt100"})
    shown = b""

    def read_until(word: bytes, seconds: float) -> None:
        nonlocal shown
        deadline = time.monotonic() + seconds * PATIENCE
        while word not in shown and time.monotonic() < deadline:
            if select.select([terminal], [], [], 0.2)[0]:
                try:
                    shown += os.read(terminal, 65_536)
                except OSError:
                    break

    try:
        os.write(terminal, start.encode())
        read_until(b"\nREADY", 20)
        shown = b""
        os.write(terminal, f"{line}\t\t".encode())
        read_until(expected.encode(), 30)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.close(terminal)
    return shown.decode(errors="replace")


@pytest.mark.parametrize("shell", [bash, fish])
def test_commands_options_and_names_are_completed(shell: object, folder: Path, url: str) -> None:
    def candidates(line: str) -> list[str]:
        return shell(folder, url, line)  # type: ignore[operator]

    assert {"run", "run-again", "runs"} == set(candidates("asr run"))
    assert candidates("asr status a") == ["a001", "a002"]
    (folder / "local.yml").touch()
    if shell is fish:
        assert "local.yml" in candidates("asr config put --profile CLUSTER a001 jobs_a001.yml loc")
        return
    assert "--lines" in candidates("asr log a001 --l")
    assert candidates("asr run --profile CL") == ["CLUSTER"]
    assert candidates("asr job-log a001 a001") == ["a001_SIM"]
    assert candidates("asr config ed") == ["edit"]
    assert candidates("asr config get --profile CLUSTER a001 j") == ["jobs_a001.yml"]
    assert candidates("asr set-status --profile CLUSTER a001 REA") == ["READY"]
    assert candidates("asr completion z") == ["zsh"]
    assert candidates("asr --url http://x stat") == ["status"]
    assert candidates("asr nosuch a") == []
    assert candidates("asr archiv") == ["archive"]  # one name of each command


def test_zsh_completes(folder: Path, url: str) -> None:
    for line, expected in (
        ("asr status a", "a002"),
        ("asr jo", "job-log"),
        ("asr run --run", "--run-only-members"),
    ):
        assert expected in zsh(folder, url, line, expected)


def test_a_hostile_name_is_quoted_and_never_executed(folder: Path, url: str) -> None:
    found = bash(folder, url, "asr run --profile ")
    assert "CLUSTER" in found
    assert len(found) == 2  # names with control characters are left out
    quoted = next(each for each in found if each != "CLUSTER")
    done = subprocess.run(["bash", "-c", f"printf %s {quoted}"], capture_output=True, text=True, cwd=folder)
    assert done.stdout == HOSTILE
    assert "touch" in zsh(folder, url, "asr run --profile ", "tripwire")
    assert not (folder / "tripwire").exists()


def test_a_service_that_hangs_costs_two_seconds_and_shows_nothing(folder: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        start = time.monotonic()
        assert bash(folder, f"http://127.0.0.1:{silent.getsockname()[1]}", "asr status a") == []
        assert time.monotonic() - start < (completion.SECONDS + 5) * PATIENCE
    assert bash(folder, "http://127.0.0.1:1", "asr status a") == []
    assert "status" in bash(folder, "", "asr stat")  # commands need no service


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_are_valid(shell: str, folder: Path) -> None:
    need(shutil.which(shell), shell)
    subprocess.run([shell, "-n", str(folder / f"asr.{shell}")], check=True, timeout=60 * PATIENCE)
