"""Convert terminal output to HTML: colours become classes, and all other text is escaped."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe

_SGR = re.compile(r"\x1b\[([0-9;:]*)m")
# Other escape sequences (cursor, screen, window titles), also one that is incomplete at the end of the text.
_OTHER = re.compile(r"\x1b(?:\[[0-?]*[ -/]*(?:[@-~]|$)|\][^\x07\x1b]*(?:\x07|\x1b\\|$)|[ -/]*(?:[0-Z\\^-~]|$))")
# Control characters except tab and line end, and the characters that reorder the text around them.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_STATE = re.compile(r"(?:[fb][0-9]{1,2}|[bdiur])(?:\.(?:[fb][0-9]{1,2}|[bdiur]))*")
LINE_BYTES = 4096  # of a line in one piece
MAX_CODES = 64  # codes of one escape sequence that are read
_LEVELS = (0, 95, 135, 175, 215, 255)  # intensities of the 6x6x6 colour cube
_BASIC = (
    *((0, 0, 0), (205, 0, 0), (0, 205, 0), (205, 205, 0), (0, 0, 238), (205, 0, 205), (0, 205, 205), (229, 229, 229)),
    *((127, 127, 127), (255, 0, 0), (0, 255, 0), (255, 255, 0), (92, 92, 255), (255, 0, 255), (0, 255, 255)),
    (255, 255, 255),
)


@dataclass(frozen=True, slots=True)
class Style:
    """The style that a terminal would use for the next text. Other colours than 0 to 15 become the nearest of these."""

    fg: int | None = None
    bg: int | None = None
    bold: bool = False
    dim: bool = False
    italic: bool = False
    underline: bool = False
    reverse: bool = False

    @property
    def classes(self) -> str:
        fg, bg = (self.bg, self.fg) if self.reverse else (self.fg, self.bg)
        names = [f"fg{fg}"] if fg is not None else []
        names += [f"bg{bg}"] if bg is not None else []
        names += [name for name in ("bold", "dim", "italic", "underline", "reverse") if getattr(self, name)]
        return " ".join(names)

    def encode(self) -> str:
        """Return the style as a short text for the next request, such as `f1.b`; empty for the plain style."""
        words = [f"f{self.fg}"] if self.fg is not None else []
        words += [f"b{self.bg}"] if self.bg is not None else []
        words += [name[0] for name in ("bold", "dim", "italic", "underline", "reverse") if getattr(self, name)]
        return ".".join(words)

    @classmethod
    def decode(cls, text: str) -> Style:
        """Return the style for a text that `encode` returned; the plain style for any other text."""
        if len(text) > 40 or not _STATE.fullmatch(text):
            return PLAIN
        changes: dict[str, Any] = {}
        flags = {"b": "bold", "d": "dim", "i": "italic", "u": "underline", "r": "reverse"}
        for word in text.split("."):
            if word in flags:
                changes[flags[word]] = True
            elif int(word[1:]) < 16:
                changes["fg" if word[0] == "f" else "bg"] = int(word[1:])
        return replace(PLAIN, **changes)

    def after(self, codes: str) -> Style:
        """Return the style after the escape sequence `ESC [ codes m`. Unknown codes change nothing."""
        style = self
        words = codes.replace(":", ";").split(";", MAX_CODES)[:MAX_CODES]
        numbers = [int(code) if code.isdigit() and len(code) <= 3 else 0 for code in words]  # no known code is longer
        position = 0
        while position < len(numbers):
            code = numbers[position]
            position += 1
            if code in (38, 48):
                colour, used = _extended(numbers[position:])
                position += used
                style = replace(style, fg=colour) if code == 38 else replace(style, bg=colour)
            else:
                style = replace(style, **_change(code)) if code else PLAIN
        return style


PLAIN = Style()


def _change(code: int) -> dict[str, Any]:
    if 30 <= code <= 37 or 90 <= code <= 97:
        return {"fg": code - 30 if code < 40 else code - 82}
    if 40 <= code <= 47 or 100 <= code <= 107:
        return {"bg": code - 40 if code < 50 else code - 92}
    changes: dict[int, dict[str, Any]] = {
        1: {"bold": True},
        2: {"dim": True},
        3: {"italic": True},
        4: {"underline": True},
        7: {"reverse": True},
        22: {"bold": False, "dim": False},
        23: {"italic": False},
        24: {"underline": False},
        27: {"reverse": False},
        39: {"fg": None},
        49: {"bg": None},
    }
    return changes.get(code, {})


def _extended(numbers: list[int]) -> tuple[int | None, int]:
    """Return the colour of `5;N` or `2;R;G;B`, and how many numbers were used."""
    match numbers:
        case [5, number, *_]:
            return _nearest(_cube(number)) if number > 15 else number, 2
        case [2, red, green, blue, *_]:
            return _nearest((red, green, blue)), 4
    return None, len(numbers)


def _cube(number: int) -> tuple[int, int, int]:
    number = min(number, 255)
    if number >= 232:
        grey = 8 + 10 * (number - 232)
        return grey, grey, grey
    red, rest = divmod(number - 16, 36)
    return _LEVELS[red], _LEVELS[rest // 6], _LEVELS[rest % 6]


def _nearest(colour: tuple[int, int, int]) -> int:
    return min(range(16), key=lambda i: sum((a - b) ** 2 for a, b in zip(colour, _BASIC[i], strict=True)))


def to_html(text: str, style: Style = PLAIN) -> tuple[SafeString, Style]:
    """Return HTML in which coloured parts are `<span class="fg1 bold">`, and the style at the end of the text.

    All control characters except line ends and tabs are removed. If a line was overwritten with carriage returns, only
    the last version of the line is shown.
    """
    text = text.replace("\r\n", "\n")
    if "\r" in text:
        text = "\n".join(_last_writing(line) for line in text.split("\n"))
    parts: list[str] = []
    position = 0
    for match in _SGR.finditer(text):
        parts.append(_span(text[position : match.start()], style))
        style = style.after(match.group(1))
        position = match.end()
    parts.append(_span(text[position:], style))
    return mark_safe("".join(parts)), style  # noqa: S308  (every part went through `escape`)


def html_lines(data: bytes, offset: int, style: Style = PLAIN) -> tuple[list[list[Any]], Style]:
    """Return the lines of a part of a log, each as `[OFFSET, HTML]`, and the style at the end.

    OFFSET is the byte at which the line begins; `offset` is that of the part. A line of more than LINE_BYTES is divided
    into pieces, so that a browser can show it. Later pieces have a third item, 1.
    """
    lines: list[list[Any]] = []
    whole = data.split(b"\n")
    for line in whole if whole[-1] else whole[:-1]:
        start = 0
        while True:
            end = start + LINE_BYTES
            while end < len(line) and end > start + LINE_BYTES - 4 and line[end] & 0xC0 == 0x80:
                end -= 1  # not within a character
            html, style = to_html(line[start:end].decode("utf-8", "replace"), style)
            lines.append([offset + start, html, *([1] if start else [])])
            start = end
            if start >= len(line):
                break
        offset += len(line) + 1
    return lines, style


def _last_writing(line: str) -> str:
    """Return the part of a line after its last carriage return; a carriage return at the end of the line is ignored."""
    return line[line.rfind("\r", 0, len(line) - 1) + 1 :] if line else line


def _span(text: str, style: Style) -> str:
    harmless = escape(_CONTROL.sub("", _OTHER.sub("", text)))
    if not harmless or not style.classes:
        return harmless
    return f'<span class="{style.classes}">{harmless}</span>'
