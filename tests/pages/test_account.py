"""The account page: tokens, password, accounts on machines, and the lines that let the service in."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.utils import timezone

from profiles.models import AccountMap, PublishedSSHKey, RunnerProfile, UserSettings
from runners.exceptions import InvalidRequest
from runners.models import ApiToken, AuditRecord
from runners.models.token import hash_token
from runners.services import own_tokens
from runners.services.machines.ssh import keys
from tests.support.environments import StubAccount
from tests.support.servers import SSHServer

pytestmark = pytest.mark.django_db

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE8vcNEwdi8BMbEu1rDxnN3nlrPYzRdB3qnUNSZ1Cnt0 autosubmit-runners"
NEW = {"action": "make-token", "name": "laptop", "scope": "run", "days": "30"}


def profile(name: str, **fields: Any) -> RunnerProfile:
    values = {"runner_type": "SSH", "ssh_host": "login.example", "module_loader_type": "NO_MODULE"}
    return RunnerProfile.objects.create(name=name, **values | fields)


def page_of(client: Client) -> str:
    answer = client.get("/account")
    assert answer.status_code == 200
    assert "no-store" in answer["Cache-Control"]
    return answer.content.decode()


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_a_token_is_shown_exactly_once_and_never_logged_or_cached(
    browser: Client, ada: User, caplog: pytest.LogCaptureFixture, settings: Any
) -> None:
    settings.PROTECTION_LEVEL = "ALL"
    caplog.set_level(logging.DEBUG)
    answer = browser.post("/account", NEW)
    assert answer.status_code == 200
    assert "no-store" in answer["Cache-Control"]
    page = answer.content.decode()
    (text,) = re.findall(r"asr_[0-9a-f]{64}", page)
    token = ApiToken.objects.get()
    assert token.digest == hash_token(text)
    assert (token.user, token.name, token.scope) == (ada, "laptop", "run")
    assert token.expiry and timedelta(days=29) < token.expiry - timezone.now() <= timedelta(days=30)
    bearer = {"Authorization": f"Bearer {text}"}
    assert Client().get("/v4/runners/runs", headers=bearer).status_code == 200

    assert text not in page_of(browser)
    assert text not in str(dict(browser.session))
    assert text not in caplog.text
    record = AuditRecord.objects.get(endpoint="create-token")
    assert record.actor == "ada"
    assert text not in str(record.changes)
    assert token.digest not in str(record.changes)
    assert record.changes[0]["after"]["digest"] == "(set)"

    revoked = browser.post("/account", {"action": "revoke-token", "token": token.token_key}, follow=True)
    assert "is revoked" in revoked.content.decode()
    assert Client().get("/v4/runners/runs", headers=bearer).status_code == 401
    again = browser.post("/account", {"action": "revoke-token", "token": token.token_key})
    assert again.status_code == 400
    assert "does not exist any more" in again.content.decode()


def test_a_form_that_is_sent_twice_makes_one_token(browser: Client) -> None:
    (nonce,) = re.findall(r'name="nonce" value="(\w+)"', page_of(browser))
    assert browser.post("/account", NEW | {"nonce": nonce}).status_code == 200
    again = browser.post("/account", NEW | {"nonce": nonce}, follow=True)
    assert "is not shown again" in again.content.decode()
    assert ApiToken.objects.count() == 1


def test_people_see_and_revoke_only_their_own_tokens(browser: Client) -> None:
    eve = User.objects.create_user("eve")
    theirs, _ = ApiToken.issue(user=eve, name="of eve")
    assert "of eve" not in page_of(browser)
    assert browser.post("/account", {"action": "revoke-token", "token": theirs.token_key}).status_code == 400
    assert ApiToken.objects.get() == theirs


@pytest.mark.parametrize("key", ["\0", "a\0b", "\x7f", "\ud800", "é"])
def test_a_key_that_no_token_has_is_not_searched(
    ada: User, key: str, django_assert_num_queries: Callable[[int], AbstractContextManager[Any]]
) -> None:
    """PostgreSQL rejects a NUL."""
    with django_assert_num_queries(0), pytest.raises(InvalidRequest):
        own_tokens.revoke(user=ada, token_key=key, audit=AuditRecord())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": ""}, "This field is required"),
        ({"name": "x" * 101}, "at most 100 characters"),
        ({"name": "a\x1b[31mb"}, "printable characters"),
        ({"scope": "manage"}, "not one of the available choices"),
        ({"scope": "root"}, "not one of the available choices"),
        ({"days": "0"}, "greater than or equal to 1"),
        ({"days": "-1"}, "greater than or equal to 1"),
        ({"days": "366"}, "Give a number from 1 to 365."),
        ({"days": "9" * 40}, "Give a number from 1 to 365."),
        ({"days": "soon"}, "Enter a whole number."),
    ],
)
def test_an_invalid_token_form_names_the_field(browser: Client, fields: dict[str, str], words: str) -> None:
    answer = browser.post("/account", NEW | fields)
    assert answer.status_code == 400
    assert words in answer.content.decode()
    assert not ApiToken.objects.exists()
    assert AuditRecord.objects.get().outcome == "invalid_request"


def test_staff_may_make_tokens_that_manage(browser: Client, ada: User) -> None:
    ada.is_staff = True
    ada.save()
    assert browser.post("/account", NEW | {"scope": "manage"}).status_code == 200
    assert ApiToken.objects.get().scope == "manage"


def test_the_number_of_valid_tokens_is_bounded(browser: Client, ada: User) -> None:
    for number in range(50):
        ApiToken.issue(user=ada, name=str(number), expiry=timedelta(days=1))
    answer = browser.post("/account", NEW)
    assert answer.status_code == 400
    assert "Revoke those that you do not use" in answer.content.decode()
    ApiToken.objects.update(expiry=timezone.now() - timedelta(days=1))
    assert browser.post("/account", NEW).status_code == 200
    assert "expired" in page_of(browser)


def test_strange_names_are_shown_as_text(browser: Client) -> None:
    name = "<script>alert(1)</script> Ω " + "w" * 70
    assert browser.post("/account", NEW | {"name": name}).status_code == 200
    page = page_of(browser)
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; Ω" in page


# --- password ---------------------------------------------------------------------------------------------------------


def change(client: Client, old: str, new: str) -> Any:
    return client.post("/account/password", {"old_password": old, "new_password1": new, "new_password2": new})


def test_a_password_is_changed_and_this_session_goes_on(
    browser: Client, ada: User, caplog: pytest.LogCaptureFixture
) -> None:
    other = Client()
    other.force_login(ada)
    wrong = change(browser, "not it", "a much better secret")
    assert wrong.status_code == 400
    assert "Your old password was entered incorrectly" in wrong.content.decode()
    caplog.set_level(logging.DEBUG)
    assert change(browser, "x", "a much better secret").status_code == 302
    assert "better secret" not in caplog.text
    assert "The password is changed" in page_of(browser)
    assert other.get("/account").status_code == 302
    assert Client().login(username="ada", password="a much better secret")
    records = AuditRecord.objects.filter(endpoint="change-password").order_by("id")
    assert [each.outcome for each in records] == ["invalid_request", "ok"]
    assert records[1].changes[0]["after"] == {"password": "(changed)"}


def test_a_weak_password_is_rejected_and_guessing_is_slow(browser: Client, settings: Any) -> None:
    assert change(browser, "x", "ada").status_code == 400
    settings.THROTTLE_ACCOUNT_LOGINS = "3/hour"
    statuses = [change(browser, f"guess {number}", "a much better secret").status_code for number in range(4)]
    assert statuses[-1] == 429


def test_an_account_without_a_password_is_told_so(browser: Client, ada: User) -> None:
    ada.set_unusable_password()
    ada.save()
    browser.force_login(ada)
    assert "you sign in somewhere else" in page_of(browser)
    assert change(browser, "x", "a much better secret").status_code == 400


# --- accounts and lines -----------------------------------------------------------------------------------------------


def test_the_preferred_account_is_stored_and_checked(browser: Client, ada: User) -> None:
    assert browser.post("/account", {"action": "preferred", "preferred": "abc012345"}).status_code == 302
    assert UserSettings.objects.get(user=ada).preferred_username == "abc012345"
    assert 'value="abc012345"' in page_of(browser)
    wrong = browser.post("/account", {"action": "preferred", "preferred": "a b; rm"})
    assert wrong.status_code == 400
    assert "a b; rm" in wrong.content.decode()
    assert browser.post("/account", {"action": "preferred", "preferred": ""}).status_code == 302
    assert UserSettings.objects.get(user=ada).preferred_username == ""


def test_accounts_are_shown_for_each_profile_of_the_person(browser: Client) -> None:
    profile("FIXED", ssh_user="shared1")
    profile("OPEN")
    profile("BOUND", allowed_users="{accounts}\nproj_*", ssh_host="", allowed_hosts="*.hpc.example")
    profile("MAPPED", allowed_users="{accounts}")
    RunnerProfile.objects.create(name="HERE", runner_type="LOCAL", module_loader_type="NO_MODULE")
    profile("HIDDEN", ssh_user="secret1").run_groups.add(Group.objects.create(name="others"))
    page = page_of(browser)
    assert "No admin has mapped accounts to you" in page
    assert "none: no account is mapped to you" in page
    AccountMap.objects.create(person="ada", accounts="abc1\nabc2")
    page = page_of(browser)
    for words in ("shared1", "any: you name it", "abc1, abc2, proj_*", "*.hpc.example", "the account of the service"):
        assert words in page
    accounts = page.split('id="accounts"')[1].split('id="mail"')[0]
    assert "MAPPED" in accounts
    assert "HIDDEN" not in accounts
    assert "secret1" not in page


def test_the_lines_that_let_the_service_in_fit_the_profiles(browser: Client, settings: Any, tmp_path: Any) -> None:
    settings.RUNNERS_SSH_KEY_DIR = str(tmp_path / "keys")
    assert "None of your profiles needs an SSH login" in page_of(browser)
    by_key = profile("KEY", ssh_user="ops")
    assert "no admin has published it yet" in page_of(browser)
    PublishedSSHKey.objects.create(line=KEY)
    page = page_of(browser)
    assert f'<code id="key-1">{KEY}</code>' in page
    assert "TrustedUserCAKeys" not in page
    by_key.delete()
    profile("CERTIFICATE", ssh_user="ops", other_parameters={"SSH.AUTHENTICATION": "CERTIFICATE"})
    page = page_of(browser)
    assert KEY not in page
    assert "it has no user CA yet" in page
    line = keys.create(keys.USER_CA, comment="ca@here").line
    page = page_of(browser)
    assert f'<code id="ca-1">{line}</code>' in page
    assert f'<code id="authority-1">cert-authority {line}</code>' in page


def test_the_error_of_a_rejected_login_shows_the_line_itself(
    browser: Client, account: StubAccount, sshd: SSHServer
) -> None:
    profile("P", ssh_host="127.0.0.1", ssh_port=sshd.port, ssh_user=sshd.user)
    PublishedSSHKey.objects.create(line=KEY)
    sshd.authorized = False
    answer = browser.post("/start", {"profile_name": "P", "expid": "a000", "action": "do"})
    assert answer.status_code == 502
    page = answer.content.decode()
    assert "SSH authentication failed on the machine" in page
    assert f'<code id="key-1">{KEY}</code>' in page
    asked = browser.post("/machines/127.0.0.1", {"action": "ask"})
    assert f'<code id="key-1">{KEY}</code>' in asked.content.decode()
    assert f'<code id="key-1">{KEY}</code>' in browser.get("/machines/127.0.0.1").content.decode()
    sshd.authorized = True


# --- the rest ---------------------------------------------------------------------------------------------------------


def test_a_number_that_no_run_has_is_ignored(browser: Client) -> None:
    for text in ("9" * 5000, "9" * 25, "9" * 18, "x", "²"):
        assert browser.post("/account", {"action": "mail", "run": [text]}).status_code in (302, 400), text[:30]


def test_the_former_page_of_mail_leads_here(browser: Client) -> None:
    answer = browser.get("/notifications")
    assert answer.status_code == 301
    assert answer["Location"] == "/account#mail"


def test_the_page_needs_a_sign_in_and_a_known_action(browser: Client) -> None:
    assert Client().get("/account").status_code == 302
    assert Client().post("/account", NEW).status_code == 302
    assert browser.post("/account", {"action": "nonsense"}).status_code == 400
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(User.objects.get(username="ada"))
    assert strict.post("/account", NEW).status_code == 403
    assert not ApiToken.objects.exists()
