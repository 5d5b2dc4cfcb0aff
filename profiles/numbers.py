"""Whole numbers in addresses and forms."""

from __future__ import annotations

import re


def number(text: str | None) -> int | None:
    """Return a whole number of at most 15 digits; None for everything else.

    Python refuses to convert thousands of digits, and databases refuse numbers from 2^63 on. JavaScript is exact up to
    15 digits.
    """
    return int(text) if text and re.fullmatch(r"[0-9]{1,15}", text) else None
