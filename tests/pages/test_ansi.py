"""Terminal output as HTML: colours stay, control characters do not."""

from __future__ import annotations

import pytest

from runners.pages.ansi import PLAIN, Style, to_html


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("plain & <b>", "plain &amp; &lt;b&gt;"),
        ("\x1b[31mred\x1b[0m not", '<span class="fg1">red</span> not'),
        ("\x1b[1;92mbright", '<span class="fg10 bold">bright</span>'),
        ("\x1b[38;5;214morange\x1b[39m.", '<span class="fg3">orange</span>.'),
        ("\x1b[38;2;250;5;5mtrue colour", '<span class="fg9">true colour</span>'),
        ("\x1b[33;20m[WARNING]", '<span class="fg3">[WARNING]</span>'),
        ("\x1b[7mturned", '<span class="reverse">turned</span>'),
        ("\x1b[H\x1b[2J\x1b]0;title\x07clear\x1b(B", "clear"),
        ("cut off \x1b[38;5", "cut off "),
        ("50 %\r100 %\r\nnext", "100 %\nnext"),
        ("a\x00b\x08c\u202ed", "abcd"),
        ('\x1b[31m" onmouseover="', '<span class="fg1">&quot; onmouseover=&quot;</span>'),
    ],
)
def test_terminal_output_becomes_harmless_html(text: str, html: str) -> None:
    assert to_html(text)[0] == html


def test_a_colour_goes_on_in_the_next_piece_of_the_log() -> None:
    _, style = to_html("\x1b[1;31mfirst")
    assert to_html("second", Style.decode(style.encode()))[0] == '<span class="fg1 bold">second</span>'


@pytest.mark.parametrize("text", ["", "zz", "f99", "f1" * 50, '"><script>', "f1;b2", "f1."])
def test_an_invalid_style_is_replaced_by_the_plain_one(text: str) -> None:
    assert Style.decode(text) == PLAIN
