"""The command-line client as a script calls it.

cli = Cli(app.url)
cli("run", *HERE, "a001", expect=Exit.OK)     its standard output; `cli.told` is its standard error
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from runners.cli.errors import Exit
from tests.support.processes import PATIENCE
from tests.support.servers import ROOT

HERE = ("--profile", "HERE")


class StrangerHandler(BaseHTTPRequestHandler):
    """The handler of a server that is not the service. It logs nothing."""

    def reply(self, data: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serving(handler: type[StrangerHandler]) -> Iterator[str]:
    """Yield the URL of a server with this handler. It also ends if the test fails, which would hang otherwise."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class Cli:
    """The client as a script calls it, in a separate process."""

    def __init__(self, url: str, token: str = "") -> None:
        self.env = {
            "PATH": os.environ["PATH"],
            "AUTOSUBMIT_RUNNERS_URL": url,
            "AUTOSUBMIT_RUNNERS_TOKEN": token,
            "XDG_CONFIG_HOME": "/nonexistent",  # no settings and tokens of the person who runs the tests
        }

    def argv(self, *args: str) -> list[str]:
        return [sys.executable, "-S", "-m", "runners.cli", *args]  # -S: only the standard library

    def __call__(self, *args: str, expect: Exit = Exit.OK) -> str:
        done = self._run(*args)
        assert done.returncode == expect, (done.returncode, done.stdout, done.stderr)
        return done.stdout

    def exits(self, *args: str) -> int:
        """Return the exit code."""
        return self._run(*args).returncode

    def _run(self, *args: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.argv(*args),
            env=self.env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=100 * PATIENCE,
        )
        self.told = done.stderr
        return done

    def start(self, *args: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.argv(*args), env=self.env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
