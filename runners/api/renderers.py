"""The JSON of responses, compact and in UTF-8."""

from __future__ import annotations

import json
from typing import Any

from rest_framework.renderers import BaseRenderer
from rest_framework.utils.encoders import JSONEncoder


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
