"""The table of docs/autosubmit-versions.md. `measured.json` keeps the results, so versions can be run one at a time.

`measured.json`: {version: {"date": "2026-11-25", "rows": {row: {"LOCAL": [cell, remark], "SSH": [cell, remark]}}}}
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.support.environments import ROOT
from tests.versions.outputs import VERSIONS

DOCUMENT = ROOT / "docs" / "autosubmit-versions.md"
MEASURED = Path(__file__).parent / "measured.json"
BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"


def read() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
    return found


def note(version: str, row: str, where: str, cell: str, remark: str) -> None:
    """Store one result. `cell` is the text in the table."""
    measured = read()
    found = measured.setdefault(version, {"rows": {}})
    found["date"] = f"{datetime.now(UTC):%Y-%m-%d}"
    found["rows"].setdefault(row, {})[where] = [cell, remark]
    MEASURED.write_text(json.dumps(measured, indent=1, sort_keys=True) + "\n")


def write(rows: list[str]) -> None:
    """Write the table into the document, between its two marks."""
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    DOCUMENT.write_text(before + BEGIN + _table(rows) + END + after)


def _table(rows: list[str]) -> str:
    measured = read()
    notes: list[str] = []
    lines = [f"| | {' | '.join(VERSIONS)} |", f"|---|{'---|' * len(VERSIONS)}"]
    for row in rows:
        cells = [_cell(measured.get(version, {}).get("rows", {}).get(row, {}), notes) for version in VERSIONS]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    dates = [measured.get(version, {}).get("date", "not run") for version in VERSIONS]
    lines.append(f"| measured | {' | '.join(dates)} |")
    numbered = [f"{number}. {text}" for number, text in enumerate(notes, 1)]
    return "\n".join([*lines, "", *numbered]) + "\n"


def _cell(found: dict[str, list[str]], notes: list[str]) -> str:
    """Return e.g. `OK`, or `OK (3)` with its remark as note 3. LOCAL and SSH share a cell unless they differ."""
    shown = []
    for where, (cell, remark) in sorted(found.items()):
        if remark and remark not in notes:
            notes.append(remark)
        text = f"{cell} ({notes.index(remark) + 1})" if remark else cell
        shown.append((where, text))
    texts = {text for _, text in shown}
    if not texts:
        return "not run"
    return texts.pop() if len(texts) == 1 else ", ".join(f"{where}: {text}" for where, text in shown)
