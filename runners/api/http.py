"""JSON in and out: a strict parser, a compact renderer, and a content negotiation that always chooses JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import IO, Any

from django.conf import settings
from django.http import UnreadablePostError
from rest_framework import exceptions
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.utils.encoders import JSONEncoder


class TooLarge(exceptions.APIException):
    status_code = 413
    default_code = "too_large"


class InvalidJSON(exceptions.ParseError):
    default_code = "invalid_json"


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the members of a JSON object. Raises ValueError for a duplicate key, because parsers disagree on which
    value counts: two readers of the body would see two different requests.
    """
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member stands twice in one object")
    return members


class StrictJSONParser(BaseParser):
    """Parse one JSON object of at most API_MAX_BODY bytes. NaN, duplicate keys and lone surrogates are rejected."""

    media_type = "application/json"

    def parse(self, stream: IO[Any], media_type: str | None = None, parser_context: Any = None) -> dict[str, Any]:
        limit = settings.API_MAX_BODY
        try:
            body = stream.read(limit + 1)
        except UnreadablePostError:
            raise InvalidJSON("The connection was closed before the whole body had come.") from None
        if len(body) > limit:
            raise TooLarge(f"The body has more than {limit} bytes.")
        try:
            data = json.loads(body.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_no_twins)
            if b"\\u" in body:  # only an escape can give a lone surrogate; files, shells and databases reject those
                json.dumps(data, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise InvalidJSON("The body holds half of a surrogate pair (such as \\ud800): no valid text.") from None
        except (ValueError, RecursionError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise InvalidJSON(f"The body is no valid JSON: {reason}.") from None
        if not isinstance(data, dict):
            raise InvalidJSON('The body has to be a JSON object, such as {"expid": "a001"}.')
        return data


class CompactJSONRenderer(BaseRenderer):
    """Render plain data as UTF-8 JSON. Unlike DRF's own renderer, do not search the Accept header for an indent."""

    media_type = "application/json"
    format = "json"
    charset = None

    def render(self, data: Any, accepted_media_type: Any = None, renderer_context: Any = None) -> bytes:
        if data is None:
            return b""
        return json.dumps(data, ensure_ascii=False, separators=(",", ":"), cls=JSONEncoder).encode(
            "utf-8", "backslashreplace"
        )


class AlwaysJSON(BaseContentNegotiation):
    """Choose JSON, the only format. A client whose Accept header asks for another format still gets JSON (RFC 9110,
    12.4.1).
    """

    def select_parser(self, request: Request, parsers: Sequence[Any]) -> Any:  # type: ignore[override]
        # Require the header `Content-Type: application/json`. Browsers send it to another origin only after a CORS
        # preflight. Without this check, with PROTECTION_LEVEL=NONE, a page of another site could start a run.
        content_type = (request.content_type or "").partition(";")[0].strip().lower()
        return parsers[0] if content_type == "application/json" else None

    def select_renderer(  # type: ignore[override]
        self, request: Request, renderers: Sequence[Any], format_suffix: str | None = None
    ) -> tuple[Any, str]:
        return renderers[0], renderers[0].media_type
