"""The bodies for Slack and Mattermost, as a real receiver gets them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runners.models import RunnerRun, RunReason, WebhookEvent
from runners.services import lifecycle, outbox
from runners.webhooks import chat
from runners.webhooks import delivery as webhooks
from tests.support.webhooks import Receiver, active_run, hook

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(
    ("format_", "link"),
    [
        ("slack", "<https://runners.example.org/runs/{}|Open the run>"),
        ("mattermost", "[Open the run](https://runners.example.org/runs/{})"),
    ],
)
def test_a_chat_gets_a_text_with_counts_and_a_link(receiver: Receiver, settings: Any, format_: str, link: str) -> None:
    settings.RUNNERS_PUBLIC_URL = "https://runners.example.org"
    hook(receiver, format=format_)
    run = active_run()
    jobs = {"total": 13, "failed": 1, "not_run": 2, "failed_jobs": ["a001_BAD"]}
    lifecycle.finish_run(run, reason=RunReason.FAILED, exit_code=1, detail="password=hunter2 in a log", jobs=jobs)
    assert webhooks.deliver_due() == webhooks.Round(delivered=1)
    ((_, headers, body),) = receiver.requests
    assert headers["Content-Type"] == "application/json"
    answer = json.loads(body)
    assert list(answer) == ["text"]
    text = answer["text"].replace("\u200b", "").replace("\\", "")
    assert text.startswith(f"Experiment a001: run {run.pk} was terminated.")
    assert "1 of 13 jobs failed: a001_BAD" in text
    assert answer["text"].endswith(link.format(run.pk))
    assert "hunter2" not in answer["text"]


@pytest.mark.parametrize(
    ("restarted", "words"), [(True, "was started again"), (False, "is not started again")], ids=["restarted", "refused"]
)
def test_a_chat_is_told_whether_a_run_was_started_again(receiver: Receiver, restarted: bool, words: str) -> None:
    hook(receiver, format="slack")
    run = active_run()
    outbox.tell(run, WebhookEvent.RESTARTED, restarted=restarted, why="a reason")
    webhooks.deliver_due()
    ((_, _, body),) = receiver.requests
    text = json.loads(body)["text"].replace("\u200b", "")
    assert text.startswith(f"Experiment a001: run {run.pk} {words}.")


HOSTILE = "<!channel> <http://evil|x> & *b* _i_ `c` [x](http://evil) @all @channel ![i](http://evil) # h\n> q"


@pytest.mark.parametrize("format_", ["slack", "mattermost"])
def test_no_text_is_a_control_sequence_or_notifies_everybody(receiver: Receiver, format_: str) -> None:
    hook(receiver, format=format_)
    run = active_run()
    RunnerRun.objects.filter(pk=run.pk).update(host=HOSTILE, started_by=HOSTILE)
    run.refresh_from_db()
    lifecycle.finish_run(run, reason="", exit_code=0)
    webhooks.deliver_due()
    text = json.loads(receiver.requests[0][2])["text"]
    assert "<!channel>" not in text
    assert "<http" not in text.replace("\\<", "")
    if format_ == "mattermost":
        assert "@all" not in text and "@channel" not in text
        assert "](" not in text
    else:
        assert "&lt;!channel&gt;" in text
    assert text.count("\n") == 1


@pytest.mark.parametrize("payload", [{}, {"type": "x"}, {"type": "operation.failed", "data": {"kind": None}}])
def test_any_payload_gives_a_text(payload: dict[str, Any]) -> None:
    assert chat.body_of("slack", payload)["text"]
