"""What a test needs on the machine."""

from __future__ import annotations

import os

import pytest

REMEDY = "run tools/install-test-tools and tools/autosubmit-venv (`make test` does)"


def need(present: object, what: str) -> None:
    """Skip the test if a tool is missing; in CI, fail it."""
    if not present:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{what} is missing: {REMEDY}")
