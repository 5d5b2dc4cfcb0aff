"""The wheel in clean virtual environments: the command line without dependencies, and the service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.environments import StubAccount
from tests.support.paths import ROOT
from tests.support.processes import PATIENCE, end, free_port, is_listening, start, wait_for

PROFILE = "RUNNER_CONFIGURATION: {PROFILES: {HERE: {RUNNER_TYPE: LOCAL, MODULE_LOADER_TYPE: NO_MODULE}}}\n"


def run(*argv: str | Path, cwd: Path, env: dict[str, str], code: int = 0) -> str:
    """Run a command and return its output. AssertionError if it does not end with `code`."""
    done = subprocess.run(
        [str(word) for word in argv],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=90 * PATIENCE,
    )
    assert done.returncode == code, f"{argv} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@dataclass(frozen=True)
class Installed:
    """A virtual environment with the wheel, used from a directory outside of the checkout."""

    venv: Path
    cwd: Path
    env: dict[str, str]

    def __call__(self, program: str, *arguments: str | Path, code: int = 0) -> str:
        return run(self.venv / "bin" / program, *arguments, cwd=self.cwd, env=self.env, code=code)


Install = Callable[..., Installed]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the tracked files: the checkout may be read-only, and may hold old builds."""
    source = tmp_path_factory.mktemp("source")
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    subprocess.run(
        ["tar", "--create", "--null", "--files-from=-", f"--file={source}.tar"],
        **{"cwd": ROOT, "input": files.stdout, "text": True, "check": True, "timeout": 60},
    )
    subprocess.run(["tar", "--extract", f"--file={source}.tar"], cwd=source, check=True, timeout=60)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(source / "dist")]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(source)], check=True, timeout=100 * PATIENCE)
    (found,) = (source / "dist").glob("*.whl")
    return found


@pytest.fixture(scope="module")
def install(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Install:
    """A function that installs the wheel with these extras into a new virtual environment."""

    def install(extras: str, *options: str) -> Installed:
        folder = tmp_path_factory.mktemp("installed")
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True, timeout=60 * PATIENCE)
        argv = [folder / "venv/bin/python", "-m", "pip", "install", "--quiet", *options, f"{wheel}{extras}"]
        subprocess.run([str(word) for word in argv], check=True, timeout=110 * PATIENCE)
        cwd = folder / "work"
        cwd.mkdir()
        env = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
        return Installed(folder / "venv", cwd, {**env, "HOME": str(cwd)})

    return install


def test_the_wheel_alone_is_the_command_line_without_dependencies(install: Install) -> None:
    client: Installed = install("", "--no-index")
    assert client("autosubmit-runners", "--help").startswith("usage: autosubmit-runners ")
    assert "--wait" in client("autosubmit-runners", "run", "--help")  # from the bundled list of commands
    assert "AUTOSUBMIT_RUNNERS_URL" in client("autosubmit-runners", "status", "a000", code=2)
    assert "autosubmit-runners[server]" in client("autosubmit-runners-server", "migrate", code=1)


@pytest.mark.timeout(400)
def test_the_extra_server_is_the_whole_service(install: Install, account: StubAccount) -> None:
    server: Installed = install("[server]")
    port = free_port()
    client_env = {"AUTOSUBMIT_RUNNERS_URL": f"http://127.0.0.1:{port}"}
    settings = {"SECRET_KEY": "of the test run, signs nothing of value", **client_env}
    settings |= {"HOME": str(account.home), "PATH": f"{account.programs}:{server.env['PATH']}"}
    server.env.update(settings)
    (server.cwd / "profiles.yml").write_text(PROFILE)

    manage = "autosubmit-runners-server"
    server(manage, "migrate", "--verbosity=0")
    assert "HERE" in server(manage, "import-profiles", "profiles.yml")
    server.env["DJANGO_SUPERUSER_PASSWORD"] = "of-the-test-run-4711"
    server(manage, "createsuperuser", "--no-input", "--username=ana", "--email=ana@example.org")
    words = server(manage, "create-token", "ana").split()
    token = max((word for word in words if word.startswith("asr_")), key=len)  # the shorter one is cut
    account.experiment("a000")
    assert "static files copied" in server(manage, "collectstatic", "--no-input")
    program = str(server.venv / "bin" / manage)
    processes = [
        start([program, *arguments], log=server.cwd / f"{arguments[0]}.log", env=server.env, cwd=server.cwd)
        for arguments in (["serve", f"--bind=127.0.0.1:{port}", "--workers=1"], ["worker", "--interval=0.5"])
    ]
    try:
        wait_for(lambda: is_listening(port), 60, what="the service")
        wait_for(lambda: json.loads(read(port, "/readyz"))["watch_age"] is not None, 60, what="the watch")
        server.env["AUTOSUBMIT_RUNNERS_TOKEN"] = token
        assert "COMPLETED" in server("autosubmit-runners", "run", "--profile=HERE", "a000", "--wait")
        assert "pages.css" in read(port, "/login")
    finally:
        for process in processes:
            end(process, patience=15)
    packages = next((server.venv / "lib").glob("*/site-packages"))  # nothing was written beside the code
    assert not [name for name in ("db.sqlite3", "staticfiles") if (packages / name).exists()]
    assert (server.cwd / "db.sqlite3").is_file()


def read(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30 * PATIENCE) as answer:
        text: str = answer.read().decode()
    return text
