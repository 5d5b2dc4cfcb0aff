"""Everything that the documents name exists."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from django.conf import settings

from tests.support.paths import ROOT
from tests.support.processes import PATIENCE

PROMISES = (ROOT / "docs/reliability.md").read_text() + (ROOT / "docs/security.md").read_text()
NAMED = re.findall(r"`(?:tests/)?((?:\w+/)*test_\w+\.py)(?:::(\w+))?`", PROMISES)
LINKS = [
    (document, target)
    for document in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for target in re.findall(r"\]\((?!https?:|#|/)([^)#\s]+)", document.read_text())
]


PARSERS: dict[str, Callable[[str], object]] = {"yaml": yaml.safe_load, "toml": tomllib.loads, "json": json.loads}
BLOCKS = [
    pytest.param(language, text, id=f"{document.name}-{number}")
    for document in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for number, (language, text) in enumerate(
        re.findall(r"^```(yaml|toml|json)\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)
    )
]


@pytest.mark.parametrize(("language", "text"), BLOCKS)
def test_a_block_of_code_can_be_parsed(language: str, text: str) -> None:
    assert PARSERS[language](text)


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_test_that_shows_a_promise_exists(file: str, name: str) -> None:
    text = (ROOT / "tests" / file).read_text()
    assert not name or f"\ndef {name}(" in text


@pytest.mark.parametrize(("document", "target"), LINKS, ids=lambda value: str(value).rpartition("/")[2])
def test_a_linked_file_exists(document: Path, target: str) -> None:
    assert (document.parent / target).exists()


def test_every_environment_variable_is_documented_and_every_documented_one_is_read() -> None:
    tree = ast.parse((ROOT / "runners_project/settings.py").read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    read = {
        call.args[0].value
        for call in calls
        if call.func.id.startswith("env") and call.args and isinstance(call.args[0], ast.Constant)
    }
    assert len(read) > 40
    rows = re.findall(r"^\| (`.+?) \|", (ROOT / "docs/configuration.md").read_text(), re.MULTILINE)
    documented = {name for row in rows for name in re.findall(r"`([A-Z][A-Z0-9_]+)`", row)}
    assert documented == read


def test_the_documented_server_starts_and_lets_every_command_end() -> None:
    readme = (ROOT / "README.md").read_text()
    found = re.search(r"^gunicorn (.+)$", readme, re.MULTILINE)
    assert found
    words = found[1].split()
    graceful = float(words[words.index("--graceful-timeout") + 1])
    assert graceful > max(settings.RUNNERS_COMMAND_TIMEOUT, settings.RUNNERS_CANCEL_TIMEOUT)
    proxy = re.search(r"proxy_read_timeout (\d+)s", readme)
    assert proxy and float(proxy[1]) <= graceful
    assert "--no-control-socket" in words
    environment = {**os.environ, "SECRET_KEY": "of the test run, signs nothing of value"}
    environment["DJANGO_SETTINGS_MODULE"] = "runners_project.settings"
    argv = [sys.executable, "-m", "gunicorn", "--check-config", *words]
    done = subprocess.run(
        argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60 * PATIENCE
    )
    assert done.returncode == 0, done.stderr
