"""The log of a run through the API: pieces, tail, plain text, and machines that do not answer."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone

from profiles.config import RunnerConfig
from runners.models import RunnerRun
from tests.support.api import Api
from tests.support.environments import StubAccount
from tests.support.processes import wait_for
from tests.support.rows import ended_runs
from tests.support.runs import end_of, start
from tests.support.servers import SSHServer

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("open_to_all")]


RUNS = "/v4/runners/runs"


def follow(api: Api, path: str, limit: int) -> tuple[str, int]:
    """Read a log to its end as a client does. Return its text and the number of reads."""
    text, offset, reads = "", 0, 0
    while True:
        chunk = api.get(f"{path}?offset={offset}&limit={limit}")
        assert chunk["offset"] == offset
        text, offset, reads = text + chunk["text"], chunk["next_offset"], reads + 1
        if chunk["ended"]:
            assert offset == chunk["size"]
            return text, reads


@pytest.mark.parametrize("limit", [16, 17, 18, 19, 100_000])
def test_a_log_is_read_to_its_end_without_cutting_a_character(
    api: Api, account: StubAccount, config_of: Callable[[str], RunnerConfig], limit: int
) -> None:
    words = "ñandú 🐈 日本語 " * 5
    run = end_of(start(account, config_of("NO_MODULE"), PRINT=words))
    text, _ = follow(api, f"{RUNS}/{run.pk}/log", limit)
    assert words in text
    assert "\ufffd" not in text
    assert "Run successful" in text


def test_a_live_log_has_not_ended_though_all_of_it_is_read(api: Api, account: StubAccount, settings: Any) -> None:
    settings.RUNNERS_STATUS_FRESHNESS = 0.05
    run = start(account, account.config(), PRINT="first words", SLEEP=2)
    path = f"{RUNS}/{run.pk}/log"
    wait_for(lambda: "first words" in api.get(path)["text"], 20)
    chunk = api.get(path)
    assert (chunk["next_offset"], chunk["ended"]) == (chunk["size"], False)
    last = wait_for(lambda: (now := api.get(f"{path}?offset={chunk['next_offset']}"))["ended"] and now, 20)
    assert "Run successful" in last["text"]
    assert "first words" not in last["text"]


def test_a_log_can_be_read_as_plain_text(api: Api, account: StubAccount) -> None:
    run = end_of(start(account, account.config(), PRINT="ñ"))
    response = api.client.get(f"{RUNS}/{run.pk}/log", headers={"Accept": "text/plain"})
    assert response["Content-Type"] == "text/plain; charset=utf-8"
    assert "ñ" in response.content.decode()
    size = str(len(response.content))
    assert (response["X-Log-Offset"], response["X-Log-Next-Offset"], response["X-Log-Size"]) == ("0", size, size)
    assert response["X-Log-Ended"] == "true"


def test_bytes_come_as_base64_and_bad_ones_as_replacement_characters(api: Api, account: StubAccount) -> None:
    run = end_of(start(account, account.config()))
    log = account.home / ".autosubmit-runners" / run.key / "log"
    log.write_bytes(b"\xff\xfe\x80good\n\xe6\x97")  # the last character is never completed
    chunk = api.get(f"{RUNS}/{run.pk}/log?encoding=base64")
    assert base64.b64decode(chunk["data"]) == log.read_bytes()
    assert chunk["text"] is None
    text, _ = follow(api, f"{RUNS}/{run.pk}/log", 16)
    assert text == "\ufffd\ufffd\ufffdgood\n\ufffd"


def test_the_tail_begins_with_a_whole_character(api: Api, account: StubAccount) -> None:
    run = end_of(start(account, account.config()))
    log = account.home / ".autosubmit-runners" / run.key / "log"
    log.write_text("🐈" * 100)
    for tail in range(16, 20):
        chunk = api.get(f"{RUNS}/{run.pk}/log?tail={tail}")
        assert chunk["text"] == "🐈" * (tail // 4)
        assert (chunk["size"], chunk["next_offset"], chunk["ended"]) == (400, 400, True)


def test_the_tail_is_as_long_as_was_asked(api: Api, account: StubAccount) -> None:
    run = end_of(start(account, account.config(), BYTES=150_000))
    log = account.home / ".autosubmit-runners" / run.key / "log"
    for tail in (70_000, 1_000_000):
        chunk = api.get(f"{RUNS}/{run.pk}/log?tail={tail}")
        assert chunk["text"].encode() == log.read_bytes()[-tail:]
    for beside in ("offset=0", "limit=65536"):
        body = api.get(f"{RUNS}/{run.pk}/log?tail=100&{beside}", expect=400)
        assert "or tail" in body["errors"][beside.partition("=")[0]][0]


def test_an_offset_beyond_the_end_reads_nothing(api: Api, account: StubAccount) -> None:
    run = end_of(start(account, account.config()))
    chunk = api.get(f"{RUNS}/{run.pk}/log?offset=1000000")
    assert (chunk["text"], chunk["ended"]) == ("", True)


def test_a_large_log_comes_whole(api: Api, account: StubAccount) -> None:
    run = end_of(start(account, account.config(), BYTES=3_000_000))
    text, reads = follow(api, f"{RUNS}/{run.pk}/log", 1_000_000)
    assert len(text) > 6_000_000
    assert reads <= 8


@pytest.mark.parametrize("query", ["offset=-1", "limit=15", "limit=1000001", "tail=0", "encoding=hex", "lines=3"])
def test_an_invalid_log_query_is_rejected(api: Api, query: str) -> None:
    (run,) = ended_runs()
    assert api.get(f"{RUNS}/{run.pk}/log?{query}", expect=400)["code"] == "invalid_request"


def test_a_missing_log_is_404(api: Api, account: StubAccount) -> None:
    (run,) = ended_runs()
    assert api.get(f"{RUNS}/{run.pk}/log", expect=404)["code"] == "log_not_found"
    RunnerRun.objects.update(cleaned_at=timezone.now())
    assert api.get(f"{RUNS}/{run.pk}/log", expect=404)["code"] == "log_not_found"


def test_the_log_of_an_unreachable_machine_is_no_empty_log(
    api: Api, account: StubAccount, sshd: SSHServer, settings: Any
) -> None:
    settings.RUNNERS_CONNECT_TIMEOUT = 2
    run = end_of(start(account, sshd.config()))
    sshd.stop()
    assert api.get(f"{RUNS}/{run.pk}/log", expect=502)["code"] == "runner_unreachable"


def test_a_search_answers_lines_and_where_to_continue(api: Api, account: StubAccount) -> None:
    text = "[INFO] Größe 1\n[ERROR] two\n\x1b[31m[CRITICAL] three\x1b[0m\n[INFO] four\n"
    run = end_of(start(account, account.config(), PRINT=text))
    path = f"{RUNS}/{run.pk}/log/search"
    assert api.get(f"{path}?text=GRÖ&ignore_case=true")["matches"] == []  # only A to Z have another case
    (match,) = api.get(f"{path}?text=GRö&ignore_case=true")["matches"]
    assert (match["before"], match["match"], match["after"]) == ("[INFO] ", "Grö", "ße 1")
    errors = api.get(f"{path}?errors=true&limit=1")
    assert [match["match"] for match in errors["matches"]] == ["[ERROR]"]
    rest = api.get(f"{path}?errors=true&offset={errors['resume']}")
    assert [(each["before"], each["match"], each["after"]) for each in rest["matches"]] == [
        ("", "[CRITICAL]", " three")
    ]
    assert rest["resume"] is None
    (last,) = api.get(f"{path}?text=[&before={rest['size']}&limit=1&errors=false")["matches"]
    assert last["line"] > rest["matches"][0]["line"]
    assert last["offset"] > rest["matches"][0]["offset"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "text"),
        ("text=a&errors=true", "text"),
        ("text=", "text"),
        ("text=a%0Ab", "text"),
        ("text=" + "a" * 201, "text"),
        ("errors=true&offset=1&before=2", "offset"),
        ("errors=true&limit=101", "limit"),
        ("errors=yes", "errors"),
        ("text=a&before=-1", "before"),
        ("pattern=a", "pattern"),
    ],
)
def test_a_search_names_the_wrong_field(api: Api, query: str, field: str) -> None:
    (run,) = ended_runs(1)
    answer = api.get(f"{RUNS}/{run.pk}/log/search?{query}", expect=400)
    assert field in answer["errors"]
