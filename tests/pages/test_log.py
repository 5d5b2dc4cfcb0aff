"""The log of a run on its page, and its download."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from runners.exceptions import CommandFailed
from runners.models import RunnerRun
from runners.services import log_cache, logs
from runners.services.logs import DOWNLOAD_CHUNK, plain_lines
from runners.services.machines.probe import LogChunk
from tests.support.environments import StubAccount
from tests.support.rows import unsaved_run


def test_a_download_is_plain_text_wherever_the_pieces_are_cut() -> None:
    text = "\x1b[31mrød\x1b[0m\n\x1b[1mtwo\x1b[0m\nlast".encode()
    for size in range(1, len(text)):
        pieces = iter([text[i : i + size] for i in range(0, len(text), size)])
        assert b"".join(plain_lines(pieces)).decode() == "rød\ntwo\nlast"


@pytest.mark.parametrize(
    ("answers", "ends_with"),
    [
        ([(0, 10**18, b"x" * DOWNLOAD_CHUNK)] * 100, "a download ends after"),
        ([(0, 10**18, b"x")], "the machine sends no more data]"),
        ([(0, 10**18, b"")], "the machine sends no more data]"),
        ([(0, DOWNLOAD_CHUNK * 2, b"x" * DOWNLOAD_CHUNK), None], "the log was removed]"),
        ([(0, DOWNLOAD_CHUNK * 2, b"x" * DOWNLOAD_CHUNK), CommandFailed("no disk")], "no disk]"),
        ([(0, DOWNLOAD_CHUNK + 1, b"x" * DOWNLOAD_CHUNK), (0, DOWNLOAD_CHUNK, b"y")], "xy"),
        ([(0, (number + 2) * DOWNLOAD_CHUNK, b"x" * DOWNLOAD_CHUNK) for number in range(100)], "xx"),  # it grows
    ],
)
def test_a_download_ends_whatever_the_machine_answers(
    answers: list[Any], ends_with: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "DOWNLOAD_LIMIT", 10 * DOWNLOAD_CHUNK)
    left = iter(answers)

    def read(run: RunnerRun, *, offset: int, limit: int) -> LogChunk | None:
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        return LogChunk(offset, answer[1], answer[2]) if answer else None  # parse_log rejects any other offset

    monkeypatch.setattr(log_cache, "read", read)
    parts = list(logs.download(unsaved_run()))
    assert sum(map(len, parts)) <= 11 * DOWNLOAD_CHUNK
    assert ends_with in parts[-1].decode().strip() or b"".join(parts).endswith(ends_with.encode())


def test_a_log_without_line_ends_is_sent_in_pieces() -> None:
    pieces = list(plain_lines(iter([b"x" * DOWNLOAD_CHUNK] * 20)))
    assert sum(map(len, pieces)) == 20 * DOWNLOAD_CHUNK
    assert max(map(len, pieces)) <= 2 * 1024**2


def test_a_missing_log_is_explained(browser: Client, account: StubAccount) -> None:
    row = unsaved_run(status="TERMINATED", reason="never_started")
    row.save()
    answer = browser.get(f"/runs/{row.pk}/log").json()
    assert answer["done"]
    assert "never started" in answer["note"]
    download = browser.get(f"/runs/{row.pk}/log/download")
    assert download.status_code == 404
    assert "The log does not exist: the command was never started" in download.content.decode()
    assert f"Back to run {row.pk}" in download.content.decode()


def test_a_probe_of_another_request_does_not_delay_the_log(browser: Client, account: StubAccount) -> None:
    """The log itself is readable. Only the row says that its machine does not answer."""
    row = unsaved_run(
        reachable=False, unreachable_detail="no answer", probing_until=timezone.now() + timedelta(hours=1)
    )
    row.save()
    log = account.home / ".autosubmit-runners" / row.key / "log"
    log.parent.mkdir(parents=True)
    log.write_text("a line\n")
    answer = browser.get(f"/runs/{row.pk}/log").json()
    assert (answer["problem"], answer["was_asked"], answer["html"]) == ("no answer", False, "")
    RunnerRun.objects.update(probing_until=timezone.now() - timedelta(seconds=1))
    answer = browser.get(f"/runs/{row.pk}/log").json()
    assert (answer["problem"], answer["was_asked"], answer["html"]) == ("", True, "a line\n")


@pytest.mark.parametrize("query", ["from=-1", "from=x", "before=1e9", "from=9999999999999999", "style=%22%3E"])
def test_an_invalid_log_request_of_a_page_is_harmless(browser: Client, account: StubAccount, query: str) -> None:
    row = unsaved_run(status="COMPLETED", exit_code=0)
    row.save()
    assert browser.get(f"/runs/{row.pk}/log?{query}").status_code == 200


@pytest.mark.parametrize("status", ["ACTIVE", "COMPLETED"])
def test_a_line_that_is_longer_than_a_response_is_shown_in_pieces(
    browser: Client, account: StubAccount, status: str
) -> None:
    row = unsaved_run(status=status, exit_code=None if status == "ACTIVE" else 0)
    row.save()
    log = account.home / ".autosubmit-runners" / row.key / "log"
    log.parent.mkdir(parents=True)
    log.write_text("x" * (logs.CHUNK + 1000) + "\nthe next line\n")
    shown, start = "", 0
    while start < log.stat().st_size:
        answer = browser.get(f"/runs/{row.pk}/log?from={start}").json()
        assert answer["next"] > start, "the live log does not go on"
        shown, start = shown + answer["html"], answer["next"]
    assert shown == log.read_text()
