"""Check the syntax of a configuration file before it is written.

Autosubmit 4 reads YAML; a duplicate key stops it (ruamel.yaml rejects it), and so does a text that is no mapping. Only
events are read: nothing is constructed, no alias is expanded, and no tag means anything. A .conf file of Autosubmit 3
is not checked, because its reader accepts more than any other reader of INI.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from runners.printable import line

MOST_DEPTH = 50
MOST_ALIASES = 200
_NO_LINE_ENDS = {0x2028: " ", 0x2029: " "}  # they end a line in YAML 1.1, which PyYAML reads, but not in 1.2
# libyaml's parser takes a tenth of the time of PyYAML's own. The wheels of PyYAML have libyaml; else use the fallback.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class SyntaxMistake:
    """`line` and `column` count from 1; None if they are not known."""

    words: str
    line: int | None = None
    column: int | None = None


class _Level:
    """An open collection. In a mapping, keys and values alternate."""

    def __init__(self, *, is_mapping: bool) -> None:
        self.is_mapping = is_mapping
        self.is_key = True
        self.keys: set[str] = set()


def mistake_in(path: str, text: str) -> SyntaxMistake | None:
    """Return the first mistake in the text of the file at `path`; None if Autosubmit can read it."""
    if not path.endswith((".yml", ".yaml")):
        return None
    try:
        return _mistake(text.translate(_NO_LINE_ENDS))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = "; ".join(filter(None, [error.context, error.problem])) or "this is not YAML"
        if mark is None:
            return SyntaxMistake(line(words))
        last = text.count("\n") + 1  # libyaml may report the line after the last one
        return SyntaxMistake(line(words), min(mark.line + 1, last), mark.column + 1)
    except yaml.reader.ReaderError as error:
        # libyaml counts bytes, PyYAML characters.
        before = text.encode()[: error.position] if _LOADER is not yaml.SafeLoader else text[: error.position].encode()
        return SyntaxMistake(line(str(error.reason)), before.count(b"\n") + 1)


def _mistake(text: str) -> SyntaxMistake | None:
    levels: list[_Level] = []
    aliases = documents = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                return _at(event, "a second document begins; Autosubmit reads one document")
        elif isinstance(event, yaml.AliasEvent):
            aliases += 1
            if aliases > MOST_ALIASES:
                return _at(event, f"more than {MOST_ALIASES} aliases")
            _count(levels)
        elif isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            is_mapping = isinstance(event, yaml.MappingStartEvent)
            if not levels and not is_mapping and not (isinstance(event, yaml.ScalarEvent) and not event.value):
                return _at(event, "the file has to be a mapping, such as `NAME: value`")
            if found := _duplicate(levels, event):
                return found
            _count(levels)
            if isinstance(event, yaml.CollectionStartEvent):
                levels.append(_Level(is_mapping=is_mapping))
                if len(levels) > MOST_DEPTH:
                    return _at(event, f"nested deeper than {MOST_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            levels.pop()
    return None


def _count(levels: list[_Level]) -> None:
    if levels and levels[-1].is_mapping:
        levels[-1].is_key = not levels[-1].is_key


def _duplicate(levels: list[_Level], event: Any) -> SyntaxMistake | None:
    level = levels[-1] if levels else None
    if level is None or not level.is_mapping or not level.is_key or not isinstance(event, yaml.ScalarEvent):
        return None
    if event.value in level.keys:
        return _at(event, f"duplicate key {line(event.value, 60)!r}")
    level.keys.add(event.value)
    return None


def _at(event: Any, words: str) -> SyntaxMistake:
    return SyntaxMistake(words, event.start_mark.line + 1, event.start_mark.column + 1)
