"""The search of a log on its machine, over LOCAL and SSH: real files, also huge ones and ones without line ends."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from runners.models import new_run_key
from runners.services.machines.answers import Unreadable
from runners.services.machines.log_search import LogMatches, LogSearch, parse_lines, parse_search
from runners.services.machines.runner import Runner
from runners.services.machines.scripts import SEARCH_BLOCK
from tests.support.contract import TIMEOUT
from tests.support.environments import StubAccount

pytestmark = pytest.mark.django_db
LINES = b"".join(b"line %04d of the log\n" % number for number in range(1, 1001))


def log_with(account: StubAccount, data: bytes) -> tuple[str, Path]:
    key = new_run_key()
    path = account.home / ".autosubmit-runners" / key / "log"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return key, path


def find(runner: Runner, key: str, *texts: str, **values: object) -> LogMatches:
    found = runner.search_log(key, dataclasses.replace(LogSearch(texts), **values), timeout=TIMEOUT)  # type: ignore[arg-type]
    assert found
    return found


def test_matches_have_offset_line_and_context(runner: Runner, account: StubAccount) -> None:
    key, _ = log_with(account, LINES)
    found = find(runner, key, "0010 of")
    (match,) = found.matches
    assert (match.offset, match.length, match.line) == (9 * 21 + 5, 7, 10)
    assert (match.before, match.match, match.after) == (b"line ", b"0010 of", b" the log")
    assert (found.size, found.resume) == (len(LINES), None)
    assert runner.search_log(new_run_key(), LogSearch(("x",)), timeout=TIMEOUT) is None


def test_a_search_goes_on_where_the_last_one_ended(runner: Runner, account: StubAccount) -> None:
    key, _ = log_with(account, LINES)
    first = find(runner, key, "line", most=3)
    assert [match.line for match in first.matches] == [1, 2, 3]
    assert [match.line for match in find(runner, key, "line", most=2, begin=first.resume).matches] == [4, 5]
    last = find(runner, key, "line", most=2, backward=True)
    assert [match.line for match in last.matches] == [999, 1000]
    assert [match.line for match in find(runner, key, "line", most=1, backward=True, end=last.resume).matches] == [998]
    assert find(runner, key, "line", begin=len(LINES) + 5).matches == ()
    assert find(runner, key, "line", end=0, backward=True) == LogMatches(len(LINES), (), None)


@pytest.mark.parametrize("text", ["a.*b", "-e", "it's $HOME `id`", "größe → 試験", "[x", "\\", '"', "@key@", "#end"])
def test_a_text_is_no_pattern_no_option_and_no_shell(runner: Runner, account: StubAccount, text: str) -> None:
    key, _ = log_with(account, f"aXXb\n# {text} #\n".encode())
    (match,) = find(runner, key, text).matches
    assert (match.line, match.match.decode()) == (2, text)


def test_case_and_several_texts(runner: Runner, account: StubAccount) -> None:
    key, _ = log_with(account, b"one ERROR\ntwo error\nthree [critical]\n")
    assert [match.line for match in find(runner, key, "error").matches] == [2]
    assert [match.line for match in find(runner, key, "eRRoR", "[CRITICAL]", ignore_case=True).matches] == [1, 2, 3]


def test_a_match_at_the_border_of_two_blocks_is_found_once(runner: Runner, account: StubAccount) -> None:
    for shift in (-5, -3, 0, 1):
        key, path = log_with(account, b"")
        with path.open("r+b") as file:
            file.seek(SEARCH_BLOCK + shift)
            file.write(b"needle\nend\n")
        for backward in (False, True):
            (match,) = find(runner, key, "needle", backward=backward).matches
            assert (match.offset, match.line, match.after) == (SEARCH_BLOCK + shift, 1, b"")


def test_a_log_of_300_mb_and_one_of_a_single_line(runner: Runner, account: StubAccount) -> None:
    """The files are sparse: real for every program that reads them, and free for the disk of the tests."""
    size = 300 * 1024**2
    key, path = log_with(account, b"[ERROR] first\n")
    with path.open("r+b") as file:
        file.seek(size)
        file.write(b"\nlast needle\n")
    (match,) = find(runner, key, "needle", backward=True).matches
    assert (match.offset, match.before) == (size + 6, b"last ")
    assert match.line in (3, None)  # None: counting took too long on a busy machine
    assert find(runner, key, "[ERROR]").matches[0].line == 1
    key, path = log_with(account, b"x" * (SEARCH_BLOCK + 1000))  # one line, and each of its bytes matches
    found = find(runner, key, "x", most=100, backward=True)
    assert [match.offset for match in found.matches] == list(range(SEARCH_BLOCK + 900, SEARCH_BLOCK + 1000))
    assert len(found.matches[0].before) == 300


def test_lines_are_counted(runner: Runner, account: StubAccount) -> None:
    key, _ = log_with(account, LINES)
    assert runner.count_lines(key, 21 * 500, timeout=TIMEOUT) == 500
    assert runner.count_lines(key, 10**15, timeout=TIMEOUT) == 1000
    assert runner.count_lines(new_run_key(), 5, timeout=TIMEOUT) is None


SEARCH = LogSearch(("ab",), most=2)
GOOD = b"size 100\nmatch 10 2 0 3 eHh4YWJ5\nuntil 100\n#end\n"


def test_the_parser_takes_only_what_fits_the_search() -> None:
    (match,) = parse_search(GOOD, SEARCH).matches
    assert (match.before, match.match, match.after, match.line) == (b"xxx", b"ab", b"y", 1)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"#end\n", b""),
        (b"size 100", b"size -1"),
        (b"size 100", b"size 11"),  # the match is behind the end
        (b"match 10", b"match 2"),  # three bytes before byte 2
        (b"match 10 2", b"match 10 2 0"),
        (b" 3 e", b" 301 e"),
        (b"eHh4YWJ5", b"eHh4YWJ"),
        (b"eHh4YWJ5", b"eHh4"),
        (b"10 2 0", b"10 900 0"),
        (b"until 100", b"until 101"),
        (b"until 100", b"until x"),
        (b"until 100\n", b""),
        (b"size 100\n", b"size 100\nmatch 10 2 0 3 eHh4YWJ5\n"),  # twice the same
        (b"size 100\n", b"size 100\nmatch 1 2 0 0 YWI=\nmatch 5 2 0 0 YWI=\n"),  # more than were asked for
    ],
)
def test_an_answer_that_does_not_fit_is_rejected(old: bytes, new: bytes) -> None:
    with pytest.raises(Unreadable):
        parse_search(GOOD.replace(old, new), SEARCH)


def test_lines_that_were_not_counted_are_not_known() -> None:
    assert parse_lines(b"lines -\n#end\n") is None
    assert parse_lines(b"lines 12\n#end\n") == 12
    for wrong in (b"", b"lines 12\n", b"lines 1\nlines 2\n#end\n", b"lines -3\n#end\n"):
        with pytest.raises(Unreadable):
            parse_lines(wrong)


@pytest.mark.parametrize("values", [{"texts": ()}, {"texts": ("a\nb",)}, {"texts": ("",)}, {"most": 0}, {"begin": -1}])
def test_a_search_beyond_its_bounds_is_not_sent(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="bounds"):
        dataclasses.replace(SEARCH, **values)  # type: ignore[arg-type]
