"""Profiles in the admin beyond the form: preview, duplicate, export, import, and the connection test."""

from __future__ import annotations

import html as html_module
import re
from pathlib import Path
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from profiles.models import EndpointToggle, PublishedSSHKey, RunnerProfile
from profiles.yaml.importer import export_configuration, import_configuration
from profiles.yaml.reader import parse
from profiles.yaml.writer import dump
from runners.models import AuditRecord
from tests.support.environments import StubAccount
from tests.support.paths import ROOT
from tests.support.servers import SSHServer

pytestmark = pytest.mark.django_db

EXAMPLE = ROOT / "profiles.example.yml"
IMPORT = "admin:profiles_runnerprofile_import"


@pytest.fixture(autouse=True)
def no_ssh_config(settings: Any, tmp_path: Path) -> None:
    settings.RUNNERS_SSH_CONFIG = str(tmp_path / "none")


def url(name: str, *args: Any) -> str:
    return reverse(f"admin:profiles_runnerprofile_{name}", args=args)


def text_of(html: str) -> str:
    return html_module.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html)))


# --- what a profile stands for ----------------------------------------------------------------------------------------


def preview(client: Client, *args: Any, **fields: Any) -> str:
    response = client.post(url("preview", *args), {"name": "NEW", "enabled": "on", **fields})
    assert response.status_code == 200
    return text_of(response.content.decode())


def test_the_preview_shows_the_yaml_and_the_open_parameters(admin_client: Client) -> None:
    group = Group.objects.create(name="modellers")
    text = preview(
        admin_client,
        **{"runner_type": "SSH", "module_loader_type": "LMOD", "modules": "a\nb", "ssh_host": "login1"},
        **{"allowed_users": "project_*\nme", "run_groups": [group.pk]},
    )
    assert "NEW: ACCESS: RUN_GROUPS: - modellers LIMITS: USERS: - project_* - me RUNNER_TYPE: SSH" in text
    assert "MODULES: - a - b SSH: HOST: login1" in text
    assert "SSH.PORT may be given 1 to 65535; otherwise 22" in text
    assert "SSH.USER has to be given project_* or me" in text
    assert "cannot be saved" not in text
    assert not RunnerProfile.objects.exists()


def test_the_preview_validates_like_saving(admin_client: Client) -> None:
    text = preview(admin_client, runner_type="LOCAL", ssh_host="h", name="a b")
    assert "It cannot be saved" in text
    assert "RUNNER_TYPE LOCAL takes no SSH parameters" in text
    assert "is not a valid profile name" in text


def test_the_preview_of_a_stored_profile_changes_nothing(admin_client: Client) -> None:
    row = RunnerProfile.objects.create(name="OLD", runner_type="LOCAL", module_loader_type="NO_MODULE")
    assert "OTHER: RUNNER_TYPE: SSH" in preview(admin_client, row.pk, name="OTHER", runner_type="SSH")
    row.refresh_from_db()
    assert (row.name, row.runner_type) == ("OLD", "LOCAL")
    page = text_of(admin_client.get(url("change", row.pk)).content.decode())
    assert "a request with this profile needs no profile_params" in page


def test_without_javascript_every_field_is_there(admin_client: Client) -> None:
    Group.objects.create(name="g")
    html = admin_client.get(url("add")).content.decode()
    for name in (*RunnerProfile.FIELDS.values(), *RunnerProfile.LIMITS.values(), *RunnerProfile.ACCESS.values()):
        assert f'name="{name}"' in html
    assert " hidden>" not in html


def test_a_duplicated_profile_is_stored_only_when_it_is_saved(admin_client: Client) -> None:
    group = Group.objects.create(name="g")
    row = RunnerProfile.objects.create(
        name="P", runner_type="SSH", ssh_host="h", ssh_port=2222, modules="a\nb", allowed_users="x*"
    )
    row.stop_groups.add(group)
    RunnerProfile.objects.create(name="P_COPY")
    listed = admin_client.post(url("changelist"), {"action": "duplicate", "_selected_action": [row.pk]})
    assert listed["Location"] == f"{url('add')}?copy_of={row.pk}"
    form = admin_client.get(listed["Location"]).context["adminform"].form
    assert form["name"].value() == "P_COPY_2"
    values = {name: form[name].value() for name in form.fields}
    assert (values["ssh_host"], values["ssh_port"], values["modules"]) == ("h", 2222, "a\nb")
    assert RunnerProfile.objects.count() == 2
    sent = {name: value for name, value in values.items() if value not in (None, False)}
    sent["stop_groups"] = [getattr(each, "pk", each) for each in values["stop_groups"]]
    assert admin_client.post(listed["Location"], sent).status_code == 302
    copy = RunnerProfile.objects.get(name="P_COPY_2")
    assert (copy.values(), copy.access(), copy.limits) == (row.values(), row.access(), row.limits)


def test_duplicating_several_at_once_is_refused_in_words(admin_client: Client) -> None:
    pks = [RunnerProfile.objects.create(name=name).pk for name in "AB"]
    response = admin_client.post(url("changelist"), {"action": "duplicate", "_selected_action": pks}, follow=True)
    assert "Select the one profile to duplicate." in text_of(response.content.decode())


# --- export -----------------------------------------------------------------------------------------------------------


def test_an_exported_profile_imports_to_itself_and_prunes_no_other_section(admin_client: Client) -> None:
    one = RunnerProfile.objects.create(name="ONE", runner_type="SSH", ssh_host="h", modules="m")
    two = RunnerProfile.objects.create(name="TWO", runner_type="LOCAL", enabled=False)
    PublishedSSHKey.objects.create(line="MY-KEY")
    response = admin_client.get(url("export", one.pk))
    assert response["Content-Disposition"] == 'attachment; filename="ONE.yml"'
    configuration = parse(response.content.decode())
    assert list(configuration.profiles or {}) == ["ONE"]
    assert (configuration.ssh_public_keys, configuration.endpoints) == (None, None)
    assert not import_configuration(configuration)
    selected = {"action": "export", "_selected_action": [one.pk, two.pk]}
    both = parse(admin_client.post(url("changelist"), selected).content.decode())
    assert not import_configuration(both, prune=True)
    everything = admin_client.get(url("export")).content.decode()
    assert everything == dump(export_configuration())
    assert "MY-KEY" in everything


# --- import -----------------------------------------------------------------------------------------------------------


def send(client: Client, text: str, **fields: Any) -> Any:
    return client.post(reverse(IMPORT), {"text": text, **fields})


def confirm(client: Client, text: str, **fields: Any) -> Any:
    """Post the form as the button below the changes does."""
    return send(client, text, confirm=offered(send(client, text, **fields)), **fields)


def offered(response: Any) -> str:
    """Return the value that the button below the changes sends."""
    found = re.search(r'name="confirm" value="([^"]+)"', response.content.decode())
    assert found
    return found[1]


def history() -> dict[str, str]:
    """Return the log entry of each row, by the row's name."""
    return {
        entry.object_repr: str(entry) + "|" + entry.get_change_message() for entry in LogEntry.objects.order_by("id")
    }


def test_the_example_is_shown_first_and_imported_when_confirmed(admin_client: Client) -> None:
    response = send(admin_client, EXAMPLE.read_text())
    text = text_of(response.content.decode())
    assert "6 added What Before After Profile LOCAL_VENV added" in text
    assert "RUNNER_TYPE LOCAL MODULE_LOADER_TYPE VENV MODULES /opt/autosubmit" in text
    assert not RunnerProfile.objects.exists()
    assert confirm(admin_client, EXAMPLE.read_text()).status_code == 302
    assert RunnerProfile.objects.count() == 6
    assert LogEntry.objects.filter(change_message="Imported.").count() == 6
    again = send(admin_client, EXAMPLE.read_text())
    assert "Nothing to change" in again.content.decode()
    assert 'name="confirm"' not in again.content.decode()


def test_changes_are_shown_field_by_field_and_removals_only_when_asked(admin_client: Client) -> None:
    RunnerProfile.objects.create(name="P", runner_type="SSH", ssh_host="old", ssh_port=22)
    RunnerProfile.objects.create(name="P.Q", runner_type="LOCAL")
    gone = RunnerProfile.objects.create(name="GONE", runner_type="SSH", modules="gcc/12\nautosubmit")
    gone.run_groups.add(Group.objects.create(name="modellers"))
    text = """
RUNNER_CONFIGURATION:
  PROFILES:
    P: {RUNNER_TYPE: SSH, SSH: {HOST: new, PORT: 22}}
    P.Q: {RUNNER_TYPE: SSH}
  ENDPOINTS: {RUNNER_RUN: {ENABLED: false}}
"""
    html = send(admin_client, text).content.decode()
    assert "<del>old</del>" in html
    assert "<ins>new</ins>" in html
    words = text_of(html)
    assert "Profile P SSH.HOST old new Profile P.Q RUNNER_TYPE LOCAL SSH" in words
    assert "ENDPOINTS RUNNER_RUN.ENABLED true false" in words
    assert "and kept: PROFILES.GONE" in words
    pruned = send(admin_client, text, prune="on").content.decode()
    assert "Profile GONE removed RUNNER_TYPE SSH MODULES gcc/12, autosubmit ACCESS.RUN_GROUPS modellers" in text_of(
        pruned
    )
    assert "<del>gcc/12, autosubmit</del>" in pruned
    assert confirm(admin_client, text, prune="on").status_code == 302
    assert set(RunnerProfile.objects.values_list("name", "ssh_host")) == {("P", "new"), ("P.Q", "")}
    assert not EndpointToggle.objects.get(name="RUNNER_RUN").enabled


def test_an_added_profile_is_shown_with_all_its_fields(admin_client: Client) -> None:
    text = """
RUNNER_CONFIGURATION:
  PROFILES:
    NEW:
      RUNNER_TYPE: SSH
      MODULE_LOADER_TYPE: LMOD
      MODULES: [gcc/12, autosubmit/4.1.17]
      SSH: {HOST: login1}
      ENABLED: false
      DESCRIPTION: Ask Ana
      ACCESS: {RUN_GROUPS: [modellers]}
      LIMITS: {USERS: [project_*]}
    OPEN: {}
"""
    html = send(admin_client, text).content.decode()
    table = html.partition('<table class="diff">')[2].partition("</table>")[0]
    rows = [text_of(row).strip() for row in re.findall(r"<tr.*?</tr>", table, re.DOTALL)]
    assert rows == [
        "What Before After",
        "Profile NEW added",
        *("RUNNER_TYPE SSH", "MODULE_LOADER_TYPE LMOD", "MODULES gcc/12, autosubmit/4.1.17", "SSH.HOST login1"),
        *("ENABLED false", "DESCRIPTION 'Ask Ana'", "ACCESS.RUN_GROUPS modellers", "LIMITS.USERS project_*"),
        "GROUPS",
        "added modellers, without members",
        "Profile OPEN added",
        "everything open",
    ]


def test_everything_that_an_import_writes_has_a_history(admin_client: Client) -> None:
    group = Group.objects.create(name="old hands")
    row = RunnerProfile.objects.create(name="P", runner_type="SSH", ssh_host="old")
    row.run_groups.add(group)
    RunnerProfile.objects.create(name="GONE")
    for line in ("KEY-1", "KEY-2"):
        PublishedSSHKey.objects.create(line=line)
    text = """
RUNNER_CONFIGURATION:
  PROFILES:
    P: {RUNNER_TYPE: SSH, SSH: {HOST: new, PORT: 22}, ACCESS: {RUN_GROUPS: [night shift], STOP_GROUPS: [old hands]}}
    NEW: {ACCESS: {RUN_GROUPS: [night shift]}}
  SSH_PUBLIC_KEYS: [KEY-2, KEY-3]
  ENDPOINTS: {RUNNER_RUN: {ENABLED: %s}, SET_JOB_STATUS: {ENABLED: true}}
"""
    assert confirm(admin_client, text % "false", prune="on").status_code == 302
    toggle = EndpointToggle.objects.get(name="RUNNER_RUN")
    assert history() == {
        "P": "Changed “P” — Changed by an import: SSH.HOST, SSH.PORT, ACCESS.RUN_GROUPS, ACCESS.STOP_GROUPS."
        "|Changed by an import: SSH.HOST, SSH.PORT, ACCESS.RUN_GROUPS, ACCESS.STOP_GROUPS.",
        "NEW": "Added “NEW”.|Imported.",
        "GONE": "Deleted “GONE.”|Removed by an import.",
        "KEY-1": "Deleted “KEY-1.”|Removed by an import.",
        "KEY-3": "Added “KEY-3”.|Imported.",
        "night shift": "Added “night shift”.|Imported.",
        str(toggle): f"Changed “{toggle}” — Switched off by an import.|Switched off by an import.",
    }
    assert set(LogEntry.objects.values_list("user__username", flat=True)) == {"admin"}
    assert "" not in LogEntry.objects.values_list("object_id", flat=True)
    assert "None" not in LogEntry.objects.values_list("object_id", flat=True)
    assert confirm(admin_client, text % "true", prune="on").status_code == 302
    assert history()[str(toggle)].endswith("|Switched on by an import.")
    assert RunnerProfile.objects.get(name="P").access() == {
        "RUN_GROUPS": ("night shift",),
        "STOP_GROUPS": ("old hands",),
        "STATUS_GROUPS": (),
        "VIEW_GROUPS": (),
    }


def test_mistakes_are_shown_with_their_path_and_line(admin_client: Client) -> None:
    text = EXAMPLE.read_text().replace("PORT: 22, USER", "PORT: 99999, USER").replace("LMOD", "LMODE", 1)
    html = send(admin_client, text).content.decode()
    words = text_of(html)
    assert "2 errors: nothing was imported" in words
    assert "RUNNER_CONFIGURATION.PROFILES.CLUSTER.SSH.PORT line" in words
    assert "SSH: {HOST: autosubmit.example.com, PORT: 99999, USER: autosubmit_user}" in words  # the faulty line
    assert "Did you mean LMOD?" in words
    assert "PORT: 99999" in html[html.index("<textarea") :]  # so that it can be corrected
    assert 'name="confirm"' not in html
    assert "line 3" in text_of(send(admin_client, "RUNNER_CONFIGURATION:\n  PROFILES:\n   x: [").content.decode())


def test_an_uploaded_file_replaces_the_text(admin_client: Client) -> None:
    good = SimpleUploadedFile("p.yml", b"\xef\xbb\xbfRUNNER_CONFIGURATION: {PROFILES: {FROM_FILE: {}}}")
    assert "Profile FROM_FILE" in text_of(send(admin_client, "ignored", file=good).content.decode())
    for content, words in ((b"\xff", "Byte 0 of p.yml is not valid UTF-8."), (b"", "Paste YAML, or choose a file.")):
        response = send(admin_client, "", file=SimpleUploadedFile("p.yml", content))
        assert words in text_of(response.content.decode())


def test_an_import_without_preview_is_rejected(admin_client: Client) -> None:
    """Another user changes a profile between the preview and the confirmation."""
    text = "RUNNER_CONFIGURATION: {PROFILES: {P: {RUNNER_TYPE: SSH}}}"
    confirmation = offered(send(admin_client, text))
    RunnerProfile.objects.create(name="P", runner_type="LOCAL")
    response = send(admin_client, text, confirm=confirmation)
    words = text_of(response.content.decode())
    assert "The configuration has changed in the meantime. Nothing was imported yet" in words
    assert "edited" not in words
    assert RunnerProfile.objects.get().runner_type == "LOCAL"
    sent_by_a_browser = text.replace("{PROFILES", "\r\n  {PROFILES")  # different line ends, but the same changes
    assert send(admin_client, sent_by_a_browser, confirm=offered(response)).status_code == 302
    assert RunnerProfile.objects.get().runner_type == "SSH"


@pytest.mark.parametrize("fields", [{}, {"prune": "on"}])
def test_a_text_that_was_edited_after_its_preview_is_previewed_again(
    admin_client: Client, fields: dict[str, str]
) -> None:
    RunnerProfile.objects.create(name="OTHER")
    text = "RUNNER_CONFIGURATION: {PROFILES: {P: {RUNNER_TYPE: SSH}}}"
    confirmation = offered(send(admin_client, text))
    edited = text if fields else text.replace("SSH", "LOCAL")
    response = send(admin_client, edited, confirm=confirmation, **fields)
    words = text_of(response.content.decode())
    assert "You have edited the YAML after the preview. Nothing was imported yet" in words
    assert "meanwhile" not in words
    assert not RunnerProfile.objects.filter(name="P").exists()
    assert send(admin_client, edited, confirm=offered(response), **fields).status_code == 302
    assert RunnerProfile.objects.get(name="P").runner_type == ("SSH" if fields else "LOCAL")


# --- the connection test ----------------------------------------------------------------------------------------------


def check(client: Client, profile: RunnerProfile, **params: Any) -> Any:
    """Return the response, and its pieces as they were streamed."""
    response = client.post(url("check", profile.pk), {name.replace("__", "."): value for name, value in params.items()})
    pieces = [piece.decode() for piece in response.streaming_content] if response.streaming else []
    return response, pieces


def test_a_local_profile_is_checked_stage_by_stage(admin_client: Client, account: StubAccount) -> None:
    profile = RunnerProfile.objects.create(name="HERE", runner_type="LOCAL", module_loader_type="NO_MODULE")
    assert "Check connection" in text_of(admin_client.get(url("change", profile.pk)).content.decode())
    response, pieces = check(admin_client, profile)
    assert len(pieces) > 10  # each stage is sent when it is done, not all at the end
    assert "under way" in pieces[0]
    text = text_of("".join(pieces))
    assert "Everything works." in text
    assert "Autosubmit 4." in text
    record = AuditRecord.objects.get()
    assert (record.endpoint, record.profile_name, record.outcome, record.actor) == (
        "check-profile",
        "HERE",
        "ok",
        "admin",
    )


def test_open_parameters_are_asked_for_first(admin_client: Client, sshd: SSHServer) -> None:
    profile = RunnerProfile.objects.create(
        name="OPEN", runner_type="SSH", module_loader_type="NO_MODULE", ssh_host="127.0.0.1", allowed_users="project_*"
    )
    form = admin_client.get(url("check", profile.pk)).content.decode()
    assert 'name="SSH.USER"' in form
    assert "Anybody as anybody" not in form
    assert "Allowed: project_*" in form
    response, pieces = check(admin_client, profile, SSH__PORT=str(sshd.port))
    assert not pieces
    assert "give SSH.USER in profile_params" in text_of(response.content.decode())
    response, pieces = check(admin_client, profile, SSH__PORT=str(sshd.port), SSH__USER="root2")
    assert "only project_*" in text_of(response.content.decode())
    RunnerProfile.objects.update(allowed_users="")
    assert "Anybody as anybody: OPEN" in admin_client.get(url("check", profile.pk)).content.decode()
    response, pieces = check(admin_client, profile, SSH__PORT=str(sshd.port), SSH__USER=sshd.user)
    assert "Everything works." in text_of("".join(pieces))
    assert "Anybody as anybody: OPEN" in pieces[0]


def test_a_failed_stage_says_what_to_do_and_leads_to_the_host_key(admin_client: Client, sshd: SSHServer) -> None:
    sshd.forget_host_key()
    profile = RunnerProfile.objects.create(
        **{"name": "P", "runner_type": "SSH", "module_loader_type": "NO_MODULE", "ssh_host": "127.0.0.1"},
        **{"ssh_port": sshd.port, "ssh_user": sshd.user},
    )
    _, pieces = check(admin_client, profile)
    html = "".join(pieces)
    assert "The check failed at: Verify its host key." in text_of(html)
    assert sshd.host_key_fingerprint in html
    link = (
        f"{reverse('admin:runners_trustedhostkey_scan')}?host=127.0.0.1&amp;port={sshd.port}&amp;profile={profile.pk}"
    )
    assert link in html
    assert AuditRecord.objects.get().detail == "failed: host_key"
