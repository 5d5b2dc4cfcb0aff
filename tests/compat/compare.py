"""The definition of a difference between two replies.

A reply differs in the class of the status, a missing member, the type of a member, or the values that clients compare
with words that they know. Members that only our service has are not differences, because today's clients do not read
them. `additions` lists them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tests.compat.client import Reply

# Members whose value is a word that clients know, or a sentence that they show.
WORDS = frozenset(
    {"message", "status", "runner", "module_loader", "modules", "preferred_username", "user_id", "ENABLED"}
    | {"description", "access-control-allow-origin"}  # members that cases put into their replies
)
TYPES: dict[type, str] = {
    str: "text",
    bool: "true/false",
    int: "number",
    float: "number",
    list: "list",
    dict: "object",
    type(None): "null",
}


def differences(reference: Reply, ours: Reply) -> list[str]:
    """Return the differences as texts, `what: there -> here`."""
    found = []
    if reference.status // 100 != ours.status // 100:
        found.append(f"HTTP status: {reference.status} -> {ours.status}")
    is_error = reference.status >= 400 or ours.status >= 400
    if is_error and found:  # the bodies are of different kinds
        return found
    found += _bodies(reference.body, ours.body, "", is_error)
    return found


def _bodies(there: Any, here: Any, path: str, is_error: bool) -> Iterator[str]:
    name = path.rpartition(".")[2]
    if TYPES[type(there)] != TYPES[type(here)]:
        yield f"{path or 'body'}: {TYPES[type(there)]} -> {TYPES[type(here)]}"
    elif isinstance(there, dict):
        for key in there:
            below = f"{path}.{key}" if path else key
            if key in here:
                yield from _bodies(there[key], here[key], below, is_error)
            else:
                yield f"{below}: {TYPES[type(there[key])]} -> missing"
    elif isinstance(there, list) and there and here:
        yield from _bodies(there[0], here[0], f"{path}[]", is_error)
    elif not is_error and name in WORDS and there != here:
        yield f"{path}: {there!r} -> {here!r}"


def additions(there: Any, here: Any, path: str = "") -> list[str]:
    """Return the members that only our reply has."""
    if isinstance(there, dict) and isinstance(here, dict):
        found: list[str] = []
        for key in here:
            below = f"{path}.{key}" if path else key
            found += additions(there[key], here[key], below) if key in there else [below]
        return found
    return []


_EXPID = re.compile(r"\b[abt]\d{3}\b")


def neutral(reply: Reply) -> Reply:
    """Return the reply with the same expids for both sides: `a101` and `b101` become EXPID."""

    def walk(value: Any) -> Any:
        if isinstance(value, str):
            return _EXPID.sub("EXPID", value)
        if isinstance(value, dict):
            return {key: walk(item) for key, item in value.items()}
        if isinstance(value, list):
            return [walk(item) for item in value]
        return value

    return Reply(reply.status, walk(reply.body), reply.headers, reply.seconds)
