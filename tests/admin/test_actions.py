"""What admins can do in the admin: probe, stop and abandon runs; host keys; tokens; webhook messages."""

from __future__ import annotations

import html as html_module
import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from profiles.models import EndpointToggle, RunnerProfile
from runners.models import ApiToken, AuditRecord, RunnerRun, RunReason, RunStatus, TrustedHostKey
from runners.models.webhook import Webhook, WebhookDelivery, WebhookEvent
from runners.services import lifecycle, log_cache, starting
from runners.services.machines.ssh.pool import POOL
from tests.support.environments import StubAccount
from tests.support.servers import SSHServer

pytestmark = pytest.mark.django_db


def text_of(response: Any) -> str:
    return html_module.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", response.content.decode())))


def url(model: str, name: str, *args: Any) -> str:
    return reverse(f"admin:runners_{model}_{name}", args=args)


def on(name: str, run: RunnerRun) -> str:
    return url("runnerrun", name, run.pk)


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(account: StubAccount, sshd: SSHServer) -> RunnerRun:
    """Return a run over SSH that continues until it is stopped."""
    account.experiment("a001")
    account.control("run", "a001", SLEEP=600)
    config = sshd.config("NO_MODULE")
    return starting.run_experiment(expid="a001", config=config, profile_name="", audit=AuditRecord(actor="ada"))


def test_the_machine_is_asked_when_the_admin_wants_it(
    admin_client: Client, run: RunnerRun, account: StubAccount, sshd: SSHServer
) -> None:
    sshd.stop()
    response = admin_client.post(on("refresh", run), follow=True)
    assert "The state is not known" in text_of(response)
    assert "UNREACHABLE" in text_of(response)
    assert "Declare ended" in text_of(response)
    sshd.start()
    POOL.close()
    RunnerRun.objects.update(probing_until=None)
    response = admin_client.post(on("refresh", run), follow=True)
    assert "running" in text_of(response)
    assert "Declare ended" not in text_of(response)
    account.kill()
    listed = admin_client.post(
        url("runnerrun", "changelist"), {"action": "ask", "_selected_action": [run.pk]}, follow=True
    )
    assert "Probed 1 active run(s); 1 had ended." in text_of(listed)
    run.refresh_from_db()
    assert (run.status, run.reason) == (RunStatus.TERMINATED, RunReason.LOST)
    page = admin_client.get(on("change", run))
    assert "Ask its machine now" not in text_of(page)


def test_a_run_is_stopped_after_a_question_even_with_the_toggle_off(
    admin_client: Client, run: RunnerRun, account: StubAccount
) -> None:
    EndpointToggle.objects.create(name="RUNNER_RUN", enabled=False)
    question = text_of(admin_client.get(on("stop", run)))
    assert "autosubmit stop" in question
    run.refresh_from_db()
    assert run.is_active
    response = admin_client.post(on("stop", run), {}, follow=True)
    assert f"Run {run.pk}: Experiment a001 stopped successfully." in text_of(response)
    assert "stopped by admin" in text_of(response)
    assert not account.processes()
    record = AuditRecord.objects.get(endpoint="stop-experiment")
    assert (record.actor, record.run_id, record.outcome) == ("admin", run.pk, "ok")
    again = admin_client.post(on("stop", run), {})
    assert again.status_code == 409
    assert "is not running" in text_of(again)


def test_an_admin_stops_the_run_of_the_page_and_not_a_later_one(
    admin_client: Client, run: RunnerRun, account: StubAccount, sshd: SSHServer
) -> None:
    account.kill()
    lifecycle.finish_run(run, reason=RunReason.LOST)
    config = sshd.config("NO_MODULE")
    later = starting.run_experiment(expid="a001", config=config, profile_name="", audit=AuditRecord())
    response = admin_client.post(on("stop", run), {})
    assert f"run {later.pk} of a001 is active now" in text_of(response)
    later.refresh_from_db()
    assert later.is_active


def test_a_run_whose_machine_answers_is_not_abandoned(admin_client: Client, run: RunnerRun) -> None:
    response = admin_client.post(on("abandon", run), {"reason": "I am in a hurry"})
    assert response.status_code == 409
    assert "Stop it instead" in text_of(response)
    run.refresh_from_db()
    assert run.is_active
    assert AuditRecord.objects.get(endpoint="abandon-run").outcome == "still_reachable"


def test_an_unreachable_run_is_abandoned_with_a_reason(admin_client: Client, run: RunnerRun, sshd: SSHServer) -> None:
    sshd.stop()
    response = admin_client.post(on("abandon", run), {"reason": "  "})
    assert response.status_code == 200
    assert response.context["form"].errors
    response = admin_client.post(on("abandon", run), {"reason": "The machine was scrapped."}, follow=True)
    assert "is now recorded as ended" in text_of(response)
    run.refresh_from_db()
    assert (run.status, run.reason) == (RunStatus.TERMINATED, RunReason.ABANDONED)
    assert run.detail == "The machine was scrapped. (admin)"
    record = AuditRecord.objects.get(endpoint="abandon-run")
    assert (record.actor, record.detail, record.outcome) == ("admin", "The machine was scrapped.", "ok")
    assert "The machine was scrapped." in text_of(response)  # and the audit trail


def test_the_end_of_the_log_is_read_through_the_service(
    admin_client: Client, run: RunnerRun, account: StubAccount, sshd: SSHServer
) -> None:
    (account.home / ".autosubmit-runners" / run.key / "log").write_text("\x1b[32m<b>green</b>\x1b[0m\n" * 2000)
    fragment = admin_client.get(on("log", run)).content.decode()
    assert "&lt;b&gt;green&lt;/b&gt;\n" in fragment
    assert "\x1b" not in fragment
    assert "The last" in fragment
    assert "<pre" in admin_client.get(on("change", run) + "?log=1").content.decode().partition('id="log-tail"')[2]
    sshd.stop()
    log_cache.forget()  # otherwise the log of a second ago would be shown
    response = admin_client.get(on("log", run))
    assert response.status_code == 200
    assert "The log cannot be read now." in text_of(response)
    assert admin_client.get(on("change", run)).status_code == 200  # does not contact the machine
    RunnerRun.objects.update(cleaned_at=timezone.now())
    assert "The log does not exist" in text_of(admin_client.get(on("log", run)))


# --- host keys --------------------------------------------------------------------------------------------------------

SCAN = ("trustedhostkey", "scan")


def test_a_host_key_is_looked_at_then_approved(admin_client: Client, sshd: SSHServer) -> None:
    sshd.forget_host_key()
    where = {"host": "127.0.0.1", "port": sshd.port}
    response = admin_client.post(url(*SCAN), where)
    assert sshd.host_key_fingerprint in response.content.decode()
    assert "not known yet" in text_of(response)
    assert not TrustedHostKey.objects.exists()
    profile = RunnerProfile.objects.create(name="P")
    response = admin_client.post(url(*SCAN), {**where, "approve": sshd.host_key_fingerprint, "profile": profile.pk})
    assert response["Location"] == reverse("admin:profiles_runnerprofile_check", args=[profile.pk])
    row = TrustedHostKey.objects.get()
    assert row.approved_by == "admin"
    assert AuditRecord.objects.get(endpoint="approve-host-key").actor == "admin"
    assert "trusted" in text_of(admin_client.post(url(*SCAN), where))
    listed = text_of(admin_client.get(url("trustedhostkey", "changelist")))
    assert sshd.host_key_fingerprint in listed


def test_a_changed_key_is_shown_beside_the_old_one(admin_client: Client, sshd: SSHServer) -> None:
    old = sshd.host_key_fingerprint
    sshd.swap_host_key()
    where = {"host": "127.0.0.1", "port": sshd.port}
    html = admin_client.post(url(*SCAN), where).content.decode()
    assert f"<del><code>{old}</code></del>" in html
    assert f"<ins><code>{sshd.host_key_fingerprint}</code></ins>" in html
    assert "checked" not in html  # no key is preselected
    assert "CHANGED" in html


def test_only_the_key_that_was_shown_is_approved(admin_client: Client, sshd: SSHServer) -> None:
    sshd.forget_host_key()
    seen = sshd.host_key_fingerprint
    sshd.swap_host_key()  # between the look and the approval
    where = {"host": "127.0.0.1", "port": sshd.port}
    response = admin_client.post(url(*SCAN), {**where, "approve": seen})
    assert "shows other keys now" in text_of(response)
    assert not TrustedHostKey.objects.exists()


def test_a_scan_of_a_stopped_machine_and_of_an_invalid_host_fails(admin_client: Client, sshd: SSHServer) -> None:
    sshd.stop()
    response = admin_client.post(url(*SCAN), {"host": "127.0.0.1", "port": sshd.port})
    assert "cannot be reached" in text_of(response)
    response = admin_client.post(url(*SCAN), {"host": "-oProxyCommand=x", "port": "0"})
    assert set(response.context["form"].errors) == {"host", "port"}


def test_forgetting_a_key_is_recorded(admin_client: Client) -> None:
    for number in range(3):
        TrustedHostKey.objects.create(host=f"h{number}", key_type="ssh-ed25519", key="AAAA")
    first, *others = TrustedHostKey.objects.all()
    admin_client.post(url("trustedhostkey", "delete", first.pk), {"post": "yes"})
    selected = {"action": "delete_selected", "_selected_action": [row.pk for row in others], "post": "yes"}
    admin_client.post(url("trustedhostkey", "changelist"), selected)
    assert not TrustedHostKey.objects.exists()
    assert AuditRecord.objects.filter(endpoint="forget-host-key", actor="admin").count() == 3


# --- tokens -----------------------------------------------------------------------------------------------------------


def make_token(client: Client, user: User, **fields: Any) -> Any:
    return client.post(
        url("apitoken", "add"), {"user": user.pk, "name": "cron", "scope": "read", "days": "30", **fields}
    )


def test_a_token_is_shown_once_works_and_is_revoked(
    admin_client: Client, client: Client, django_user_model: type[User], settings: Any
) -> None:
    settings.PROTECTION_LEVEL = "ALL"
    ada = django_user_model.objects.create_user("ada")
    response = make_token(admin_client, ada)
    found = re.search(r"<pre[^>]*>(asr_\w+)</pre>", response.content.decode())
    assert found
    secret = found[1]
    assert "no-store" in response["Cache-Control"]
    token = ApiToken.objects.get()
    assert (token.user, token.scope, token.name) == (ada, "read", "cron")
    assert 29 < (token.expiry - timezone.now()).total_seconds() / 86400 < 31  # type: ignore[operator]
    headers = {"Authorization": f"Bearer {secret}"}
    profiles = "/v4/runners/configuration/profiles"
    assert Client().get(profiles, headers=headers).status_code == 200
    for page in (url("apitoken", "changelist"), url("apitoken", "change", token.pk)):
        html = admin_client.get(page).content.decode()
        assert secret not in html
        assert "until" in html
    assert f"{timezone.localtime():%Y-%m-%d}" in text_of(admin_client.get(url("apitoken", "changelist")))  # last used
    assert not any(secret in (entry.object_repr + entry.change_message) for entry in LogEntry.objects.all())
    selected = {"action": "delete_selected", "_selected_action": [token.pk]}
    listed = admin_client.get(url("apitoken", "changelist")).content.decode()
    assert '<option value="delete_selected">Revoke the selected tokens</option>' in listed
    question = admin_client.post(url("apitoken", "changelist"), selected)
    assert "Are you sure" in text_of(question)
    assert ApiToken.objects.exists()
    admin_client.post(url("apitoken", "changelist"), {**selected, "post": "yes"})
    assert not ApiToken.objects.exists()
    assert Client().get(profiles, headers=headers).status_code == 401
    assert LogEntry.objects.filter(action_flag=3).count() == 1


def test_revoking_one_token_says_so_once(admin_client: Client, django_user_model: type[User]) -> None:
    make_token(admin_client, django_user_model.objects.create_user("ada"))
    delete = url("apitoken", "delete", ApiToken.objects.get().pk)
    assert "Are you sure" in text_of(admin_client.get(delete))
    response = admin_client.post(delete, {"post": "yes"}, follow=True)
    assert len(response.context["messages"]) == 1
    assert not ApiToken.objects.exists()


def test_a_token_without_end_and_one_that_expired_are_seen_as_such(
    admin_client: Client, django_user_model: type[User]
) -> None:
    ada = django_user_model.objects.create_user("ada")
    make_token(admin_client, ada, days="0")
    make_token(admin_client, ada, days="1", name="old")
    ApiToken.objects.filter(name="old").update(expiry=timezone.now())
    text = text_of(admin_client.get(url("apitoken", "changelist")))
    assert "without end" in text
    assert "expired" in text
    assert make_token(admin_client, ada, days="-1").context["adminform"].form.errors


def test_only_superusers_create_tokens_for_other_users(client: Client, django_user_model: type[User]) -> None:
    root = django_user_model.objects.create_superuser("root")
    sam = django_user_model.objects.create_user("sam", is_staff=True)
    sam.user_permissions.add(*Permission.objects.filter(codename__in=["add_apitoken", "view_apitoken", "view_user"]))
    client.force_login(sam)
    assert "user" in make_token(client, root, scope="manage").context["adminform"].form.errors
    assert not ApiToken.objects.exists()
    assert "asr_" in make_token(client, sam).content.decode()


# --- webhooks ---------------------------------------------------------------------------------------------------------


def test_a_webhook_is_created_with_offered_events_and_profiles(admin_client: Client) -> None:
    RunnerProfile.objects.create(name="P")
    html = admin_client.get(url("webhook", "add")).content.decode()
    secret = re.search(r'value="(whsec_[^"]+)"', html)
    assert secret
    fields = {
        "name": "H",
        "enabled": "on",
        "format": "generic",
        "url": "https://example.com/h",
        "secret": html_module.unescape(secret[1]),
    }
    response = admin_client.post(url("webhook", "add"), {**fields, "events": ["run.completed"], "profile_names": ["P"]})
    assert response.status_code == 302
    hook = Webhook.objects.get()
    assert (hook.events, hook.profile_names) == (["run.completed"], ["P"])
    assert hook.secret not in admin_client.get(url("webhook", "changelist")).content.decode()
    RunnerProfile.objects.all().delete()
    assert 'value="P"' in admin_client.get(url("webhook", "change", hook.pk)).content.decode()
    wrong = {**fields, "url": "ftp://x", "secret": "short", "name": "I"}
    errors = admin_client.post(url("webhook", "add"), wrong).context["adminform"].form.errors
    assert set(errors) == {"url", "secret"}


def test_a_message_is_sent_again(admin_client: Client) -> None:
    hook = Webhook.objects.create(name="H", url="https://example.com/hook")
    pks = [
        WebhookDelivery.objects.create(
            webhook=hook, event=WebhookEvent.COMPLETED, payload={}, attempts=7, next_attempt=None, last_error="HTTP 500"
        ).pk
        for _ in range(2)
    ]
    assert "given up" in text_of(admin_client.get(url("webhookdelivery", "changelist") + "?state=given-up"))
    response = admin_client.post(url("webhookdelivery", "redeliver", pks[0]), follow=True)
    assert "will be sent again" in text_of(response)
    admin_client.post(url("webhookdelivery", "changelist"), {"action": "redeliver", "_selected_action": pks[1:]})
    assert set(WebhookDelivery.objects.values_list("attempts", flat=True)) == {0}
    assert not WebhookDelivery.objects.filter(next_attempt=None).exists()
    assert admin_client.get(url("webhookdelivery", "redeliver", pks[0])).status_code == 405
