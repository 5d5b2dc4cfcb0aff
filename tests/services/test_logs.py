"""The one reader of logs: whole lines for viewers, the same rules for each kind of reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from runners.exceptions import LogNotFound, MachineBusy
from runners.models import RunnerRun
from runners.services import log_cache, logs, stopping
from tests.support.environments import StubAccount

pytestmark = pytest.mark.django_db


def make_run(account: StubAccount, log: bytes, **values: Any) -> tuple[RunnerRun, Path]:
    config = account.config()
    values = {"expid": "a001", "runner": config.runner_type, "module_loader": config.module_loader_type, **values}
    row = RunnerRun.objects.create(config=config.as_dict(), **values)
    path = account.home / ".autosubmit-runners" / row.key / "log"
    path.parent.mkdir(parents=True)
    path.write_bytes(log)
    return row, path


def test_a_viewer_gets_whole_lines_and_the_last_one_at_the_end(account: StubAccount) -> None:
    row, path = make_run(account, b"one\ntwo\nthr")
    page = logs.read_lines(row)
    assert (page.data, page.ended) == (b"one\ntwo\n", False)
    assert logs.read_lines(row, offset=page.next_offset).data == b""
    row.status = "COMPLETED"
    page = logs.read_lines(row, offset=page.next_offset)
    assert (page.offset, page.data, page.ended) == (8, b"thr", True)


def test_the_parts_of_a_long_log_begin_with_whole_lines(account: StubAccount) -> None:
    row, path = make_run(account, b"".join(b"line %06d\n" % number for number in range(20_000)))
    last = logs.read_lines(row)
    assert logs.TAIL - 20 < len(last.data) <= logs.TAIL
    assert last.data.startswith(b"line ")
    earlier = logs.read_lines(row, before=last.offset)
    assert earlier.data.startswith(b"line ") and earlier.next_offset == last.offset
    assert logs.read_lines(row, before=0) == logs.LogPage(0, 0, False, b"")


def test_a_line_longer_than_a_part_does_not_stop_a_viewer(account: StubAccount) -> None:
    row, path = make_run(account, b"x" * (logs.CHUNK + 1000) + b"\nend\n")
    page = logs.read_lines(row, offset=0)
    assert len(page.data) == logs.CHUNK
    assert logs.read_lines(row, offset=page.next_offset).data == b"x" * 1000 + b"\nend\n"


def test_no_reader_contacts_the_machine_for_a_removed_log(
    account: StubAccount, client: Client, admin_client: Client, django_user_model: Any
) -> None:
    row, _ = make_run(account, b"still there\n", status="COMPLETED", cleaned_at=timezone.now())
    client.force_login(django_user_model.objects.create_user("ada"))
    with pytest.raises(LogNotFound):
        logs.read(row, limit=100)
    assert "The log was removed on" in client.get(f"/runs/{row.pk}/log").json()["note"]
    assert client.get(f"/runs/{row.pk}/log/download").status_code == 404
    assert client.get(f"/v4/runners/runs/{row.pk}/log").status_code == 404
    assert "still there" not in admin_client.get(f"/admin/runners/runnerrun/{row.pk}/log/").content.decode()


def test_each_reader_says_when_to_ask_a_busy_machine_again(
    account: StubAccount, client: Client, django_user_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*args: object, **kwargs: object) -> None:
        raise MachineBusy("3 requests wait for it.", retry_after=7)

    row, _ = make_run(account, b"a line\n")
    client.force_login(django_user_model.objects.create_user("ada"))
    monkeypatch.setattr(log_cache, "read", busy)
    monkeypatch.setattr(stopping, "stop_experiment", busy)
    answers = [
        client.get(f"/v4/runners/runs/{row.pk}/log"),
        client.get(f"/runs/{row.pk}/log/download"),
        client.post(f"/runs/{row.pk}/stop"),
    ]
    assert [(answer.status_code, answer["Retry-After"]) for answer in answers] == [(503, "7")] * 3
    assert "3 requests wait for it." in client.get(f"/runs/{row.pk}/log").json()["problem"]


def test_a_long_line_without_an_end_is_shown_while_it_grows(account: StubAccount) -> None:
    row, path = make_run(account, b"x" * (logs.UNBROKEN + 1))
    page = logs.read_lines(row)
    assert (page.offset, len(page.data)) == (0, logs.UNBROKEN + 1)
    assert logs.read_lines(row, offset=page.next_offset).data == b""
