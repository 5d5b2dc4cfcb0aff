"""No external text costs more than linear time: each path of bench/linear.py, doubled up to its limit."""

from __future__ import annotations

import pytest

from bench.linear import Path, measure, paths
from runners.pages.ansi import to_html
from runners.services.machines.ssh.known_hosts import _is_for

LONGEST = 10.0  # seconds at the limit, on a busy machine; most paths take milliseconds
QUADRATIC = 3.2  # a doubling is 2 for linear work and 4 for quadratic work


@pytest.mark.alone
@pytest.mark.parametrize("path", paths(), ids=lambda path: path.name)
def test_the_work_is_linear_up_to_the_limit(path: Path) -> None:
    steps = measure(path)
    ratios = [step.ratio for step in steps if step.ratio is not None]
    assert steps[-1].seconds < LONGEST, steps
    # One doubling may be disturbed. The mean over all doublings shows the growth of the path.
    assert not ratios or sum(ratios) / len(ratios) < QUADRATIC, steps


@pytest.mark.alone
def test_a_path_that_is_quadratic_is_found() -> None:
    path = Path("quadratic", 2000, lambda n: "x" * n, lambda text: [None for _ in text for _ in text])
    ratios = [step.ratio for step in measure(path) if step.ratio is not None]
    assert ratios and sum(ratios) / len(ratios) > QUADRATIC


@pytest.mark.parametrize(
    ("field", "name", "expected"),
    [
        ("*", "host", True),
        ("h*t", "host", True),
        ("h*t", "ht", True),
        ("h*t", "h", False),
        ("*.example.com", "a.example.com", True),
        ("*.example.com", "example.com", False),
        ("h??t", "host", True),
        ("h??t", "hoost", False),
        ("*a*b*", "xxaxxbxx", True),
        ("*a*b*", "xxbxxaxx", False),
        ("a*a", "a", False),
        ("ab*ba", "aba", False),
        ("[*]:2222", "[host]:2222", True),
        ("[host]:2222", "[host]:2222", True),
        ("[h]*", "host", False),
        ("", "host", False),
        ("**", "host", True),
        ("?*?", "ab", True),
        ("?*?", "a", False),
        ("*,!host", "host", False),
        ("HOST", "host", True),
        ("h.st", "host", False),
    ],
)
def test_patterns_of_known_hosts_work_as_in_openssh(field: str, name: str, expected: bool) -> None:
    assert _is_for(field, name) is expected


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("10%\r50%\r100%\n", "100%\n"),
        ("done\r", "done"),
        ("a\rb\r", "b"),
        ("a\r\nb", "a\nb"),
        ("a\rb\nc\rd", "b\nd"),
        ("\r", ""),
        ("a\r\rb", "b"),
        ("\ra", "a"),
    ],
)
def test_an_overwritten_line_shows_its_last_content(text: str, shown: str) -> None:
    assert to_html(text)[0] == shown


def test_an_unknown_terminal_code_is_not_an_error() -> None:
    assert to_html("\x1b[" + "9" * 10_000 + "mtext\x1b[0;31mred")[0] == 'text<span class="fg1">red</span>'
