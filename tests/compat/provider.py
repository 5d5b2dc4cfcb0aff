"""An OpenID Connect provider that accepts every login, so that users can sign in to the Autosubmit API: `Provider`.

with Provider() as provider:
    ReferenceServer(..., env=provider.environment)
    # /v4/auth/oidc/login?code=NAME of the server then returns a login of NAME, which the server has signed
"""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs

import jwt


class _Tokens(BaseHTTPRequestHandler):
    """The provider's token endpoint. The user whom the code names has signed in."""

    def do_POST(self) -> None:
        asked = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        # The Autosubmit API does not check the signature, because the token comes from the provider itself.
        signed = jwt.encode({"sub": asked["code"][0]}, "of a provider of the test run, 32 bytes", algorithm="HS256")
        body = json.dumps({"id_token": signed, "access_token": "of no use here", "token_type": "Bearer"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the request out of the test run's output."""


class Provider:
    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Tokens)
        self.environment = {
            "OIDC_TOKEN_URL": f"http://127.0.0.1:{self._server.server_port}/token",
            "OIDC_CLIENT_ID": "autosubmit-api",
            "OIDC_CLIENT_SECRET": "of the test run",
        }

    def __enter__(self) -> Provider:
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
