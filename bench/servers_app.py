"""The service with additional paths for `bench`. They behave as an application may.

`/bench/constant` reads the body and sends the same bytes each time, as long as a status and with its headers.
`/bench/stream` sends a line every half second for six seconds. `/bench/large` sends 50 MB, like the download of a log.
`/bench/unread` answers without reading the body.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from runners_project.wsgi import application as service

LINES, PAUSE = 12, 0.5  # seconds
CHUNK, CHUNKS = b"x" * 500_000, 100


STATUS = b"x" * 420
STATUS_HEADERS = [
    ("Content-Type", "application/json"),
    ("Content-Length", str(len(STATUS))),
    ("Allow", "POST, OPTIONS"),
]


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/bench/constant":
        environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        start_response("200 OK", STATUS_HEADERS)
        return [STATUS]
    if environ["PATH_INFO"] == "/bench/stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return _lines()
    if environ["PATH_INFO"] == "/bench/large":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (CHUNK for _ in range(CHUNKS))
    if environ["PATH_INFO"] == "/bench/unread":
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "3")])
        return [b"ok\n"]
    answer: Iterable[bytes] = service(environ, start_response)
    return answer


def _lines() -> Iterator[bytes]:
    for _ in range(LINES):
        yield b"a line\n"
        time.sleep(PAUSE)
