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
from django.core.management import get_commands

from runners.web.problems import PROBLEM_TYPES_BY_CODE
from runners_project.database import UNLIMITED
from tests.support.paths import ROOT
from tests.support.processes import PATIENCE
from tools import check_documents

PROMISES = (ROOT / "docs/reliability.md").read_text() + (ROOT / "docs/security.md").read_text()
NAMED = re.findall(r"`(?:tests/)?((?:\w+/)*test_\w+\.py)(?:::(\w+))?`", PROMISES)
DOCUMENTS = check_documents.documents()
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


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_block_of_commands_is_executed_or_has_a_reason(document: Path) -> None:
    faults = [
        f"line {block.line} {block.fault}" for block in check_documents.blocks(document.read_text()) if block.fault
    ]
    assert not faults


def test_a_block_without_a_word_or_with_an_empty_reason_is_a_fault() -> None:
    text = "".join(f"```bash{words}\nls\n```\n" for words in ("", " not-run", ' not-run=""', ' run-by="tests/no.py"'))
    found = check_documents.blocks(text + "```python run\npass\n```\n")
    assert [bool(block.fault) for block in found] == [True, True, True, True, False]
    assert "needs one of" in found[0].fault
    assert "does not exist" in found[3].fault


def test_each_code_has_one_entry_in_the_troubleshooting_with_its_status_and_title() -> None:
    text = (ROOT / "docs/troubleshooting.md").read_text()
    entries = re.findall(r"^### `(\w+)`\n\n(\d+): (.+?)\. (?=\S)", text, re.MULTILINE)
    assert len(entries) == len({code for code, *_ in entries}) == text.count("\n### ")
    registered = {(type_.code, str(type_.status), type_.title) for type_ in PROBLEM_TYPES_BY_CODE.values()}
    assert set(entries) == registered


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


def test_our_commands_without_a_limit_for_statements_are_documented() -> None:
    ours = {name for name, app in get_commands().items() if app in ("runners", "profiles")}
    row = re.search(r"^\| `DATABASE_STATEMENT_TIMEOUT` .+", (ROOT / "docs/configuration.md").read_text(), re.MULTILINE)
    assert row and ours & UNLIMITED
    assert ours & UNLIMITED <= set(re.findall(r"`([a-z_]+)`", row[0]))


def test_the_documented_server_starts_and_lets_every_command_end() -> None:
    document = (ROOT / "docs/deployment.md").read_text()
    found = re.search(r"^gunicorn (.+)$", document, re.MULTILINE)
    assert found
    words = found[1].split()
    graceful = float(words[words.index("--graceful-timeout") + 1])
    assert graceful > max(settings.RUNNERS_COMMAND_TIMEOUT, settings.RUNNERS_CANCEL_TIMEOUT)
    proxy = re.search(r"proxy_read_timeout (\d+)s", document)
    assert proxy and float(proxy[1]) <= graceful
    assert "--no-control-socket" in words
    environment = {**os.environ, "SECRET_KEY": "of the test run, signs nothing of value"}
    environment["DJANGO_SETTINGS_MODULE"] = "runners_project.settings"
    argv = [sys.executable, "-m", "gunicorn", "--check-config", *words]
    done = subprocess.run(
        argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60 * PATIENCE
    )
    assert done.returncode == 0, done.stderr
