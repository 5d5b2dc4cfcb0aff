"""The client as one file: reproducible, served by the service, and run by old and new interpreters without packages."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from django.test import Client

from runners.cli import __version__
from runners_project import __version__ as version_of_service
from runners_project.client_file import build
from tests.support.paths import ROOT
from tests.support.processes import PATIENCE


def execute(program: Path, *words: str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    """Run the file with only the standard library, in an environment that has nothing."""
    return subprocess.run(
        [python, "-S", "-E", str(program), *words],
        env={"PATH": os.defpath, "HOME": str(program.parent)},
        cwd=program.parent,
        capture_output=True,
        text=True,
        timeout=60 * PATIENCE,
    )


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("zipapp") / "asr"
    subprocess.run(["make", "-s", "zipapp", f"PYTHON={sys.executable}"], cwd=ROOT, check=True, timeout=60 * PATIENCE)
    shutil.copy(ROOT / "dist/asr", path)
    return path


def test_the_same_source_gives_the_same_file(program: Path) -> None:
    digests = {hashlib.sha256(each).hexdigest() for each in (program.read_bytes(), build())}
    assert len(digests) == 1
    assert program.read_bytes().startswith(b"#!/usr/bin/env python3\n")
    assert os.access(ROOT / "dist/asr", os.X_OK)


def test_the_file_runs_without_packages_and_has_its_data(program: Path) -> None:
    assert execute(program, "--version").stdout == f"asr {__version__}\n"
    assert "--filter-status" in execute(program, "set-status", "--help").stdout  # of the bundled commands
    assert "complete -F _asr asr" in execute(program, "completion", "bash").stdout
    refused = execute(program, "runs")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "asr login --url" in refused.stderr


def old_interpreters() -> list[str]:
    """Return the oldest and the newest other interpreters of this machine, each of which is supported."""
    found = [shutil.which(f"python3.{minor}") for minor in (8, 9, 10, 12, 13, 14)]
    usable = []
    for each in filter(None, found):
        done = subprocess.run([each, "-c", ""], capture_output=True, timeout=60 * PATIENCE)
        usable += [each] if done.returncode == 0 else []  # a shim of pyenv may have no interpreter
    return [*usable[:1], *usable[-1:]] or [sys.executable]


@pytest.mark.parametrize("python", old_interpreters())
def test_other_interpreters_run_it(program: Path, python: str) -> None:
    assert execute(program, "--version", python=python).stdout == f"asr {__version__}\n"
    for words in (("--help",), ("run", "--help"), ("config", "edit", "--help"), ("settings", "--json")):
        done = execute(program, *words, python=python)
        assert (done.returncode, done.stderr) == (0, ""), words


def test_the_client_has_the_version_of_the_service() -> None:
    assert __version__ == version_of_service


@pytest.mark.django_db
def test_the_service_serves_the_file(client: Client) -> None:
    response = client.get("/docs/asr")
    assert hashlib.sha256(response.content).digest() == hashlib.sha256(build()).digest()
    assert 'filename="asr"' in response["Content-Disposition"]
    assert client.post("/docs/asr").status_code == 405
