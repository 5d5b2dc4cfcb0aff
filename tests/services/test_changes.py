"""Every change of the configuration leaves an audit record: who, what, before, after."""

from __future__ import annotations

import ast
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.core.management import call_command
from django.db.models import Model
from django.test import Client
from django.urls import reverse

from profiles.models import AccountMap, EndpointToggle, PublishedSSHKey, RunnerProfile, UserSettings
from runners.models import ApiToken, AuditRecord, Maintenance, TrustedHostKey, Webhook
from runners.services import changes
from tests.support.paths import ROOT

pytestmark = pytest.mark.django_db

PASSWORD = "correct horse battery staple"


@pytest.fixture(autouse=True)
def unattended(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.RUNNERS_AUDIT_WITHOUT_REQUEST = True
    monkeypatch.setattr(sys, "argv", ["manage.py", "import_profiles"])


def user(name: str = "ana") -> Any:
    return get_user_model().objects.get_or_create(username=name)[0]


# For each model: a new row, the field that is changed, and its new value.
SAMPLES: dict[type[Model], tuple[Callable[[], Model], str, Any]] = {
    RunnerProfile: (lambda: RunnerProfile(name="P", runner_type="LOCAL"), "enabled", False),
    EndpointToggle: (lambda: EndpointToggle(name="RUNNER_RUN"), "enabled", False),
    PublishedSSHKey: (lambda: PublishedSSHKey(line="ssh-ed25519 AAAA"), "comment", "on the service"),
    AccountMap: (lambda: AccountMap(person="ana", accounts="abc1"), "accounts", "abc2"),
    UserSettings: (lambda: UserSettings(user=user()), "preferred_username", "abc1"),
    TrustedHostKey: (lambda: TrustedHostKey(host="h", key_type="ssh-ed25519", key="AAAA"), "key", "BBBB"),
    Maintenance: (lambda: Maintenance(machine="h.example", text="Disks"), "text", "More disks"),
    Webhook: (lambda: Webhook(name="W", url="https://a.example/"), "url", "https://b.example/"),
    ApiToken: (lambda: ApiToken(user=user(), digest="0" * 128, token_key="asr_1"), "scope", "read"),
    Group: (lambda: Group(name="G"), "name", "H"),
    get_user_model(): (lambda: get_user_model()(username="bob"), "is_active", False),
}


def last() -> dict[str, Any]:
    """Return the only change in the newest record."""
    record = AuditRecord.objects.order_by("-id")[0]
    assert record.endpoint == "change-configuration"
    assert record.actor.endswith("(import_profiles)")
    (change,) = record.changes or [{}]
    return dict(change)


def test_every_model_is_covered_or_is_said_to_be_no_configuration() -> None:
    assert set(changes.models_of_configuration()) == set(SAMPLES)
    known = {model._meta.label for model in apps.get_models()}
    assert known >= changes.NOT_CONFIGURATION


@pytest.mark.parametrize("model", SAMPLES, ids=lambda model: model.__name__)
def test_adding_changing_and_removing_a_row_is_recorded(model: type[Model]) -> None:
    make, field, value = SAMPLES[model]
    row = make()
    before = getattr(row, field)
    row.save()
    assert (last()["action"], last()["before"]) == ("add", {})
    setattr(row, field, value)
    row.save()
    row.save()  # changes nothing, so it leaves no record
    assert {**last(), "object": ""} == {
        "action": "change",
        "kind": str(model._meta.verbose_name),
        "object": "",
        "before": {field: before},
        "after": {field: value},
    }
    count = AuditRecord.objects.count()
    model._default_manager.filter(pk=row.pk).delete()
    assert AuditRecord.objects.count() == count + 1
    assert (last()["action"], last()["after"]) == ("remove", {})
    assert last()["before"].get(field, value) == value


def test_groups_permissions_and_members_are_recorded_from_both_sides() -> None:
    ana, group, profile = user(), Group.objects.create(name="G"), RunnerProfile.objects.create(name="P")
    ana.groups.add(group)
    assert (last()["object"], last()["before"], last()["after"]) == ("ana", {"groups": []}, {"groups": ["G"]})
    group.user_set.remove(ana)
    assert (last()["object"], last()["before"], last()["after"]) == ("G", {"user_set": ["ana"]}, {"user_set": []})
    profile.run_groups.set([group])
    assert (last()["object"], last()["after"]) == ("P", {"run_groups": ["G"]})
    assert AuditRecord.objects.order_by("-id")[0].profile_name == "P"
    profile.run_groups.clear()
    assert last()["before"] == {"run_groups": ["G"]}
    permission = Permission.objects.get(codename="change_runnerprofile")
    group.permissions.add(permission)
    assert "Can change" in last()["after"]["permissions"][0]
    ana.user_permissions.add(permission)
    assert "Can change" in last()["after"]["user_permissions"][0]
    group.delete()
    assert "Can change" in last()["before"]["permissions"][0]


def test_changes_of_secrets_are_recorded_without_values() -> None:
    ana = user()
    ana.set_password(PASSWORD)
    ana.save()
    assert (last()["before"], last()["after"]) == ({"password": ""}, {"password": "(set)"})
    ana.set_password(PASSWORD + "!")
    ana.save()
    assert (last()["before"], last()["after"]) == ({"password": "(set)"}, {"password": "(changed)"})
    hook = Webhook.objects.create(name="W", url="https://a.example/")
    old = hook.secret
    hook.secret = "whsec_" + "A" * 43 + "="
    hook.save()
    assert last()["after"] == {"secret": "(changed)"}
    hook.url = "https://a.example/?token=s3cr3t"
    hook.save()
    assert last()["after"] == {"url": "https://a.example/?(set)"}
    _, text = ApiToken.issue(user=ana)
    digest = ApiToken.objects.get().digest
    told = str(list(AuditRecord.objects.values()))
    for secret in (ana.password, old, hook.secret, text, digest, PASSWORD, "s3cr3t"):
        assert secret not in told


def test_sign_ins_and_uses_of_tokens_are_not_recorded_as_changes(client: Client) -> None:
    user().set_password(PASSWORD)
    ana = user()
    ana.set_password(PASSWORD)
    ana.save()
    _, text = ApiToken.issue(user=ana)
    count = AuditRecord.objects.count()
    assert client.login(username="ana", password=PASSWORD)
    client.get("/v4/runners/configuration/profiles", headers={"Authorization": f"Bearer {text}"})
    assert ApiToken.objects.get().last_used
    assert AuditRecord.objects.count() == count


def test_the_admin_records_who_changed_what_and_shows_it(admin_client: Client) -> None:
    profile = RunnerProfile.objects.create(name="P", runner_type="LOCAL", module_loader_type="NO_MODULE")
    url = reverse("admin:profiles_runnerprofile_changelist")
    admin_client.post(url, {"action": "disable", "_selected_action": [profile.pk]})
    record = AuditRecord.objects.order_by("-id")[0]
    assert (record.actor, record.address, record.profile_name) == ("admin", "127.0.0.1", "P")
    assert record.changes[0]["before"] == {"enabled": True}
    page = admin_client.get(reverse("admin:runners_auditrecord_change", args=[record.pk])).content.decode()
    assert "<td>change runner profile P</td><td>enabled</td><td>True</td><td>False</td>" in page
    listed = admin_client.get(reverse("admin:runners_auditrecord_changelist") + "?command=change-configuration")
    assert "change runner profile P: enabled" in listed.content.decode()
    admin_client.post(url, {"action": "delete_selected", "_selected_action": [profile.pk], "post": "yes"})
    assert AuditRecord.objects.order_by("-id")[0].changes[0]["action"] == "remove"


def test_the_api_records_who_changed_a_setting(client: Client) -> None:
    _, text = ApiToken.issue(user=user())
    path = "/v4/user-settings/preferred-username"
    headers = {"Authorization": f"Bearer {text}"}
    client.post(path, {"preferred_username": "abc1"}, content_type="application/json", headers=headers)
    record = AuditRecord.objects.order_by("-id")[0]
    assert (record.actor, record.token, record.address) == ("ana", ApiToken.objects.get().token_key, "127.0.0.1")
    assert record.changes[0]["after"]["preferred_username"] == "abc1"


def test_commands_record_the_unix_account(tmp_path: Path) -> None:
    file = tmp_path / "profiles.yml"
    text = "RUNNER_CONFIGURATION: {PROFILES: {P: {RUNNER_TYPE: LOCAL, MODULE_LOADER_TYPE: NO_MODULE, ENABLED: %s}}}"
    for enabled in ("true", "false"):
        file.write_text(text % enabled)
        call_command("import_profiles", str(file), stdout=io.StringIO())
    assert (last()["before"], last()["after"]) == ({"enabled": True}, {"enabled": False})
    call_command("create_token", "eva", create_user=True, stdout=io.StringIO(), stderr=io.StringIO())
    user_added, token_added = AuditRecord.objects.order_by("-id")[:2][::-1]
    assert [each.changes[0]["kind"] for each in (user_added, token_added)] == ["user", "API token"]


def test_deactivating_a_user_records_the_removed_tokens_and_accounts() -> None:
    ana = user()
    ApiToken.issue(user=ana)
    AccountMap.objects.create(person="ana", accounts="abc1")
    start = AuditRecord.objects.latest("id").pk
    ana.is_active = False
    ana.save()
    kinds = {(each["action"], each["kind"]) for r in AuditRecord.objects.filter(pk__gt=start) for each in r.changes}
    assert kinds == {("change", "user"), ("remove", "API token"), ("remove", "accounts of a person")}


# Calls that send no signals, and why they change no configuration.
SILENT = {
    ("profiles/admin/toggles.py", "EndpointToggle.objects.bulk_create"),  # they state the default: enabled
    ("runners/api/authentication.py", "ApiToken.objects.filter(pk=token.pk).update"),  # the time of the last use
}


def test_nothing_changes_the_configuration_without_signals() -> None:
    names = {model.__name__ for model in SAMPLES} | {"get_user_model", "user_set", "auth_token_set"}
    found = set()
    for folder in ("profiles", "runners", "runners_project"):
        for path in (ROOT / folder).rglob("*.py"):
            if "migrations" in path.parts:
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
                if is_call and node.func.attr in ("update", "bulk_create", "bulk_update", "_raw_delete"):
                    words = {each.id for each in ast.walk(node.func) if isinstance(each, ast.Name)}
                    words |= {each.attr for each in ast.walk(node.func) if isinstance(each, ast.Attribute)}
                    if words & names:
                        found.add((str(path.relative_to(ROOT)), ast.unparse(node.func)))
    assert found == SILENT
