"""The examples of the OpenAPI document: responses that tests/api/test_examples.py recorded (`make examples`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("examples.json")

# The keys: the operation, then "request" or the status of the response, then the name. An error's name is its code.
Examples = dict[str, dict[str, dict[str, Any]]]


def recorded() -> Examples:
    """Return all recorded examples; an empty dict before the first recording."""
    examples: Examples = json.loads(FILE.read_text()) if FILE.exists() else {}
    return examples
