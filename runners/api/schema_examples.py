"""The document's examples: answers that the service gave to tests/test_examples.py (`make examples` records them)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("examples.json")

# By operation, then "request" or the answer's status, then name; the name of an error is its code.
Examples = dict[str, dict[str, dict[str, Any]]]


def recorded() -> Examples:
    """All of them; none before the first recording."""
    examples: Examples = json.loads(FILE.read_text()) if FILE.exists() else {}
    return examples
