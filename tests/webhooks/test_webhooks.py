"""Webhooks: what is stored when a run ends, and how it reaches a real HTTP server.

The library of Standard Webhooks verifies the signatures.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import IntegrityError, connection
from django.utils import timezone

from profiles.config import ModuleLoaderType, RunnerConfig, RunnerType
from runners.exceptions import CommandFailed
from runners.models import AuditRecord, RunnerRun, RunReason, RunStatus
from runners.models.webhook import Webhook, WebhookDelivery, WebhookEvent, new_secret
from runners.services import lifecycle, outbox, starting
from runners.webhooks import delivery as webhooks
from runners.webhooks.http import NotSent, is_allowed, post
from tests.support.environments import StubAccount
from tests.support.processes import PATIENCE, end, start, wait_for
from tests.support.servers import ROOT, AppServer, listener

pytestmark = pytest.mark.django_db(transaction=True)

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
                receiver.hold.wait(30)
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


@pytest.fixture
def make_receiver(settings: Any) -> Iterator[Callable[..., Receiver]]:
    settings.RUNNERS_WEBHOOK_PRIVATE_TARGETS = LOOPBACK
    receivers: list[Receiver] = []

    def make(**options: Any) -> Receiver:
        receivers.append(Receiver(**options))
        return receivers[-1]

    yield make
    for receiver in receivers:
        receiver.close()


@pytest.fixture
def receiver(make_receiver: Callable[..., Receiver]) -> Receiver:
    return make_receiver()


def hook(receiver: Receiver, name: str = "of the tests", **values: Any) -> Webhook:
    return Webhook.objects.create(name=name, url=receiver.url, **values)


def active_run(expid: str = "a001", profile_name: str = "MACHINE") -> RunnerRun:
    config = RunnerConfig(RunnerType.LOCAL, ModuleLoaderType.NO_MODULE)
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


# --- stored messages --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "event"),
    [
        ({"reason": "", "exit_code": 0}, "run.completed"),
        ({"reason": RunReason.FAILED, "exit_code": 3}, "run.terminated"),
        ({"reason": RunReason.LOST}, "run.terminated"),
        ({"reason": RunReason.ABANDONED, "confirmed": False}, "run.terminated"),
        ({"reason": RunReason.NEVER_STARTED}, "run.never_started"),
    ],
    ids=["completed", "failed", "lost", "abandoned", "never started"],
)
def test_the_end_of_a_run_is_written_to_the_outbox(receiver: Receiver, end: dict[str, Any], event: str) -> None:
    listener = hook(receiver)
    run = active_run()
    lifecycle.finish_run(run, **end)
    delivery = WebhookDelivery.objects.get()
    assert (delivery.webhook, delivery.run, delivery.event) == (listener, run, event)
    assert delivery.payload == {
        "type": event,
        "timestamp": run.modified.isoformat(timespec="seconds"),
        "data": outbox.message_fields(RunnerRun.objects.get(pk=run.pk)),
    }
    assert not receiver.requests  # the end of a run only stores the message


def test_a_message_has_counts_and_job_names_and_no_text_of_a_log(receiver: Receiver) -> None:
    hook(receiver)
    run = active_run()
    jobs = {"total": 13, "failed": 1, "not_run": 2, "failed_jobs": ["a001_BAD"]}
    lifecycle.finish_run(run, reason=RunReason.FAILED, exit_code=1, detail="password=hunter2 in a log", jobs=jobs)
    payload = WebhookDelivery.objects.get().payload
    assert payload["data"]["jobs"] == jobs
    assert payload["data"]["explanation"] == "1 of 13 jobs failed: a001_BAD. 2 of 13 jobs were not run."
    assert "hunter2" not in str(payload)


def test_a_launch_that_fails_is_told_as_never_started(receiver: Receiver, account: StubAccount) -> None:
    hook(receiver)
    config = RunnerConfig(RunnerType.LOCAL, ModuleLoaderType.VENV, (f"{account.home}/no-such-venv",))
    with pytest.raises(CommandFailed):
        starting.run_experiment(expid="a001", config=config, profile_name="MACHINE", audit=AuditRecord())
    delivery = WebhookDelivery.objects.get()
    assert (delivery.event, delivery.payload["data"]["reason"]) == ("run.never_started", "never_started")


def test_the_message_has_what_other_processes_wrote_to_the_run(receiver: Receiver) -> None:
    hook(receiver)
    run = active_run()
    RunnerRun.objects.filter(pk=run.pk).update(stopped_by="somebody else")
    lifecycle.finish_run(run, reason=RunReason.STOPPED)
    assert WebhookDelivery.objects.get().payload["data"]["stopped_by"] == "somebody else"


def test_only_the_wanted_events_and_profiles_are_written(receiver: Receiver) -> None:
    hook(receiver, "everything")
    hook(receiver, "failures", events=["run.terminated", "run.never_started"])
    hook(receiver, "one profile", profile_names=["OTHER"])
    hook(receiver, "off", enabled=False)
    ended_run("a001")
    ended_run("a002", exit_code=1, profile_name="OTHER")
    told = {(delivery.run.expid, delivery.webhook.name) for delivery in WebhookDelivery.objects.all() if delivery.run}
    assert told == {("a001", "everything"), ("a002", "everything"), ("a002", "failures"), ("a002", "one profile")}


def test_an_end_that_many_see_is_written_once(receiver: Receiver) -> None:
    hook(receiver)
    run = active_run()
    copies = [RunnerRun.objects.get(pk=run.pk) for _ in range(6)]

    def finish(copy: RunnerRun) -> bool:
        try:
            return lifecycle.finish_run(copy, reason=RunReason.FAILED, exit_code=1)
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(finish, copies)) == [False] * 5 + [True]
    assert WebhookDelivery.objects.count() == 1


def test_the_end_and_its_message_are_stored_together_or_not_at_all(receiver: Receiver) -> None:
    run = active_run()
    WebhookDelivery.objects.create(webhook=hook(receiver), run=run, event="run.completed", payload={})
    with pytest.raises(IntegrityError):  # raised by the message
        lifecycle.finish_run(run, reason="", exit_code=0)
    assert RunnerRun.objects.get(pk=run.pk).status == RunStatus.ACTIVE


def test_without_webhooks_an_end_costs_one_more_query(django_assert_num_queries: Any) -> None:
    run = active_run()
    with django_assert_num_queries(4):  # BEGIN, the end, the webhooks, COMMIT
        lifecycle.finish_run(run, reason="", exit_code=0)


# --- delivery ---------------------------------------------------------------------------------------------------------


def test_a_delivered_message_has_a_signature_that_the_standard_library_accepts(receiver: Receiver) -> None:
    listener = hook(receiver)
    ended_run()
    assert webhooks.deliver_due() == webhooks.Round(delivered=1)
    ((path, headers, body),) = receiver.requests
    delivery = WebhookDelivery.objects.get()
    assert path == "/hook?from=runners"
    assert headers["Content-Type"] == "application/json"
    assert standardwebhooks.Webhook(listener.secret).verify(body, headers) == delivery.payload
    assert headers["webhook-id"] == delivery.message_id
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(new_secret()).verify(body, headers)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(listener.secret).verify(body.replace(b"a001", b"a002"), headers)
    assert (delivery.state, delivery.last_status, delivery.attempts) == (WebhookDelivery.DELIVERED, 204, 1)
    assert delivery.delivered_at
    assert webhooks.deliver_due() == webhooks.Round()


def test_a_message_is_sent_again_after_an_error_with_the_same_id(receiver: Receiver) -> None:
    listener = hook(receiver)
    receiver.statuses = [500]
    ended_run()
    before = timezone.now()
    assert webhooks.deliver_due() == webhooks.Round(failed=1)
    delivery = WebhookDelivery.objects.get()
    assert (delivery.last_status, delivery.last_error) == (500, "HTTP 500: what the receiver has to say")
    assert delivery.next_attempt
    assert 4 < (delivery.next_attempt - before).total_seconds() < 10
    assert webhooks.deliver_due() == webhooks.Round()  # the retry is not due yet
    make_due()
    assert webhooks.deliver_due() == webhooks.Round(delivered=1)
    first, second = (standardwebhooks.Webhook(listener.secret).verify(r[2], r[1]) for r in receiver.requests)
    assert first == second
    assert len({headers["webhook-id"] for _, headers, _ in receiver.requests}) == 1
    delivery.refresh_from_db()
    assert (delivery.state, delivery.attempts, delivery.last_error) == (WebhookDelivery.DELIVERED, 2, "")


def test_a_receiver_that_never_takes_a_message_is_given_up(receiver: Receiver) -> None:
    hook(receiver)
    receiver.statuses = [503] * 99
    ended_run()
    waits = []
    while WebhookDelivery.objects.get().next_attempt:
        make_due()
        now = timezone.now()
        assert webhooks.deliver_due().failed == 1
        if following := WebhookDelivery.objects.get().next_attempt:
            waits.append(round((following - now).total_seconds() / 5) * 5)
    assert waits == list(webhooks.BACK_OFF)
    assert WebhookDelivery.objects.get().state == WebhookDelivery.GIVEN_UP
    assert len(receiver.requests) == len(webhooks.BACK_OFF) + 1
    receiver.statuses = []
    outbox.redeliver(WebhookDelivery.objects.get())
    assert webhooks.deliver_due().delivered == 1
    assert len({headers["webhook-id"] for _, headers, _ in receiver.requests}) == 1


def test_a_receiver_may_ask_for_more_time_or_say_that_it_is_gone(receiver: Receiver) -> None:
    hook(receiver)
    receiver.statuses, receiver.answer_headers = [429, 410], {"Retry-After": "700"}
    ended_run()
    webhooks.deliver_due()
    delivery = WebhookDelivery.objects.get()
    assert delivery.next_attempt
    assert delivery.next_attempt > timezone.now() + timedelta(seconds=650)
    make_due()
    webhooks.deliver_due()
    assert WebhookDelivery.objects.get().state == WebhookDelivery.GIVEN_UP


def test_several_deliverers_send_each_message_once(make_receiver: Callable[..., Receiver]) -> None:
    receivers = [make_receiver() for _ in range(3)]
    for number, receiver in enumerate(receivers):
        hook(receiver, f"receiver {number}")
    for number in range(10):
        ended_run(f"a{number:03d}")

    start = threading.Barrier(4)

    def deliver(_: int) -> int:
        start.wait(20)
        delivered = 0
        try:
            while WebhookDelivery.objects.exclude(next_attempt=None).exists():
                delivered += webhooks.deliver_due().delivered
        finally:
            connection.close()
        return delivered

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(deliver, range(4))) == 30
    for receiver in receivers:
        assert len(receiver.requests) == 10
        assert len({headers["webhook-id"] for _, headers, _ in receiver.requests}) == 10


def test_a_deliverer_that_died_leaves_its_message_to_the_next_one(receiver: Receiver) -> None:
    hook(receiver)
    ended_run()
    delivery = WebhookDelivery.objects.get()
    assert webhooks._reserve(delivery)  # then the deliverer dies
    assert webhooks.deliver_due() == webhooks.Round()
    make_due()  # the lease has expired
    assert webhooks.deliver_due() == webhooks.Round(delivered=1)
    assert WebhookDelivery.objects.get().attempts == 2


def test_a_receiver_that_hangs_delays_neither_the_end_of_a_run_nor_other_receivers(
    make_receiver: Callable[..., Receiver],
) -> None:
    hanging, well = make_receiver(), make_receiver()
    hanging.hold.clear()
    hook(hanging, "hanging")
    hook(well, "well")
    ended_run("a001")
    stop = threading.Event()
    deliverer = threading.Thread(target=webhooks.deliver_until, args=(stop, 60))
    deliverer.start()
    wait_for(lambda: hanging.requests and well.requests, what="both to be asked")
    run = active_run("a002")
    start = time.monotonic()
    assert lifecycle.finish_run(run, reason="", exit_code=0)
    assert time.monotonic() - start < 1 * PATIENCE
    assert WebhookDelivery.objects.filter(run__expid="a001", delivered_at=None).exists()  # still being sent
    hanging.hold.set()
    stop.set()
    deliverer.join(20)


def test_a_failing_receiver_is_asked_once_a_round(receiver: Receiver) -> None:
    hook(receiver)
    receiver.statuses = [500] * 99
    for number in range(5):
        ended_run(f"a{number:03d}")
    assert webhooks.deliver_due() == webhooks.Round(failed=1)
    assert len(receiver.requests) == 1


def test_a_redirect_is_not_followed(make_receiver: Callable[..., Receiver]) -> None:
    receiver, elsewhere = make_receiver(), make_receiver()
    receiver.statuses, receiver.answer_headers = [307], {"Location": elsewhere.url}
    hook(receiver)
    ended_run()
    assert webhooks.deliver_due() == webhooks.Round(failed=1)
    assert WebhookDelivery.objects.get().last_status == 307
    assert not elsewhere.requests


def test_a_webhook_that_was_switched_off_waits(receiver: Receiver) -> None:
    listener = hook(receiver)
    ended_run()
    Webhook.objects.update(enabled=False)
    assert webhooks.deliver_due() == webhooks.Round()
    Webhook.objects.filter(pk=listener.pk).update(enabled=True)
    assert webhooks.deliver_due() == webhooks.Round(delivered=1)


def test_the_secret_is_in_no_log(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    listener = hook(receiver)
    receiver.statuses = [500]
    ended_run()
    webhooks.deliver_due()
    make_due()
    webhooks.deliver_due()
    assert "given up" not in caplog.text
    assert listener.name in caplog.text
    assert listener.secret not in caplog.text
    assert listener.secret not in repr(listener)


def test_the_commands_deliver(receiver: Receiver, capsys: pytest.CaptureFixture[str]) -> None:
    hook(receiver)
    ended_run("a001")
    call_command("deliver_webhooks")
    assert "1 delivered, 0 failed" in capsys.readouterr().out
    ended_run("a002")
    call_command("watch_runs")
    assert len(receiver.requests) == 2


def test_delivering_at_an_interval_goes_on_until_it_is_stopped(receiver: Receiver) -> None:
    hook(receiver)
    stop = threading.Event()
    deliverer = threading.Thread(target=webhooks.deliver_until, args=(stop, 0.05))
    deliverer.start()
    try:
        for number in (1, 2):
            ended_run(f"a00{number}")
            wait_for(lambda number=number: len(receiver.requests) == number, what=f"message {number}")  # type: ignore[misc]
    finally:
        stop.set()
        deliverer.join(20)
    assert not deliverer.is_alive()


def test_an_error_of_ours_ends_one_attempt_and_not_the_deliveries(
    receiver: Receiver, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.RUNNERS_WEBHOOK_PRIVATE_TARGETS = [None]  # settings.py would reject this value
    hook(receiver)
    ended_run()
    stop = threading.Event()
    deliverer = threading.Thread(target=webhooks.deliver_until, args=(stop, 0.05))
    deliverer.start()
    try:
        wait_for(lambda: WebhookDelivery.objects.get().last_error, what="the attempt that fails")
        settings.RUNNERS_WEBHOOK_PRIVATE_TARGETS = LOOPBACK
        make_due()
        wait_for(lambda: receiver.requests, what="the message")
    finally:
        stop.set()
        deliverer.join(20)
    assert "Traceback" in caplog.text


@pytest.mark.parametrize("command", ["watch_runs", "deliver_webhooks"])
def test_a_process_delivers_until_it_is_told_to_end(
    receiver: Receiver, tmp_path: Path, _migrated: Path, command: str
) -> None:
    app = AppServer(tmp_path / "app", env={"RUNNERS_WEBHOOK_PRIVATE_TARGETS": "127.0.0.1"}, template_db=_migrated)
    argv = [sys.executable, "manage.py", command, "--interval", "0.1"]
    process = start(argv, log=app.log, env=app.environment, cwd=ROOT)
    try:
        app.manage("shell", "-c", f"{_ENDED_RUN}\nend({receiver.url!r})")
        wait_for(lambda: receiver.requests, what="the message")
        process.terminate()
        assert process.wait(20) == 0, app.log_text()
    finally:
        end(process)
    assert "Traceback" not in app.log_text()


_ENDED_RUN = """
from runners.models import RunnerRun, Webhook
from runners.services import lifecycle
def end(url):
    Webhook.objects.create(name="a", url=url)
    run = RunnerRun.objects.create(expid="a001", config={}, runner="LOCAL", module_loader="NO_MODULE")
    lifecycle.finish_run(run, reason="", exit_code=0)
"""


# --- allowed targets --------------------------------------------------------------------------------------------------


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
def test_addresses_that_are_not_public(address: str, settings: Any) -> None:
    settings.RUNNERS_WEBHOOK_PRIVATE_TARGETS = []
    assert not is_allowed(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_addresses_that_are_public(address: str, settings: Any) -> None:
    settings.RUNNERS_WEBHOOK_PRIVATE_TARGETS = []
    assert is_allowed(address)


def test_networks_of_ones_own_can_be_allowed(settings: Any) -> None:
    settings.RUNNERS_WEBHOOK_PRIVATE_TARGETS = [ip_network("10.1.0.0/16"), ip_network("fec0::/10")]
    assert is_allowed("fec0::1")
    assert is_allowed("10.1.2.3")
    assert is_allowed("::ffff:10.1.2.3")
    assert not is_allowed("10.2.2.3")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://no-such-host.invalid/", "its name is not known"),
        ("http://127.0.0.1:1/", "refused"),
        ("http://127.0.0.1:99999/", "Port"),
    ],
)
def test_what_cannot_be_reached_is_said_in_words(url: str, words: str, settings: Any) -> None:
    settings.RUNNERS_WEBHOOK_PRIVATE_TARGETS = LOOPBACK
    with pytest.raises(NotSent, match=words):
        post(url, b"{}", {})


def test_an_answer_that_drips_ends_at_the_deadline(settings: Any) -> None:
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


# --- input of an admin ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {"url": "ftp://example.org/"},
        {"url": "https://user:password@example.org/"},
        {"url": "https://example.org/#fragment"},
        {"url": "http://hooks:port/"},
        {"url": "http://-/"},
        {"url": "http://hooks:8080/\n"},
        {"url": "http:///hooks"},
        {"secret": "whsec_short"},
        {"secret": "whsec_" + base64.b64encode(bytes(32)).decode()},
        {"secret": "no prefix"},
        {"events": ["run.flew"]},
        {"events": "run.completed"},
        {"profile_names": [1]},
    ],
    ids=str,
)
def test_what_is_no_webhook_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        Webhook(**({"name": "a", "url": "https://example.org/hook"} | values)).full_clean()
    assert set(caught.value.message_dict) == set(values)


@pytest.mark.parametrize(
    "url", ["http://hooks.example.org:8080/x?y=1", "http://hooks:8080/", "https://hooks", "http://[2001:db8::1]:80/"]
)
def test_a_webhook_needs_a_name_and_a_url(url: str) -> None:
    Webhook(name="a", url=url, events=WebhookEvent.values).full_clean()


def test_the_payload_is_json_whatever_the_run_says(receiver: Receiver) -> None:
    hook(receiver)
    run = active_run()
    RunnerRun.objects.filter(pk=run.pk).update(started_by='größe "quoted" \u2028', modules="a\nb")
    lifecycle.finish_run(run, reason="", exit_code=0)
    webhooks.deliver_due()
    data = json.loads(receiver.requests[0][2])["data"]
    assert (data["started_by"], data["modules"]) == ('größe "quoted" \u2028', "a\nb")
    assert os.fsencode(data["started_by"])
