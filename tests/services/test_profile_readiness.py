"""What the import and the admin say that a profile still needs. No machine is contacted."""

from __future__ import annotations

import io
import socket
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from profiles.models import AccountMap, PublishedSSHKey, RunnerProfile
from profiles.readiness import missing_of, summary
from runners.models import TrustedHostKey
from runners.services.machines.ssh import keys

pytestmark = pytest.mark.django_db
KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIIDEnF9XnYmg6Jm7qTCSX1vyvlfdWPwhNJ0RUzZXrN8n"
SITE = """
RUNNER_CONFIGURATION:
  PROFILES:
    MN5: {RUNNER_TYPE: SSH, MODULE_LOADER_TYPE: NO_MODULE, SSH: {HOST: mn5, PORT: 2222}, ACCESS: {RUN_GROUPS: [dev]}}
    HERE: {RUNNER_TYPE: LOCAL, MODULE_LOADER_TYPE: VENV, MODULES: /no/such/venv}
"""


@pytest.fixture(autouse=True)
def bare_service(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service without keys, known hosts and SSH configuration, which must not open a connection."""
    settings.RUNNERS_SSH_CONFIG = str(tmp_path / "ssh_config")
    settings.RUNNERS_KNOWN_HOSTS = str(tmp_path / "known_hosts")
    settings.RUNNERS_SSH_KEY_DIR = str(tmp_path / "keys")
    settings.RUNNERS_SSH_KEYS = []
    configure(tmp_path)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)

    def no_network(*args: Any) -> None:
        raise AssertionError("opened a connection")

    monkeypatch.setattr(socket.socket, "connect", no_network)


def configure(tmp_path: Path, text: str = "") -> None:
    none = "IdentityFile none\nUserKnownHostsFile none\nGlobalKnownHostsFile none\n"
    (tmp_path / "ssh_config").write_text(f"{text}Host *\n{none}")


def imported(tmp_path: Path, text: str = SITE) -> str:
    (tmp_path / "site.yml").write_text(text)
    said = io.StringIO()
    call_command("import_profiles", str(tmp_path / "site.yml"), stdout=io.StringIO(), stderr=said)
    return said.getvalue()


def needs(name: str) -> str:
    return summary(missing_of(RunnerProfile.objects.get(name=name)))


def test_the_import_of_a_bare_site_names_everything_with_the_command_that_adds_it(tmp_path: Path) -> None:
    said = imported(tmp_path)
    number = RunnerProfile.objects.get(name="MN5").pk
    assert "Profile MN5 still needs:" in said
    assert "manage.py trust_host mn5 --port 2222`" in said
    assert f"/trustedhostkey/scan/?host=mn5&port=2222&profile={number}" in said
    assert "`manage.py create_ssh_key`" in said
    assert "`manage.py bind_profile MN5`" in said
    assert "RUN_GROUPS has no members (dev)" in said
    assert "There is no directory /no/such/venv on this machine." in said
    assert needs("MN5") == "host key, service key, account binding, members of groups"
    assert needs("HERE") == "environment"
    assert imported(tmp_path) == said  # nothing has changed, and it is said again


def test_each_command_or_page_ends_its_item(tmp_path: Path) -> None:
    imported(tmp_path)
    TrustedHostKey.objects.create(host="[mn5]:2222", key_type="ssh-ed25519", key=KEY)
    call_command("create_ssh_key", stdout=io.StringIO(), stderr=io.StringIO())
    call_command("bind_profile", "MN5", stdout=io.StringIO())
    User.objects.create_user("ana").groups.add(Group.objects.get(name="dev"))
    assert needs("MN5") == ""
    PublishedSSHKey.objects.all().delete()
    assert needs("MN5") == "published key"
    call_command("create_ssh_key", "--publish", stdout=io.StringIO(), stderr=io.StringIO())
    assert needs("MN5") == ""


@pytest.mark.parametrize("marker", ["", "@cert-authority "])
def test_a_known_hosts_line_or_a_host_authority_is_enough(tmp_path: Path, marker: str) -> None:
    imported(tmp_path)
    (tmp_path / "known_hosts").write_text(f"{marker}[mn5]:2222 ssh-ed25519 {KEY}\n")
    assert "host key" not in needs("MN5")


def test_jump_hosts_need_a_key_too_and_a_configuration_that_is_not_supported_is_named(tmp_path: Path) -> None:
    configure(tmp_path, "Host mn5\nProxyJump gate:2200\n")
    said = imported(tmp_path)
    assert "manage.py trust_host gate --port 2200" in said and "a jump host of mn5" in said
    configure(tmp_path, "Host mn5\nProxyCommand nc %h %p\n")
    assert "ProxyCommand" in imported(tmp_path)
    assert needs("MN5").startswith("SSH configuration")
    configure(tmp_path, "Host mn5\nProxyJump gate:nonsense\n")
    assert needs("MN5").startswith("SSH configuration")


def test_an_open_host_needs_the_keys_of_the_hosts_that_may_be_given(tmp_path: Path) -> None:
    text = "RUNNER_CONFIGURATION: {PROFILES: {ANY: {RUNNER_TYPE: SSH, SSH: {USER: x}, LIMITS: {HOSTS: [a, 'b*', c]}}}}"
    said = imported(tmp_path, text)
    assert "trust_host a`" in said and "trust_host c`" in said and "trust_host b" not in said
    assert needs("ANY") == "host key, service key"


def test_people_without_a_mapped_account_are_named_unless_their_own_name_is_allowed(tmp_path: Path) -> None:
    for name in ("ana", "ben", "eva"):
        User.objects.create_user(name)
    User.objects.create_user("gone", is_active=False)
    AccountMap.objects.create(person="Ana", accounts="bsc01")
    text = "RUNNER_CONFIGURATION: {PROFILES: {P: {RUNNER_TYPE: SSH, SSH: {HOST: h}, LIMITS: {USERS: [%s]}}}}"
    said = imported(tmp_path, text % "'{accounts}'")
    assert "No account is mapped to ben, eva, who may use the profile" in said
    assert reverse("admin:profiles_accountmap_changelist") in said
    imported(tmp_path, text % "'{accounts}', '{username}'")
    assert "account" not in needs("P")


def test_what_this_service_forbids_is_named(tmp_path: Path, settings: Any) -> None:
    imported(tmp_path)
    settings.RUNNERS_ALLOW_LOCAL = False
    settings.RUNNERS_VENV_ROOTS = ["/opt/envs"]
    assert needs("HERE") == "LOCAL commands, environment"
    RunnerProfile.objects.filter(name="HERE").update(runner_type="GONE", module_loader_type="GONE")
    assert needs("HERE") == "runner, module loader"


def test_the_admin_shows_the_same_in_the_list_and_on_the_page(tmp_path: Path, admin_client: Client) -> None:
    imported(tmp_path)
    page = admin_client.get(reverse("admin:profiles_runnerprofile_changelist")).content.decode()
    assert "host key, service key, account binding, members of groups" in page
    row = RunnerProfile.objects.get(name="MN5")
    page = admin_client.get(reverse("admin:profiles_runnerprofile_change", args=[row.pk])).content.decode()
    assert "What this profile still needs" in page
    for each in missing_of(row):
        assert each.command in page
        assert not each.page or each.page.url.replace("&", "&amp;") in page
        if each.page:
            assert admin_client.get(each.page.url).status_code == 200


def test_a_dry_run_says_nothing_about_profiles_that_are_not_stored(tmp_path: Path) -> None:
    (tmp_path / "site.yml").write_text(SITE)
    said = io.StringIO()
    call_command("import_profiles", str(tmp_path / "site.yml"), "--dry-run", stdout=io.StringIO(), stderr=said)
    assert "still needs" not in said.getvalue()


def test_a_service_with_a_key_has_it_without_publishing_being_asked_for_twice(tmp_path: Path) -> None:
    key = keys.create(comment="x")
    PublishedSSHKey.objects.create(line=f"{' '.join(key.line.split()[:2])} another-comment")
    imported(tmp_path)
    assert "key" not in needs("MN5").replace("host key", "")


def test_a_profile_with_certificates_needs_the_user_ca_and_mappings_instead_of_a_key(tmp_path: Path) -> None:
    User.objects.create_user("ana")
    text = """
RUNNER_CONFIGURATION:
  PROFILES:
    FIXED: {RUNNER_TYPE: SSH, MODULE_LOADER_TYPE: NO_MODULE, SSH: {HOST: mn5, USER: acct, AUTHENTICATION: CERTIFICATE}}
    OPEN: {RUNNER_TYPE: SSH, MODULE_LOADER_TYPE: NO_MODULE, SSH: {HOST: mn5, AUTHENTICATION: CERTIFICATE}}
    BOTH: {RUNNER_TYPE: SSH, MODULE_LOADER_TYPE: NO_MODULE, SSH: {HOST: mn5, USER: acct, AUTHENTICATION: BOTH}}
"""
    said = imported(tmp_path, text)
    assert "manage.py create_ssh_ca" in said
    assert "The account acct is not mapped to ana" in said
    assert needs("FIXED") == needs("OPEN") == "host key, user CA, account mapping"
    assert needs("BOTH") == "host key, service key, user CA"
    call_command("create_ssh_ca", stdout=io.StringIO(), stderr=io.StringIO())
    AccountMap.objects.create(person="ana", accounts="acct")
    assert needs("FIXED") == needs("OPEN") == "host key"
