"""Logs of runs and operations: the query, and the response as JSON or as plain bytes."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from runners.services.logs import LogPage
from runners.web.requests import StrictSerializer

LOG_BYTES, MOST_LOG_BYTES, FEWEST_LOG_BYTES = 65_536, 1_000_000, 16
LARGEST_NUMBER = 2**63 - 1
ENCODINGS = {"text": "the characters, in `text`", "base64": "the bytes, in `data`"}


class LogQuery(StrictSerializer):
    """From `offset`, or the last `tail` bytes."""

    # `offset` and `limit` have no `default`: generated clients would send it, also together with `tail`.
    offset = serializers.IntegerField(
        min_value=0,
        max_value=LARGEST_NUMBER,
        required=False,
        help_text="The first byte, default 0. Continue with `next_offset`.",
    )
    limit = serializers.IntegerField(
        min_value=FEWEST_LOG_BYTES,
        max_value=MOST_LOG_BYTES,
        required=False,
        help_text=f"Maximum number of bytes, default {LOG_BYTES}.",
    )
    tail = serializers.IntegerField(
        min_value=FEWEST_LOG_BYTES,
        max_value=MOST_LOG_BYTES,
        required=False,
        help_text="Number of bytes from the end of the log; not allowed together with offset or limit.",
    )
    encoding = serializers.ChoiceField(
        choices=list(ENCODINGS), default="text", help_text="text: whole characters in `text`. base64: bytes in `data`."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "tail" in attrs and (beside := [name for name in ("offset", "limit") if name in attrs]):
            raise serializers.ValidationError(
                {name: f"Give either {name} or tail: tail reads the end of the log." for name in beside}
            )
        return {"limit": LOG_BYTES, **attrs}


class LogChunkAnswer(serializers.Serializer[Any]):
    """A part of a log. Ask again with `offset=next_offset` until `ended` is true."""

    offset = serializers.IntegerField(help_text="The first byte of this part.")
    next_offset = serializers.IntegerField(help_text="The first byte after this part.")
    size = serializers.IntegerField(help_text="Size of the log in bytes.")
    ended = serializers.BooleanField(help_text="The command has ended and its whole log has been read.")
    text = serializers.CharField(
        allow_null=True, help_text="Contains whole characters only; invalid UTF-8 is replaced by U+FFFD."
    )
    data = serializers.CharField(  # type: ignore[assignment]  # a member, not the attribute of a serializer
        allow_null=True, help_text="base64, if it was requested."
    )


def log_answer(request: Request, query: dict[str, Any], read: Callable[..., LogPage]) -> HttpResponseBase:
    """Return a part of a log: JSON, or the raw bytes for a client that accepts text/plain but not JSON.

    `read` takes the rest of a LogQuery: `offset`, `limit`, `tail`.
    """
    encoding = query.pop("encoding")
    page = read(**query)
    accepted = request.headers.get("Accept", "")
    if "text/plain" in accepted and "application/json" not in accepted:
        headers = {
            "X-Log-Offset": str(page.offset),
            "X-Log-Next-Offset": str(page.next_offset),
            "X-Log-Size": str(page.size),
            "X-Log-Ended": "true" if page.ended else "false",
            "Vary": "Accept",
        }
        return HttpResponse(page.data, content_type="text/plain; charset=utf-8", headers=headers)
    if encoding == "text":
        page = page.whole_characters()
    return Response(
        {
            "offset": page.offset,
            "next_offset": page.next_offset,
            "size": page.size,
            "ended": page.ended,
            "text": page.data.decode("utf-8", "replace") if encoding == "text" else None,
            "data": base64.b64encode(page.data).decode() if encoding == "base64" else None,
        },
        headers={"Vary": "Accept"},
    )
