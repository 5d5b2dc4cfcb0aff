"""Fixes for bugs of paramiko 5.1, in one place: a `Transport` and its `Channel`.

Each fix names paramiko's public report, https://github.com/paramiko/paramiko/issues/NUMBER.

1115, 1584, 1705  EOF or data of a channel can be sent after its CLOSE, because one thread builds a message and the
                  transport's thread closes the channel before that message is sent. sshd then ends the connection
                  ("ieof packet referred to nonexistent channel"), and every command on it is lost. Here the transport's
                  thread never sends for a channel. It records what has arrived, and `close`, called by the channel's
                  user, sends the CLOSE. A lock orders the messages of several users.
822               During a key exchange, a message of the transport's thread waits for the end of the exchange. But the
                  same thread has to complete the exchange, so after 30 s the connection dies. Here such a message is
                  queued and sent after the exchange. paramiko also no longer starts a key exchange itself (by default
                  it does after 512 MiB): OpenSSH and dropbear start one when it is due, and RFC 4253 allows either
                  side to start it.
1585              `close`, and `recv` for its window adjustment, send messages. If the connection has gone, they raise
                  EOFError, SSHException or OSError, although the result is already known. Here they do not raise.
598               The request `exit-signal` is ignored, so a missing exit status has no reason. Here the signal is
                  stored.
(measured)        The garbage collector closes a channel (`__del__`), in any thread, even in one that holds locks.
                  A thread that is opening a channel can then deadlock with itself, and every command on the connection
                  hangs. Here the collector closes no channel; the users of channels close them.
(measured)        The thread of each connection wakes ten times a second to check whether it has to end. 300 idle
                  connections took 6 % of a core. Here `close` wakes the thread, and 300 take 0.6 %.
2005 (similar)    The error of a refused channel is stored once per connection, so two threads that are refused at the
                  same time can see each other's error. Here each channel stores its own error.
"""

# mypy: disable-error-code="misc,attr-defined"
# types-paramiko leaves out the private members that are used and overridden here.

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import paramiko
from paramiko.buffered_pipe import PipeTimeout
from paramiko.common import cMSG_CHANNEL_OPEN, cMSG_CHANNEL_REQUEST, cMSG_CHANNEL_WINDOW_ADJUST

PEEK = 5.0  # seconds for which the transport's thread of an open connection sleeps when nothing arrives
NEVER = 2**62  # bytes or packets before paramiko starts a key exchange
GONE = (paramiko.SSHException, EOFError, OSError)  # what sending raises if the connection has gone


class Channel(paramiko.Channel):
    """A channel that sends its messages in order and sets the event `news` when something has arrived.

    The transport's thread sets `news` after each message of the server that the channel's user has to handle, and when
    the connection has ended.
    """

    transport: Transport

    def __init__(self, chanid: int) -> None:
        super().__init__(chanid)
        self.news = threading.Event()
        self.refusal: paramiko.ChannelException | None = None  # set if the server refused to open the channel
        self.is_granted: bool | None = None  # the reply to `request_exec`; None: no reply yet
        self.exit_signal = ""  # name of the signal that ended the process, without SIG
        self.is_closed_there = False  # the server has sent its CLOSE
        self._sending = threading.RLock()  # never taken by the transport's thread

    def __del__(self) -> None:
        """Do nothing: a finalizer must not wait for locks."""

    # --- for the channel's user ---

    def request_exec(self, command: bytes) -> None:
        """Ask the server to execute a command line, without waiting for its answer. Raises GONE."""
        message = self._request("exec", want_reply=True)
        message.add_string(command)
        self._say(message)

    def request_signal(self, name: str) -> None:
        """Ask the server to send a signal to the process group of the command (RFC 4254, section 6.9)."""
        message = self._request("signal", want_reply=False)
        message.add_string(name)
        with suppress(*GONE):
            self._say(message)

    def _request(self, kind: str, *, want_reply: bool) -> paramiko.Message:
        message = paramiko.Message()
        message.add_byte(cMSG_CHANNEL_REQUEST)
        message.add_int(self.remote_chanid)
        message.add_string(kind)
        message.add_boolean(want_reply)
        return message

    def _say(self, message: paramiko.Message) -> None:
        with self._sending:
            if not self.closed:
                self.transport._send_user_message(message)

    def send(self, s: bytes | bytearray) -> int:
        with self._sending:
            return super().send(s)

    def shutdown(self, how: int) -> None:
        with self._sending:
            super().shutdown(how)

    def close(self) -> None:
        """Send EOF and CLOSE if they were not sent. Never raises."""
        with self._sending:
            with self.lock:
                messages = self._close_internal()
            with suppress(*GONE):
                for message in messages:
                    if message is not None:
                        self.transport._send_user_message(message)
        with self.lock:
            if self.closed and self.is_closed_there:
                self.transport._unlink_channel(self.chanid)

    def recv(self, nbytes: int) -> bytes:
        return self._received(self.in_buffer, nbytes)

    def recv_stderr(self, nbytes: int) -> bytes:
        return self._received(self.in_stderr_buffer, nbytes)

    def _received(self, buffer: Any, nbytes: int) -> bytes:
        try:
            data: bytes = buffer.read(nbytes, self.timeout)
        except PipeTimeout:
            raise TimeoutError from None
        with self._sending:
            room = self._check_add_window(len(data))
            if room > 0:
                message = paramiko.Message()
                message.add_byte(cMSG_CHANNEL_WINDOW_ADJUST)
                message.add_int(self.remote_chanid)
                message.add_int(room)
                with suppress(*GONE):
                    self.transport._send_user_message(message)
        return data

    # --- called by the transport's thread: these methods send no messages of the channel except replies to requests ---

    def _request_success(self, m: paramiko.Message) -> None:
        self.is_granted = True  # do not set `news`: the user has nothing to do yet
        super()._request_success(m)

    def _request_failed(self, m: paramiko.Message) -> None:
        self.is_granted = False
        self.event.set()
        self.news.set()

    def _feed(self, m: paramiko.Message | bytes) -> None:
        super()._feed(m)
        self.news.set()

    def _feed_extended(self, m: paramiko.Message) -> None:
        super()._feed_extended(m)
        self.news.set()

    def _window_adjust(self, m: paramiko.Message) -> None:
        super()._window_adjust(m)
        self.news.set()

    def _handle_request(self, m: paramiko.Message) -> None:
        position = m.packet.tell()
        if m.get_text() == "exit-signal":
            m.get_boolean()
            self.exit_signal = m.get_text()
            self.status_event.set()
        else:
            m.packet.seek(position)
            super()._handle_request(m)
        self.news.set()

    def _handle_eof(self, m: paramiko.Message) -> None:
        super()._handle_eof(m)
        self.news.set()

    def _handle_close(self, m: paramiko.Message) -> None:
        super()._handle_eof(m)
        with self.lock:
            self.is_closed_there = True
            if self.closed:
                self.transport._unlink_channel(self.chanid)
            self.out_buffer_cv.notify_all()
        self.event.set()
        self.status_event.set()
        self.news.set()

    def _unlink(self) -> None:
        """Handle the end of the connection."""
        super()._unlink()
        self.news.set()


class Transport(paramiko.Transport):
    """A client's connection whose channels are instances of the class above."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.packetizer.REKEY_BYTES = self.packetizer.REKEY_PACKETS = NEVER
        # paramiko's table contains the functions of its own class, so overriding them alone has no effect.
        self._channel_handler_table = {
            number: getattr(Channel, function.__name__)
            for number, function in paramiko.Transport._channel_handler_table.items()
        }
        # The garbage collector may close a connection (paramiko's ResourceManager), and with it a channel of its jump
        # host, so this lock has to be reentrant.
        self._channels._lock = threading.RLock()
        self.disconnect_reason = ""  # what the server said when it ended the connection; untrusted
        self._kept: list[Any] = []  # messages of the transport's thread, queued until the end of a key exchange

    @property
    def preferred_keys(self) -> tuple[str, ...]:
        """The host key algorithms that were set, in order. paramiko would add certificates, but verify none."""
        return tuple(self._filter_algorithm("keys"))

    def sign_with(self, algorithms: Sequence[str]) -> None:
        """Log in with these algorithms only (PubkeyAcceptedAlgorithms); empty: with all that paramiko supports."""
        offered: tuple[str, ...] = paramiko.Transport._preferred_pubkeys
        self._preferred_pubkeys = tuple(name for name in offered if not algorithms or name in algorithms)

    def _send_user_message(self, data: Any) -> None:
        if threading.current_thread() is not self:
            super()._send_user_message(data)
            return
        with self.clear_to_send_lock:
            if self.clear_to_send.is_set():
                self._send_message(data)
            else:
                self._kept.append(data)

    def _parse_newkeys(self, m: paramiko.Message) -> None:
        super()._parse_newkeys(m)
        kept, self._kept = self._kept, []
        for data in kept:
            self._send_user_message(data)

    def open_channel(
        self,
        kind: str,
        dest_addr: tuple[str, int] | None = None,
        src_addr: tuple[str, int] | None = None,
        window_size: int | None = None,
        max_packet_size: int | None = None,
        timeout: float | None = None,
    ) -> Channel:
        """Open a new channel: "session", or "direct-tcpip" from `src_addr` to `dest_addr`.

        Raises ChannelException if the server refuses the channel (the connection still works), TimeoutError after
        `timeout` seconds; all other errors are in GONE.
        """
        if not self.active:
            raise paramiko.SSHException("the connection has ended")
        with self.lock:
            window = self._sanitize_window_size(window_size)
            packet = self._sanitize_packet_size(max_packet_size)
            number = self._next_channel()
            message = paramiko.Message()
            message.add_byte(cMSG_CHANNEL_OPEN)
            message.add_string(kind)
            for value in (number, window, packet):
                message.add_int(value)
            if dest_addr and src_addr:
                for host, port in (dest_addr, src_addr):
                    message.add_string(host)
                    message.add_int(port)
            channel = Channel(number)
            self._channels.put(number, channel)
            answered = self.channel_events[number] = threading.Event()
            self.channels_seen[number] = True
            channel._set_transport(self)
            channel._set_window(window, packet)
        self._send_user_message(message)
        is_answered = answered.wait(self.channel_timeout if timeout is None else timeout)
        if channel.refusal:
            raise channel.refusal
        if not self.active:
            raise self.get_exception() or paramiko.SSHException("the connection has ended")
        if not is_answered:
            raise TimeoutError("the server did not answer the request for a channel")
        return channel

    @property
    def banner(self) -> str:
        """The last text that the server sent for people during the login, also after the connection has ended."""
        handler = self.auth_handler
        banner = (handler and handler.banner) or b""
        return banner if isinstance(banner, str) else banner.decode("utf-8", "replace")

    def _parse_disconnect(self, m: paramiko.Message) -> None:
        m.get_int()  # a number of RFC 4253, 11.1
        self.disconnect_reason = m.get_string().decode("utf-8", "replace")

    def _parse_channel_open_failure(self, m: paramiko.Message) -> None:
        number, code, words = m.get_int(), m.get_int(), m.get_text()
        with self.lock:
            channel = self._channels.get(number)
            answered = self.channel_events.pop(number, None)
            if channel is None or answered is None:
                return
            channel.refusal = paramiko.ChannelException(code, words)
            self._channels.delete(number)
            answered.set()

    def rest(self) -> None:
        """Check for keepalives only every PEEK seconds, once the connection is open. paramiko checks every 0.1 s."""
        self.sock.settimeout(PEEK)

    def close(self) -> None:
        socket_or_channel: socket.socket | paramiko.Channel = self.sock
        if threading.current_thread() is not self and self.is_alive():
            # Wake the thread, which closes everything. Do not close the socket here: if a file is closed while a thread
            # waits for it, its descriptor number may be reused for another file.
            with suppress(*GONE):
                if isinstance(socket_or_channel, paramiko.Channel):  # of a jump host
                    socket_or_channel.close()
                else:
                    socket_or_channel.shutdown(socket.SHUT_RDWR)
            self.join(1)
        with suppress(*GONE):
            super().close()
        with suppress(*GONE):
            socket_or_channel.close()
