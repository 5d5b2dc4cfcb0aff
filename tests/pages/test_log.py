"""The log of a run on its page, and its download."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from runners.exceptions import CommandFailed
from runners.models import RunnerRun
from runners.pages.views import run_log
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
    assert (answer["problem"], answer["was_asked"], answer["lines"]) == ("no answer", False, [])
    RunnerRun.objects.update(probing_until=timezone.now() - timedelta(seconds=1))
    answer = browser.get(f"/runs/{row.pk}/log").json()
    assert (answer["problem"], answer["was_asked"], answer["lines"]) == ("", True, [[0, "a line"]])


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
        shown += "".join(html for _, html, *_ in answer["lines"]) + ("" if answer["open"] else "\n")
        start = answer["next"]
    assert shown == "x" * (logs.CHUNK + 1000) + "\nthe next line\n".replace("\nthe", "the")


def log_of(row: RunnerRun, account: StubAccount, data: bytes) -> None:
    log = account.home / ".autosubmit-runners" / row.key / "log"
    log.parent.mkdir(parents=True)
    log.write_bytes(data)


def test_a_jump_shows_the_lines_around_a_byte(browser: Client, account: StubAccount) -> None:
    row = unsaved_run(status="COMPLETED", exit_code=0)
    row.save()
    log_of(row, account, b"".join(b"line %06d\n" % number for number in range(1, 100_001)))  # 1.2 MB
    answer = browser.get(f"/runs/{row.pk}/log?at=600005").json()
    assert answer["start"] <= 600_000 - 7000
    assert answer["next"] > 660_000
    assert [600_000, "line 050001"] in answer["lines"]
    assert browser.get(f"/runs/{row.pk}/log?at=99999999").json()["done"]  # behind the end: the end
    assert browser.get(f"/runs/{row.pk}/log/lines?before=600000").json()["lines"] == 50_000
    assert browser.get(f"/runs/{row.pk}/log/lines").json()["lines"] == 0


def test_a_jump_into_a_line_of_a_megabyte(browser: Client, account: StubAccount) -> None:
    row = unsaved_run(status="COMPLETED", exit_code=0)
    row.save()
    log_of(row, account, "é".encode() * 500_000)
    answer = browser.get(f"/runs/{row.pk}/log?at=500001").json()
    assert answer["start"] < 500_001 < answer["next"]
    assert answer["open"]
    assert all(html == "é" * (len(html)) for _, html, *_ in answer["lines"])
    assert all(len(html) <= 2048 for _, html, *_ in answer["lines"])


def test_a_search_of_a_page(browser: Client, account: StubAccount) -> None:
    row = unsaved_run(status="COMPLETED", exit_code=0)
    row.save()
    log_of(row, account, b"one\ntwo <b>\n[ERROR] three\nTWO\n")

    def find(query: str) -> list[Any]:
        answer = browser.get(f"/runs/{row.pk}/log/search?{query}").json()
        assert not answer["problem"]
        return [(match["line"], match["before"] + match["match"] + match["after"]) for match in answer["matches"]]

    assert find("text=two&limit=9") == [(2, "two <b>"), (4, "TWO")]
    assert find("text=two&from=5") == [(4, "TWO")]
    assert find("text=two&before=20") == [(2, "two <b>")]
    assert find("errors=1") == [(3, "[ERROR] three")]
    assert find("text=%01nothing&limit=x&from=-3") == []
    assert "Type" in browser.get(f"/runs/{row.pk}/log/search?text=%0A").json()["problem"]


def test_a_log_that_is_not_there_is_a_problem_of_the_search(browser: Client, account: StubAccount) -> None:
    row = unsaved_run(status="TERMINATED", reason="never_started")
    row.save()
    for query in ("search?errors=1", "search?reason=1", "lines?before=5"):
        answer = browser.get(f"/runs/{row.pk}/log/{query}").json()
        assert "never started" in answer["problem"] or answer["lines"] is None


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"jobs": {"failed_jobs": ["a001_BAD"]}, "detail": "1 of 2 jobs failed: a001_BAD."}, 3),
        ({"detail": "The database is locked by somebody."}, 4),
        ({"detail": "Nothing of this is in the log."}, 5),
    ],
)
def test_the_reason_of_the_end_leads_to_its_line(
    browser: Client, account: StubAccount, values: dict[str, Any], line: int
) -> None:
    row = unsaved_run(status="TERMINATED", reason="failed", exit_code=1, **values)
    row.save()
    text = b"[ERROR] early\nJob a001_BAD changed from READY to SUBMITTED\nJob a001_BAD changed from RUNNING to FAILED\n"
    log_of(row, account, text + b"The database is locked by somebody.\n[CRITICAL] last\nend\n")
    (match,) = browser.get(f"/runs/{row.pk}/log/search?reason=1").json()["matches"]
    assert match["line"] == line
    raw = browser.get(f"/runs/{row.pk}/log/raw?at=reason")
    assert raw["Content-Type"] == "text/plain; charset=utf-8"
    assert raw["X-Content-Type-Options"] == "nosniff"
    assert b"end" in b"".join(raw.streaming_content)  # type: ignore[attr-defined]


def test_the_raw_log_is_plain_and_of_a_large_log_the_end(
    browser: Client, account: StubAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = unsaved_run(status="COMPLETED", exit_code=0)
    row.save()
    log_of(row, account, b"<script>\x1b[31mred\x1b[0m\n" + b"x" * 300 + b"\nend\n")

    def raw() -> bytes:
        return b"".join(browser.get(f"/runs/{row.pk}/log/raw").streaming_content)  # type: ignore[attr-defined]

    assert raw().startswith(b"<script>red\nxxx")
    monkeypatch.setattr(run_log, "RAW_BYTES", 100)
    log_cache.forget()
    assert raw() == b"[The log from byte 226 on. Download it for the whole log.]\n" + b"x" * 95 + b"\nend\n"
