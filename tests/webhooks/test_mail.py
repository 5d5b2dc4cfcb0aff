"""Mail about runs: who gets it, what it says, and a mail server that fails. A real server takes it by SMTP."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.utils import timezone

from profiles.models import RunnerProfile
from runners.exceptions import InvalidRequest, TooManyRequests
from runners.models import Mail, MailSubscription, RunnerRun, RunReason, WebhookEvent
from runners.services import lifecycle, mail, outbox
from runners.webhooks import delivery
from runners.webhooks import mail as delivery_of_mail
from runners.webhooks.delivery import Round
from tests.support.processes import PATIENCE
from tests.support.smtp import MailServer
from tests.support.webhooks import Receiver, active_run, hook

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def server(settings: Any) -> Iterator[MailServer]:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    server = MailServer()
    settings.EMAIL_HOST, settings.EMAIL_PORT, settings.EMAIL_TIMEOUT = "127.0.0.1", server.port, 15
    settings.DEFAULT_FROM_EMAIL = "runners@example.org"
    settings.RUNNERS_PUBLIC_URL = "https://runners.example.org"
    yield server
    server.close()


def person(name: str = "ana", **fields: Any) -> User:
    return User.objects.create_user(name, email=f"{name}@example.org", **fields)


def run_of(name: str, **fields: Any) -> RunnerRun:
    run = active_run(**fields)
    run.started_by = name
    run.save()
    return run


def finish(run: RunnerRun, **more: Any) -> None:
    assert lifecycle.finish_run(run, reason=RunReason.FAILED, exit_code=3, **more)


def make_due() -> None:
    Mail.objects.exclude(next_attempt=None).update(next_attempt=timezone.now())


def test_the_end_of_a_run_is_mailed_to_the_person_who_started_it(server: MailServer) -> None:
    ana = person()
    person("ben")
    mail.subscribe(ana, mine=True, profiles=[], runs=[])
    run = run_of("ana")
    jobs = {"total": 13, "failed": 1, "not_run": 2, "failed_jobs": ["a001_BAD"]}
    finish(run, detail="password=hunter2 in a log", jobs=jobs)
    assert server.connections == 0  # the end of a run only stores the message
    assert delivery_of_mail.deliver_due() == Round(delivered=1)
    (message,) = server.mails
    assert (message["To"], message["From"]) == ("ana@example.org", "runners@example.org")
    assert message["Subject"] == f"[Autosubmit] a001: run {run.pk} TERMINATED (failed)"
    text = message.get_content().replace("\r\n", "\n")
    assert "1 of 13 jobs failed: a001_BAD" in text
    assert f"https://runners.example.org/runs/{run.pk}\n" in text
    assert "hunter2" not in text
    assert message["Auto-Submitted"] == "auto-generated"
    assert delivery_of_mail.deliver_due() == Round()
    assert Mail.objects.get().state == Mail.SENT


def test_a_restart_and_its_refusal_are_told_apart(server: MailServer) -> None:
    mail.subscribe(person(), mine=True, profiles=[], runs=[])
    run = run_of("ana")
    for restarted in (True, False):
        outbox.tell(run, WebhookEvent.RESTARTED, restarted=restarted, why="a reason")
    subjects = [f"[Autosubmit] a001: run {run.pk} {words}" for words in ("started again", "is not started again")]
    bodies = [f"Run {run.pk} of experiment a001 {words}." for words in ("was started again", "is not started again")]
    told = list(Mail.objects.order_by("id"))
    assert [each.subject for each in told] == subjects
    assert [each.body.partition("\n")[0] for each in told] == bodies


def test_each_person_gets_one_message_however_often_they_have_asked(server: MailServer) -> None:
    profile = RunnerProfile.objects.create(name="MACHINE", runner_type="LOCAL", module_loader_type="NO_MODULE")
    ana, ben, eve = person(), person("ben"), person("eve")
    run = run_of("ana")
    mail.subscribe(ana, mine=True, profiles=["MACHINE"], runs=[run.pk])
    mail.subscribe(ben, mine=True, profiles=["MACHINE"], runs=[])
    mail.subscribe(eve, mine=True, profiles=[], runs=[])
    profile.name = "RENAMED"  # the subscription stays
    profile.save()
    for _ in range(2):
        outbox.tell(run, WebhookEvent.LOG_TOO_LARGE)
    finish(run)
    told = Mail.objects.order_by("id").values_list("user__username", "event")
    assert sorted(told) == [
        ("ana", "run.log_too_large"),
        ("ana", "run.terminated"),
        ("ben", "run.log_too_large"),
        ("ben", "run.terminated"),
    ]


def test_nobody_is_told_about_a_run_that_they_may_not_see(server: MailServer) -> None:
    profile = RunnerProfile.objects.create(name="MACHINE", runner_type="LOCAL", module_loader_type="NO_MODULE")
    ben, gone, without = person("ben"), person("gone"), User.objects.create_user("without")
    run = run_of("ana")
    for user in (ben, gone, without):
        mail.subscribe(user, mine=False, profiles=["MACHINE"], runs=[run.pk])
    profile.view_groups.add(Group.objects.create(name="modellers"))
    gone.is_active = False
    gone.save()
    finish(run)
    assert not Mail.objects.exists()
    with pytest.raises(InvalidRequest, match="MACHINE"):
        mail.subscribe(ben, mine=False, profiles=["MACHINE"], runs=[])
    with pytest.raises(InvalidRequest, match="does not exist"):
        mail.subscribe(ben, mine=False, profiles=[], runs=[run.pk])


def test_an_account_that_is_deactivated_meanwhile_gets_no_message(server: MailServer) -> None:
    ana = person()
    mail.subscribe(ana, mine=True, profiles=[], runs=[])
    finish(run_of("ana"))
    User.objects.update(is_active=False)
    assert delivery_of_mail.deliver_due() == Round(failed=1)
    assert (Mail.objects.get().state, server.mails) == (Mail.GIVEN_UP, [])


def test_without_a_mail_server_nothing_is_stored(settings: Any, django_assert_num_queries: Any) -> None:
    settings.EMAIL_HOST = ""
    ana = person()
    mail.subscribe(ana, mine=True, profiles=[], runs=[])
    run = run_of("ana")
    with django_assert_num_queries(4):  # BEGIN, the end, the webhooks, COMMIT
        finish(run)
    assert not Mail.objects.exists()
    with pytest.raises(InvalidRequest, match="EMAIL_HOST"):
        mail.send_test(ana)


@pytest.mark.parametrize("text", ["x\r\nBcc: eve@example.org", "x\nBcc: eve@example.org\n\nbody", "\u2028\x85 \0x"])
def test_no_text_becomes_a_header(server: MailServer, text: str) -> None:
    ana = person()
    mail.subscribe(ana, mine=True, profiles=[], runs=[])
    run = run_of("ana")
    RunnerRun.objects.filter(pk=run.pk).update(host=text.replace("\0", ""), expid=text[:16].replace("\0", ""))
    run.refresh_from_db()
    finish(run)
    assert delivery_of_mail.deliver_due() == Round(delivered=1)
    assert server.mails[0]["Bcc"] is None
    assert server.recipients == ["RCPT TO:<ana@example.org>"] or "ana@example.org" in server.recipients[0]
    assert len(server.recipients) == 1
    User.objects.update(email=f"ana@example.org{text}")
    make_due()
    Mail.objects.update(next_attempt=timezone.now())
    delivery_of_mail.deliver_due()
    assert not any("eve" in each for each in server.recipients)


def test_a_server_that_hangs_costs_one_deadline_per_round_and_nothing_else(
    server: MailServer, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_of_mail, "DEADLINE", 0.5)
    ana = person()
    mail.subscribe(ana, mine=True, profiles=[], runs=[])
    hook(receiver)
    server.hold.clear()
    for expid in ("a001", "a002", "a003"):
        finish(run_of("ana", expid=expid))
    start = time.monotonic()
    assert delivery_of_mail.deliver_due() == Round(failed=1)
    assert time.monotonic() - start < 5 * PATIENCE
    assert server.connections == 1
    assert "did not answer within" in Mail.objects.exclude(last_error="").get().last_error
    assert delivery.deliver_due() == Round(delivered=3)  # webhooks do not wait
    server.hold.set()
    make_due()
    assert delivery_of_mail.deliver_due() == Round(delivered=3)


def test_an_address_that_the_server_rejects_is_given_up_and_others_are_tried(server: MailServer) -> None:
    for name in ("ana", "ben"):
        mail.subscribe(person(name), mine=True, profiles=[], runs=[])
        finish(run_of(name))
    server.answers["RCPT"] = "550 no such user"
    assert delivery_of_mail.deliver_due() == Round(failed=2)
    assert {each.state for each in Mail.objects.all()} == {Mail.GIVEN_UP}
    assert "550" in Mail.objects.all()[0].last_error


FULL = "RCPT TO:<ANA@EXAMPLE.ORG>"


@pytest.mark.parametrize(
    ("command", "answer", "delivered", "failed"),
    [
        (FULL, "452 the mailbox is full", 1, 2),
        ("DATA", "451 this message has to wait", 0, 3),
        (FULL, "421 the service shuts down", 0, 1),
        ("DATA", "421 the service shuts down", 0, 1),
        ("MAIL", "451 the sender has to wait", 0, 1),
    ],
)
def test_only_a_server_that_takes_no_mail_ends_the_round(
    server: MailServer, command: str, answer: str, delivered: int, failed: int
) -> None:
    """Two messages wait for a person whose mailbox is full, and one for another person."""
    for name in ("ana", "ben"):
        mail.subscribe(person(name), mine=True, profiles=[], runs=[])
    for name in ("ana", "ana", "ben"):
        finish(run_of(name))
    server.answers[command] = answer
    assert delivery_of_mail.deliver_due() == Round(delivered=delivered, failed=failed)
    assert {each.state for each in Mail.objects.filter(user__username="ana")} == {Mail.WAITING}


def test_a_temporary_failure_is_retried_with_back_off(server: MailServer) -> None:
    mail.subscribe(person(), mine=True, profiles=[], runs=[])
    finish(run_of("ana"))
    server.answers["MAIL"] = "451 try again later"
    assert delivery_of_mail.deliver_due() == Round(failed=1)
    waiting = Mail.objects.get()
    assert waiting.state == Mail.WAITING
    assert waiting.next_attempt and waiting.next_attempt > timezone.now() + timedelta(seconds=2)
    assert delivery_of_mail.deliver_due() == Round()
    server.answers.clear()
    make_due()
    assert delivery_of_mail.deliver_due() == Round(delivered=1)
    server.close()
    Mail.objects.update(next_attempt=timezone.now(), attempts=100)
    assert delivery_of_mail.deliver_due() == Round(failed=1)
    assert Mail.objects.get().state == Mail.GIVEN_UP


def test_a_full_outbox_drops_messages_and_the_run_still_ends(
    server: MailServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mail, "MOST_WAITING", 2)
    mail.subscribe(person(), mine=True, profiles=[], runs=[])
    for number in range(5):
        finish(run_of("ana", expid=f"a00{number}"))
    assert Mail.objects.count() == 3
    assert "a message was dropped" in caplog.text


# --- Pages and API ----------------------------------------------------------------------------------------------------


def test_people_choose_on_a_page_and_unsubscribe_by_a_link(client: Client, server: MailServer) -> None:
    RunnerProfile.objects.create(name="MACHINE", runner_type="LOCAL", module_loader_type="NO_MODULE")
    ana = person()
    run = run_of("ben")
    client.force_login(ana)
    client.post("/account", {"action": "mail", "mine": "on", "profile": ["MACHINE"]})
    client.post(f"/runs/{run.pk}/mail", {"follow": "1"})
    page = client.get("/notifications", follow=True).content.decode()
    assert page.count(" checked") == 3
    assert "ana@example.org" in page
    assert "No mail about this run" in client.get(f"/runs/{run.pk}").content.decode()
    assert client.post("/account", {"action": "mail", "profile": ["NONE"]}).status_code == 400
    assert client.post("/account", {"action": "mail", "run": ["4711"]}).status_code == 400
    client.post("/account", {"action": "test-mail"})
    assert client.post("/account", {"action": "test-mail"}).status_code == 429
    finish(run)
    assert delivery_of_mail.deliver_due() == Round(delivered=2)
    test, ended = server.mails
    assert "test message" in test.get_content()
    link = ended["List-Unsubscribe"].strip(" <>").removeprefix("https://runners.example.org")
    client.logout()
    assert client.get(link).status_code == 200
    assert MailSubscription.objects.count() == 3
    assert client.post(link, {"List-Unsubscribe": "One-Click"}).status_code == 200
    assert client.post(link).status_code == 200  # twice
    assert MailSubscription.objects.count() == 2
    assert client.get(link).status_code == 404
    assert client.get("/notifications/unsubscribe/x:y:z").status_code == 404
    assert "/account#mail" in ended.get_content()


def test_a_test_message_is_sent_once_in_a_minute(server: MailServer) -> None:
    ana = person()
    mail.send_test(ana)
    with pytest.raises(TooManyRequests):
        mail.send_test(ana)
    Mail.objects.update(created=timezone.now() - timedelta(seconds=61))
    mail.send_test(ana)
    with pytest.raises(InvalidRequest, match="address"):
        mail.send_test(User.objects.create_user("without"))
