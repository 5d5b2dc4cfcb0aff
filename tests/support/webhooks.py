"""A receiver of webhooks, and rows of runs whose end is reported."""

from __future__ import annotations

import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from django.utils import timezone

from profiles.config import RunnerConfig
from runners.models import RunnerRun, RunReason
from runners.models.webhook import Webhook, WebhookDelivery
from runners.services import lifecycle
from tests.support.processes import PATIENCE

LOOPBACK = [ip_network("127.0.0.0/8")]


class Receiver:
    """A real HTTP server. It answers with `statuses` in turn, then 204. `requests` are (path, headers, body)."""

    def __init__(self, *, certificate: Path | None = None) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.statuses: list[int] = []
        self.answer_headers: dict[str, str] = {}
        self.hold = threading.Event()  # the server answers nothing before this is set
        self.hold.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.requests.append((self.path, dict(self.headers), body))
                receiver.hold.wait(30 * PATIENCE)
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 204)
                for name, value in receiver.answer_headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(b"what the receiver has to say")

            def log_message(self, *args: Any) -> None: ...

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None: ...  # clients disconnect in these tests

        self._server = Server(("127.0.0.1", 0), Handler)
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self.port}/hook?from=runners"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.hold.set()
        self._server.shutdown()
        self._server.server_close()


def hook(receiver: Receiver, name: str = "of the tests", **values: Any) -> Webhook:
    return Webhook.objects.create(name=name, url=receiver.url, **values)


def active_run(expid: str = "a001", profile_name: str = "MACHINE") -> RunnerRun:
    config = RunnerConfig("LOCAL", "NO_MODULE")
    return RunnerRun.objects.create(
        expid=expid, profile_name=profile_name, config=config.as_dict(), runner="LOCAL", module_loader="NO_MODULE"
    )


def ended_run(expid: str = "a001", *, exit_code: int = 0, **values: Any) -> RunnerRun:
    run = active_run(expid, **values)
    assert lifecycle.finish_run(run, reason=RunReason.FAILED if exit_code else "", exit_code=exit_code)
    return run


def make_due() -> None:
    """End the back-off now."""
    WebhookDelivery.objects.exclude(next_attempt=None).update(next_attempt=timezone.now())
