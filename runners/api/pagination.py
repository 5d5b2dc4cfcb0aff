"""Pagination by cursor: a page begins after the run whose number its cursor holds, so new runs do not move it."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any
from urllib.parse import urlencode

from rest_framework.exceptions import ValidationError

PAGE_SIZE, LARGEST_PAGE_SIZE = 50, 500


def cursor_of(number: int) -> str:
    """Return the cursor of the next page: an opaque text that holds the number of the last run on this page."""
    return base64.urlsafe_b64encode(f"run {number}".encode()).decode().rstrip("=")


def number_of(cursor: str) -> int:
    """Return the number that a cursor holds. Raises ValidationError for a text that `cursor_of` has not made."""
    try:
        text = base64.urlsafe_b64decode(cursor.encode("ascii") + b"==").decode("ascii")
        found = re.fullmatch(r"run (\d{1,18})", text, re.ASCII)
    except (binascii.Error, ValueError):
        found = None
    if not found:
        raise ValidationError("Invalid cursor. Give the next_cursor of a page, unchanged, or leave it out.")
    return int(found[1])


def next_link(path: str, query: dict[str, Any], cursor: str) -> str:
    return f"{path}?{urlencode(query | {'cursor': cursor})}"
