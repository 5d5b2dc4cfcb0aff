"""Content negotiation that always chooses JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.request import Request


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
