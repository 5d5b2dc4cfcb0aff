"""The difference between two contents of a configuration file, without its secrets: for the audit log and for people.

A value is a secret if the last part of its key looks like one, wherever the key stands in the line. So are the lines
below such a key that are indented more, and the user and the password of an address. What other keys hold is shown.
"""

from __future__ import annotations

import re
from difflib import SequenceMatcher

from runners.printable import MASK, text, without_credentials

MOST_LINES = 3000  # of both contents, between the first and the last changed line; the time grows with their product
MOST_CHARACTERS = 100_000
CONTEXT = 3  # lines
LINE = 400  # characters
_SECRET = re.compile(
    r"""((?<![\w.-])[\w.-]*(?:passw|passphrase|passcode|pwd|token|secret|credential|key|authorization)[\w.-]*["']?\s*
    (?::(?=\s|$|["'])|=)).*""",
    re.IGNORECASE | re.VERBOSE,
)


def masked(old: str, new: str, path: str) -> str:
    """Return a unified diff of two contents, with secrets masked; empty if they are equal.

    A changed secret is visible as a changed line whose value is masked on both sides.
    """
    if old == new:
        return ""
    before, after = old.split("\n"), new.split("\n")
    head = 0
    while head < min(len(before), len(after)) and before[head] == after[head]:
        head += 1
    tail = 0
    while tail < min(len(before), len(after)) - head and before[-1 - tail] == after[-1 - tail]:
        tail += 1
    removed, added = len(before) - head - tail, len(after) - head - tail
    header = f"--- conf/{path}\n+++ conf/{path}"
    if removed + added > MOST_LINES:
        return f"{header}\n@@ line {head + 1}: {removed} lines became {added} lines @@"
    start = max(0, head - CONTEXT)
    first, last = (
        before[start : len(before) - max(0, tail - CONTEXT)],
        after[start : len(after) - max(0, tail - CONTEXT)],
    )
    shown_before, shown_after = _mask(before)[start:], _mask(after)[start:]
    lines = [header]
    for group in SequenceMatcher(None, first, last, autojunk=True).get_grouped_opcodes(CONTEXT):
        (_, i1, _, j1, _), (_, _, i2, _, j2) = group[0], group[-1]
        lines.append(f"@@ -{start + i1 + 1},{i2 - i1} +{start + j1 + 1},{j2 - j1} @@")
        for kind, a1, a2, b1, b2 in group:
            if kind == "equal":
                lines += [f" {each}" for each in shown_before[a1:a2]]
            else:
                lines += [f"-{each}" for each in shown_before[a1:a2]]
                lines += [f"+{each}" for each in shown_after[b1:b2]]
    return text("\n".join(lines), MOST_CHARACTERS)


def _mask(lines: list[str]) -> list[str]:
    """Return the lines with secrets replaced, printable and short."""
    shown = []
    secret: int | None = None  # the indentation of the secret key whose value continues below it
    for each in lines:
        indentation = len(each) - len(each.lstrip(" \t"))
        if secret is not None and (not each.strip() or indentation > secret):
            shown.append(f"{each[:indentation]}{MASK}" if each.strip() else each)
            continue
        secret = None
        cut = each if len(each) <= LINE else f"{each[:LINE]}…"
        found = _SECRET.search(cut)
        if found and not each.lstrip().startswith("#"):
            secret = indentation
        shown.append(f"{cut[: found.end(1)]} {MASK}" if found else without_credentials(cut))
    return [text(each, LINE + len(MASK) + 2) for each in shown]
