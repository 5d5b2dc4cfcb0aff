"""Staff users who are not superusers see and may do only what their permissions allow."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.test import Client
from django.urls import reverse

from profiles.admin.import_page import NEEDED, NEEDED_TO_PRUNE
from profiles.models import RunnerProfile
from runners.models import ApiToken, AuditRecord, RunnerRun
from runners.models.webhook import Webhook
from tests.support.rows import staff

pytestmark = pytest.mark.django_db


def url(name: str, *args: Any) -> str:
    return reverse(f"admin:{name}", args=args)


def rescope(client: Client, token: ApiToken, scope: str) -> int:
    """Post a changed form, reload the token, and return the status of the response."""
    status = client.post(url("runners_apitoken_change", token.pk), {"name": "mine now", "scope": scope}).status_code
    token.refresh_from_db()
    return status


def test_users_change_only_their_own_tokens() -> None:
    client = staff("runners.change_apitoken")
    theirs, _ = ApiToken.issue(user=User.objects.create_superuser("root"), expiry=None, scope="read")
    page = client.get(url("runners_apitoken_change", theirs.pk)).content.decode()
    assert theirs.token_key in page
    assert 'name="scope"' not in page
    assert rescope(client, theirs, "manage") == 403
    assert (theirs.scope, theirs.name) == ("read", "")
    mine, _ = ApiToken.issue(user=User.objects.get(username="sam"), expiry=None, scope="run")
    assert rescope(client, mine, "read") == 302
    assert (mine.scope, mine.name) == ("read", "mine now")


def test_a_superuser_changes_any_token(admin_client: Client) -> None:
    theirs, _ = ApiToken.issue(user=User.objects.create_user("ada"), expiry=None, scope="read")
    assert rescope(admin_client, theirs, "run") == 302
    assert theirs.scope == "run"


@pytest.mark.parametrize(("permissions", "scope"), [((), "run"), (("runners.add_apitoken",), "manage")])
def test_a_token_is_widened_only_by_users_who_may_create_it(permissions: tuple[str, ...], scope: str) -> None:
    client = staff("runners.change_apitoken", *permissions)
    mine, _ = ApiToken.issue(user=User.objects.get(username="sam"), expiry=None, scope="run")
    rescope(client, mine, "manage")
    assert mine.scope == scope


def test_a_user_with_view_permission_sees_no_secrets_of_webhooks(admin_client: Client) -> None:
    hook = Webhook.objects.create(name="H", url="https://example.com/hook")
    page = url("runners_webhook_change", hook.pk)
    assert hook.secret in admin_client.get(page).content.decode().replace("&#x27;", "'")
    seen = staff("runners.view_webhook").get(page).content.decode()
    assert hook.url in seen
    assert hook.secret not in seen
    assert "Signing" not in seen


def test_a_user_may_create_a_webhook_without_the_right_to_change_it() -> None:
    client = staff("runners.add_webhook")
    assert 'name="secret"' in client.get(url("runners_webhook_add")).content.decode()


def test_a_copy_shows_no_profile_to_users_without_view_permission() -> None:
    profile = RunnerProfile.objects.create(name="P", runner_type="SSH", ssh_host="login9.example.com")
    client = staff("profiles.add_runnerprofile")
    response = client.get(url("profiles_runnerprofile_add"), {"copy_of": profile.pk})
    assert response.status_code == 403
    assert "login9" not in response.content.decode()
    assert client.get(url("profiles_runnerprofile_add")).status_code == 200


def test_removing_is_offered_by_an_import_only_to_who_may() -> None:
    RunnerProfile.objects.create(name="KEPT")
    client = staff(*NEEDED)
    page = url("profiles_runnerprofile_import")
    assert 'name="prune"' not in client.get(page).content.decode()
    text = "RUNNER_CONFIGURATION: {PROFILES: {NEW: {}}}"
    response = client.post(page, {"text": text, "prune": "on"})  # from a form older than the lost permission
    assert response.status_code == 200
    html = response.content.decode()
    assert 'name="prune"' not in html
    assert "PROFILES.KEPT" in html
    confirmation = re.search(r'name="confirm" value="([^"]+)"', html)
    assert confirmation
    client.post(page, {"text": text, "prune": "on", "confirm": confirmation[1]})
    assert set(RunnerProfile.objects.values_list("name", flat=True)) == {"KEPT", "NEW"}
    allowed = [Permission.objects.get(codename=name.partition(".")[2]) for name in NEEDED_TO_PRUNE]
    User.objects.get(username="sam").user_permissions.add(*allowed)
    assert 'name="prune"' in client.get(page).content.decode()


def test_stopping_is_offered_only_to_who_may() -> None:
    profile = RunnerProfile.objects.create(name="P", runner_type="LOCAL", module_loader_type="NO_MODULE")
    operators = Group.objects.create(name="operators")
    profile.stop_groups.add(operators)
    config = profile.resolve({}).as_dict()
    fields = {"config": config, "runner": "LOCAL", "module_loader": "NO_MODULE", "profile_name": "P"}
    run = RunnerRun.objects.create(expid="a001", reachable=False, **fields)
    client = staff("runners.view_runnerrun", "runners.change_runnerrun")
    links = [url(f"runners_runnerrun_{name}", run.pk) for name in ("stop", "abandon")]
    page = client.get(url("runners_runnerrun_change", run.pk)).content.decode()
    assert "Ask its machine now" in page
    assert not [link for link in links if f'href="{link}"' in page]
    for link in links:
        for response in (client.get(link), client.post(link, {"reason": "I want to"})):
            assert response.status_code == 403
            assert f"You may not stop run {run.pk} of a001" in response.content.decode()
            assert 'type="submit" class="default"' not in response.content.decode()
    run.refresh_from_db()
    assert run.is_active
    assert set(AuditRecord.objects.values_list("endpoint", "outcome")) == {
        ("stop-experiment", "profile_forbidden"),
        ("abandon-run", "profile_forbidden"),
    }
    User.objects.get(username="sam").groups.add(operators)
    page = client.get(url("runners_runnerrun_change", run.pk)).content.decode()
    assert [link for link in links if f'href="{link}"' in page] == links
    assert 'type="submit" class="default"' in client.get(links[0]).content.decode()
