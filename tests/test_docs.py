"""What the documents name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROMISES = (ROOT / "docs/reliability.md").read_text() + (ROOT / "docs/security.md").read_text()
NAMED = re.findall(r"`((?:faults/)?test_\w+\.py)(?:::(\w+))?`", PROMISES)
LINKS = [
    (document, target)
    for document in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    for target in re.findall(r"\]\((?!https?:|#|/)([^)#\s]+)", document.read_text())
]


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_test_that_shows_a_promise_exists(file: str, name: str) -> None:
    text = (ROOT / "tests" / file).read_text()
    assert not name or f"\ndef {name}(" in text


@pytest.mark.parametrize(("document", "target"), LINKS, ids=lambda value: str(value).rpartition("/")[2])
def test_a_linked_file_exists(document: Path, target: str) -> None:
    assert (document.parent / target).exists()
