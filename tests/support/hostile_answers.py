"""Hypothesis strategies for what a hostile or broken machine answers: random text, and mutations of real answers."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

settings.register_profile(
    "hostile",
    deadline=None,  # the machine of the tests is shared
    database=None,
    phases=[Phase.generate, Phase.shrink],  # explaining a failure takes minutes
    max_examples=int(os.environ.get("HOSTILE_EXAMPLES", "200")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
hostile = settings(settings.get_profile("hostile"))  # of parsers
# Of what writes rows, which takes 0.1 s for each example.
hostile_rows = settings(hostile, max_examples=int(os.environ.get("HOSTILE_EXAMPLES", "40")))

KEY = "0123456789abcdef0123456789abcdef"
IDENTITY = "login1.example.org 5b1f7e1e-3bd0-4a2f-9a50-2f0b5a5f7d11 pid:[4026531836] 4242 987654 4241 987650"
PROBE_LINES = [
    f"{KEY} ended 0.-.1700000000 -",
    f"{KEY} ended 88.-.1700000000 interrupted",
    f"{KEY} ended 137.KILL.1700000000 -",
    f"{KEY} ended 163.RTMIN+1.1700000000 -",
    f"{KEY} running {IDENTITY}",
    f"{KEY} gone {IDENTITY}",
    f"{KEY} rebooted {IDENTITY}",
    f"{KEY} elsewhere login2",
    f"{KEY} starting",
    f"{KEY} never_started",
    f"{KEY} unknown cannot write into /home/x/.autosubmit-runners",
]
LOG_LINES = [f"log 1700000100 {KEY}/log 2048 1700000000", f"log 1700000100 {KEY}/log 0 1700000200"]
WORDS = [
    *("", "-", "0", "1", "-1", "2", "+2", "1_0", "256", "nan", "inf", "-inf", "1e9", "0x10", "١", "²", "NaN", "True"),
    *("2147483648", "4294967296", "9223372036854775807", "9223372036854775808", "9" * 5000, "-" + "9" * 5000),
    *("pid:[1]", "pid:[" + "9" * 300 + "]", "ended", "running", "elsewhere", "unknown", "interrupted", "x" * 100_000),
    *("\n", "\r", "\r\n", "\0", "\x1b[31m", "\x0b", "\x1c", "\x85", "\u2028", "\u202e", "\ufeff", "\ufffd"),
    *("*", "$(id)"),
    f"\n{KEY} ended 0.-.1700000000 -\n",
    f"\r{KEY} ended 0.-.1700000000 -\r",
]
piece = st.one_of(st.sampled_from(WORDS), st.text(max_size=20), st.sampled_from(PROBE_LINES + LOG_LINES))


@st.composite
def mutated(draw: st.DrawFn, originals: list[str]) -> str:
    """One of `originals` after a few changes: words replaced, and pieces inserted, removed, repeated or cut off."""
    text = draw(st.sampled_from(originals))
    for _ in range(draw(st.integers(0, 4))):
        change = draw(st.sampled_from(["word", "insert", "remove", "repeat", "cut"]))
        first = draw(st.integers(0, len(text)))
        last = draw(st.integers(first, min(len(text), first + 40)))
        if change == "word":
            separator = draw(st.sampled_from([" ", ".", "\n"]))
            words = text.split(separator)
            words[draw(st.integers(0, len(words) - 1))] = draw(piece)
            text = separator.join(words)
        elif change == "insert":
            text = text[:first] + draw(piece) + text[first:]
        elif change == "remove":
            text = text[:first] + text[last:]
        elif change == "repeat":
            text = text[:last] + text[first:last] * draw(st.integers(1, 50)) + text[last:]
        else:
            text = text[:first]
    return text


def answers_like(originals: list[str]) -> st.SearchStrategy[str]:
    return st.one_of(mutated(originals), st.text(max_size=200))


def bytes_like(originals: list[str]) -> st.SearchStrategy[bytes]:
    """Also what is not valid UTF-8."""
    return st.one_of(
        answers_like(originals).map(lambda text: text.encode("utf-8", "surrogatepass")), st.binary(max_size=200)
    )
