"""Pages of a list: the cursor, and the link to the next page."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import urlencode

PAGE, LARGEST_PAGE = 50, 500


def cursor_of(number: int) -> str:
    """Return the cursor of the next page: an opaque text that holds the number of the last run on this page."""
    return base64.urlsafe_b64encode(f"run {number}".encode()).decode().rstrip("=")


def next_link(path: str, query: dict[str, Any], cursor: str) -> str:
    return f"{path}?{urlencode(query | {'cursor': cursor})}"
