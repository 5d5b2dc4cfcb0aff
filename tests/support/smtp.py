"""A real mail server for tests: it takes mail by SMTP (RFC 5321) and keeps it."""

from __future__ import annotations

import email
import email.policy
import socketserver
import threading
from email.message import EmailMessage
from typing import Any

from tests.support.processes import PATIENCE


class MailServer:
    """`mails`: what was accepted. `answers`: the answer to a command instead of the usual one, by the command in
    capitals or by its first word.

    While `hold` is not set, the server accepts connections and says nothing.
    """

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.recipients: list[str] = []
        self.connections = 0
        self.answers: dict[str, str] = {}
        self.hold = threading.Event()
        self.hold.set()
        mails = self

        class Handler(socketserver.StreamRequestHandler):
            def say(self, words: str) -> None:
                self.wfile.write(f"{words}\r\n".encode())

            def handle(self) -> None:
                mails.connections += 1
                mails.hold.wait(60 * PATIENCE)
                self.say("220 tests ESMTP")
                for line in self.rfile:
                    command = line.decode().strip().upper()
                    word = command.split(":")[0].split(" ")[0]
                    if answer := mails.answers.get(command) or mails.answers.get(word):
                        self.say(answer)
                    elif word == "DATA":
                        self.say("354 go on")
                        data = b""
                        while (part := self.rfile.readline()) not in (b".\r\n", b""):
                            data += part.removeprefix(b".") if part.startswith(b"..") else part
                        found: Any = email.message_from_bytes(data, policy=email.policy.default)
                        mails.mails.append(found)
                        self.say("250 accepted")
                    elif word == "QUIT":
                        self.say("221 bye")
                        return
                    else:
                        if word == "RCPT":
                            mails.recipients.append(line.decode().strip())
                        self.say("250 ok")

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, request: Any, client_address: Any) -> None: ...

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.hold.set()
        self._server.shutdown()
        self._server.server_close()
