"""Which addresses a webhook may have, and how a request ends."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from runners.models.webhook import Webhook, WebhookDelivery
from runners.webhooks import delivery as webhooks
from runners.webhooks.http import NotSent, is_allowed, post
from tests.support.processes import PATIENCE
from tests.support.servers import listener
from tests.support.webhooks import LOOPBACK, Receiver, ended_run, hook

pytestmark = pytest.mark.django_db(transaction=True)


def test_an_address_of_this_network_is_refused_unless_allowed(receiver: Receiver, settings: Any) -> None:
    settings.RUNNERS_WEBHOOK_PRIVATE_TARGETS = []
    hook(receiver)
    Webhook.objects.update(url=receiver.url.replace("127.0.0.1", "localhost"))
    ended_run()
    assert webhooks.deliver_due() == webhooks.Round(failed=1)
    assert "RUNNERS_WEBHOOK_PRIVATE_TARGETS" in WebhookDelivery.objects.get().last_error
    assert not receiver.requests


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "fe80::1%eth0",
        "fd00::1",
        "ff02::1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::7f00:1",
        "::127.0.0.1",
        "::ffff:0:127.0.0.1",
        "fec0::1",
        "2002:7f00:1::",
    ],
)
def test_private_addresses_are_rejected(address: str, settings: Any) -> None:
    settings.RUNNERS_WEBHOOK_PRIVATE_TARGETS = []
    assert not is_allowed(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_are_allowed(address: str, settings: Any) -> None:
    settings.RUNNERS_WEBHOOK_PRIVATE_TARGETS = []
    assert is_allowed(address)


def test_private_networks_can_be_allowed(settings: Any) -> None:
    settings.RUNNERS_WEBHOOK_PRIVATE_TARGETS = [ip_network("10.1.0.0/16"), ip_network("fec0::/10")]
    assert is_allowed("fec0::1")
    assert is_allowed("10.1.2.3")
    assert is_allowed("::ffff:10.1.2.3")
    assert not is_allowed("10.2.2.3")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://no-such-host.invalid/", "its host name cannot be resolved"),
        ("http://127.0.0.1:1/", "refused"),
        ("http://127.0.0.1:99999/", "Port"),
    ],
)
def test_an_unreachable_receiver_is_reported_with_the_cause(url: str, words: str, settings: Any) -> None:
    settings.RUNNERS_WEBHOOK_PRIVATE_TARGETS = LOOPBACK
    with pytest.raises(NotSent, match=words):
        post(url, b"{}", {})


def test_a_slow_answer_ends_at_the_deadline(settings: Any) -> None:
    settings.RUNNERS_WEBHOOK_PRIVATE_TARGETS = LOOPBACK
    stop = threading.Event()

    def drip(client: socket.socket) -> None:
        client.sendall(b"HTTP/1.1 ")
        while not stop.wait(0.1):
            client.sendall(b"X")

    with listener(drip) as port:
        start = time.monotonic()
        with pytest.raises(NotSent, match=r"no answer within 1.5 s"):
            post(f"http://127.0.0.1:{port}/", b"{}", {}, timeout=1.5)
        assert time.monotonic() - start < 5 * PATIENCE
        stop.set()


def test_tls_is_verified_and_bounded(
    make_receiver: Callable[..., Receiver], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = tmp_path / "certificate.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    argv += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    argv += ["-keyout", str(certificate), "-out", str(tmp_path / "public.pem")]
    subprocess.run(argv, check=True, capture_output=True)
    certificate.write_text(certificate.read_text() + (tmp_path / "public.pem").read_text())
    receiver = make_receiver(certificate=certificate)
    with pytest.raises(NotSent, match="certificate is not valid"):
        post(receiver.url, b"{}", {})
    assert not receiver.requests
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "public.pem"))
    assert post(receiver.url, b"{}", {}).is_success
    assert receiver.requests[0][1]["Host"] == f"127.0.0.1:{receiver.port}"
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never does a handshake
        start = time.monotonic()
        with pytest.raises(NotSent, match="no answer within 1 s"):
            post(f"https://127.0.0.1:{silent.getsockname()[1]}/", b"{}", {}, timeout=1)
        assert time.monotonic() - start < 5 * PATIENCE
