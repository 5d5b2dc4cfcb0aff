"""The OpenAPI document as bytes. Each process generates it once and keeps it."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from functools import cache

from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiJsonRenderer, OpenApiYamlRenderer
from rest_framework.renderers import BaseRenderer

RENDERERS: dict[str, type[BaseRenderer]] = {"json": OpenApiJsonRenderer, "yaml": OpenApiYamlRenderer}

# drf-spectacular's generator is not thread-safe: two threads that generate at once raise AssertionError in `parse`
# (https://github.com/tfranzel/drf-spectacular/issues/1122). `cache` alone lets every first request generate.
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Document:
    body: bytes
    etag: str  # strong, with its quotes; equal in all processes of one release


def document(media: str) -> Document:
    """The document as "json" or "yaml". Concurrent first calls wait for one generation. KeyError for another medium."""
    with _lock:
        return _generated(media)


@cache
def _generated(media: str) -> Document:
    text = RENDERERS[media]().render(SchemaGenerator().get_schema(public=True), renderer_context={})
    body = text if isinstance(text, bytes) else text.encode()
    return Document(body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
