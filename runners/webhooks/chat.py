"""The bodies of webhooks for chats: Slack and Mattermost.

Both take `{"text": ...}` at an incoming webhook. Slack reads `&`, `<` and `>` as control characters and has links
`<url|text>`; Mattermost reads Markdown. Source: "Formatting text for app surfaces" and "Sending messages using incoming
webhooks" of Slack's documentation, "Incoming webhooks" of Mattermost's, as of 2026.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from django.conf import settings

from runners import printable
from runners.models import WebhookEvent, WebhookFormat

TEST = "test"  # the type of a test message (trial.py)
LIMIT = 3000  # characters of a message; Slack cuts longer ones
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-.!|~<>])")
_SLACK = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_WORDS = {
    WebhookEvent.COMPLETED: "has completed",
    WebhookEvent.TERMINATED: "was terminated",
    WebhookEvent.NEVER_STARTED: "was never started",
    WebhookEvent.SILENT: "has had no output for longer than its profile allows",
    WebhookEvent.LOG_TOO_LARGE: "has a log that is longer than the limit of the service",
    WebhookEvent.RESTARTED: "was started again",
}


def _slack(words: str) -> str:
    # Without link_names, "@name" notifies nobody. A zero-width space keeps * _ ~ ` from formatting the text.
    return re.sub(r"([*_~`])", "\u200b\\1\u200b", words.translate(_SLACK))


def _mattermost(words: str) -> str:
    # A zero-width space after "@" keeps "@channel" and "@all" from notifying everybody.
    return _MARKDOWN.sub(r"\\\1", words.replace("&", "&amp;")).replace("@", "@\u200b")


def body_of(format_: str, payload: dict[str, Any]) -> dict[str, Any]:
    """Return the body that the chat `format_` expects for the payload of a webhook."""
    escape, linked = _FORMATS[format_]
    data = payload.get("data", {})
    event = payload.get("type", "")
    if event == TEST:
        return {"text": escape(_text(data.get("message")))[:LIMIT]}
    name = f"Experiment {_text(data.get('expid')) or '(none)'}"
    if event == WebhookEvent.OPERATION_FAILED:
        sentence = f"operation {_text(data.get('operation_id'))} ({_text(data.get('kind'))}) failed"
        path = ""
    else:
        words = "is not started again" if data.get("restarted") is False else _WORDS.get(event, event)
        sentence = f"run {_text(data.get('runner_id'))} {words}"
        path = f"/runs/{_text(data.get('runner_id'))}"
    facts = [_text(data.get(key)) for key in ("reason", "code", "profile_name", "host", "started_by")]
    parts = [escape(f"{name}: {sentence}."), escape(", ".join(filter(None, facts)))]
    if told := _text(data.get("explanation")):
        parts.append(escape(told))
    if path and settings.RUNNERS_PUBLIC_URL:
        parts.append(linked(f"{settings.RUNNERS_PUBLIC_URL}{path}", "Open the run"))
    return {"text": "\n".join(filter(None, parts))[:LIMIT]}


def _text(value: object) -> str:
    return printable.line("" if value is None else str(value), 1000)


_FORMATS: dict[str, tuple[Callable[[str], str], Callable[[str, str], str]]] = {
    WebhookFormat.SLACK: (_slack, lambda url, words: f"<{url}|{words}>"),
    WebhookFormat.MATTERMOST: (_mattermost, lambda url, words: f"[{words}]({url})"),
}
