"""One kept connection to a server: the latency is only the server's, and requests are sent exactly as given."""

from __future__ import annotations

import http.client
import json
import select
import time
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Reply:
    """A reply.

    `body` is parsed JSON, or text if it is not JSON. `seconds`: from the first byte sent to the last received.
    """

    status: int
    body: Any
    headers: dict[str, str]
    seconds: float


KEPT = 1.0  # seconds: gunicorn closes a connection after 2 s of idle time


class Client:
    """A client that keeps its connection open as browsers do, and opens another one after a pause."""

    def __init__(self, port: int, *, timeout: float = 60, headers: dict[str, str] | None = None) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        self._headers = {"Accept": "application/json", **(headers or {})}
        self._used = 0.0

    def get(self, path: str) -> Reply:
        return self.request("GET", path)

    def post(self, path: str, body: Any) -> Reply:
        return self.request("POST", path, body)

    def request(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
        """Send a request. A `bytes` body is sent unchanged, any other body except None as JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        all_headers = {**self._headers, **({"Content-Type": "application/json"} if data else {}), **(headers or {})}
        if time.monotonic() - self._used > KEPT or self._is_dropped():
            self._connection.close()
        start = time.perf_counter()
        self._connection.request(method, path, data, all_headers)
        response = self._connection.getresponse()
        content = response.read()
        seconds = time.perf_counter() - start
        self._used = time.monotonic()
        names = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, _parsed(content), names, seconds)

    def _is_dropped(self) -> bool:
        """Return True if the server has closed the connection, which a busy one may do at any time."""
        sock = self._connection.sock
        return sock is not None and bool(select.select([sock], [], [], 0)[0])

    def close(self) -> None:
        self._connection.close()


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return content.decode("utf-8", "replace")
