"""Messages reach a real HTTP server. The library of Standard Webhooks verifies the signatures."""

from __future__ import annotations

import io
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from runners.models import AuditRecord
from runners.models.webhook import Webhook, WebhookDelivery, new_secret
from runners.services import lifecycle, outbox
from runners.webhooks import delivery as webhooks
from runners.worker import due, embedded
from runners.worker.due import Silent
from runners.worker.embedded import EmbeddedWorker
from tests.support.processes import PATIENCE, end, start, wait_for
from tests.support.servers import ROOT, AppServer, listener
from tests.support.webhooks import LOOPBACK, Receiver, active_run, ended_run, hook, make_due

pytestmark = pytest.mark.django_db(transaction=True)


def worker(stop: threading.Event, interval: float) -> threading.Thread:
    """Start an embedded worker in a thread."""
    voice = Silent()

    def work() -> None:
        embedded.run(EmbeddedWorker(voice, lambda: list(due.find_messages())), stop, interval, lambda: None, voice)
        connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


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


def test_a_webhook_signs_with_both_secrets_until_the_old_one_is_retired(receiver: Receiver) -> None:
    old = hook(receiver).secret
    printed = io.StringIO()
    call_command("rotate_webhook_secret", Webhook.objects.get().name, stdout=printed)
    new = printed.getvalue().strip()
    assert new == Webhook.objects.get().secret != old
    with pytest.raises(CommandError, match="Run --retire first"):
        call_command("rotate_webhook_secret", Webhook.objects.get().name)
    ended_run()
    assert webhooks.deliver_due().delivered == 1
    ((_, headers, body),) = receiver.requests
    for secret in (old, new):
        assert standardwebhooks.Webhook(secret).verify(body, headers)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(new_secret()).verify(body, headers)

    call_command("rotate_webhook_secret", Webhook.objects.get().name, "--retire")
    ended_run(expid="a002")
    assert webhooks.deliver_due().delivered == 1
    _, headers, body = receiver.requests[-1]
    assert standardwebhooks.Webhook(new).verify(body, headers)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(old).verify(body, headers)
    recorded = [str(record.__dict__) for record in AuditRecord.objects.filter(endpoint="rotate-webhook-secret")]
    assert len(recorded) == 2 and not any(secret in text for secret in (old, new) for text in recorded)


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


def test_a_message_is_given_up_after_the_last_retry(receiver: Receiver) -> None:
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


def test_a_receiver_may_send_retry_after_or_410_gone(receiver: Receiver) -> None:
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


def test_a_retry_after_of_a_receiver_is_at_most_the_longest_back_off(receiver: Receiver) -> None:
    hook(receiver)
    receiver.statuses, receiver.answer_headers = [503], {"Retry-After": "999999"}
    ended_run()
    webhooks.deliver_due()
    following = WebhookDelivery.objects.get().next_attempt
    assert following
    assert following <= timezone.now() + timedelta(seconds=webhooks.BACK_OFF[-1])


def test_several_deliverers_send_each_message_once(make_receiver: Callable[..., Receiver]) -> None:
    receivers = [make_receiver() for _ in range(3)]
    for number, receiver in enumerate(receivers):
        hook(receiver, f"receiver {number}")
    for number in range(10):
        ended_run(f"a{number:03d}")

    start = threading.Barrier(4)

    def deliver(_: int) -> int:
        start.wait(20 * PATIENCE)
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


def test_a_deliverer_that_is_late_does_not_overwrite_the_result_of_the_next_one(settings: Any) -> None:
    """The lease of the first deliverer ends before it gets its answer, an error. The second one delivers."""
    settings.RUNNERS_WEBHOOK_PRIVATE_TARGETS = LOOPBACK
    requests: list[socket.socket] = []
    is_delivered = threading.Event()

    def serve(connection: socket.socket) -> None:
        requests.append(connection)
        status = b"204 No Content"
        if len(requests) == 1:
            is_delivered.wait(30 * PATIENCE)
            status = b"500 Internal Server Error"
        while b"}" not in connection.recv(65536):
            pass
        connection.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")

    with listener(serve) as port, ThreadPoolExecutor(1) as pool:
        Webhook.objects.create(name="of the tests", url=f"http://127.0.0.1:{port}/")
        ended_run()
        late = pool.submit(webhooks.deliver_due)
        wait_for(lambda: requests, what="the first request")
        make_due()  # the lease has ended
        assert webhooks.deliver_due() == webhooks.Round(delivered=1)
        is_delivered.set()
        assert late.result(30 * PATIENCE) == webhooks.Round(failed=1)
    delivery = WebhookDelivery.objects.get()
    assert (delivery.state, delivery.last_status, delivery.last_error) == (WebhookDelivery.DELIVERED, 204, "")


def test_a_hanging_receiver_delays_neither_the_end_of_a_run_nor_other_receivers(
    make_receiver: Callable[..., Receiver],
) -> None:
    hanging, well = make_receiver(), make_receiver()
    hanging.hold.clear()
    hook(hanging, "hanging")
    hook(well, "well")
    ended_run("a001")
    stop = threading.Event()
    deliverer = worker(stop, 60)
    wait_for(lambda: hanging.requests and well.requests, what="both to be asked")
    run = active_run("a002")
    start = time.monotonic()
    assert lifecycle.finish_run(run, reason="", exit_code=0)
    assert time.monotonic() - start < 1 * PATIENCE
    assert WebhookDelivery.objects.filter(run__expid="a001", delivered_at=None).exists()  # still being sent
    hanging.hold.set()
    stop.set()
    deliverer.join(20 * PATIENCE)


def test_a_failing_receiver_is_contacted_once_per_round(receiver: Receiver) -> None:
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
    deliverer = worker(stop, 0.05)
    try:
        for number in (1, 2):
            ended_run(f"a00{number}")
            wait_for(lambda number=number: len(receiver.requests) == number, what=f"message {number}")  # type: ignore[misc]
    finally:
        stop.set()
        deliverer.join(20 * PATIENCE)
    assert not deliverer.is_alive()


def test_a_bug_in_one_delivery_does_not_end_the_others(
    receiver: Receiver, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.RUNNERS_WEBHOOK_PRIVATE_TARGETS = [None]  # settings.py would reject this value
    hook(receiver)
    ended_run()
    stop = threading.Event()
    deliverer = worker(stop, 0.05)
    try:
        wait_for(lambda: WebhookDelivery.objects.get().last_error, what="the attempt that fails")
        settings.RUNNERS_WEBHOOK_PRIVATE_TARGETS = LOOPBACK
        make_due()
        wait_for(lambda: receiver.requests, what="the message")
    finally:
        stop.set()
        deliverer.join(20 * PATIENCE)
    assert "Traceback" in caplog.text


def test_a_process_delivers_until_it_is_told_to_end(receiver: Receiver, tmp_path: Path, _migrated: Path) -> None:
    app = AppServer(tmp_path / "app", env={"RUNNERS_WEBHOOK_PRIVATE_TARGETS": "127.0.0.1"}, template_db=_migrated)
    argv = [sys.executable, "manage.py", "watch_runs", "--interval", "0.5"]
    process = start(argv, log=app.log, env=app.environment, cwd=ROOT)
    try:
        app.manage("shell", "-c", f"{_ENDED_RUN}\nend({receiver.url!r})")
        wait_for(lambda: receiver.requests, what="the message")
        process.terminate()
        assert process.wait(20 * PATIENCE) == 0, app.log_text()
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
