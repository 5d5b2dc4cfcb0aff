"""The forms of commands: profiles, limits, previews, duplicate forms, and rate limits."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.urls import reverse
from django.utils.html import escape

from profiles.models import EndpointToggle, RunnerProfile
from runners.commands.base import OneShotCommand
from runners.commands.registry import one_shot_commands
from runners.models import AuditRecord, RunnerRun
from runners.services import idempotency
from tests.support.environments import StubAccount
from tests.support.rows import unsaved_run


def test_only_profiles_that_a_person_may_use_are_offered_and_accepted(browser: Client, ada: User) -> None:
    profile = RunnerProfile.objects.create(name="GUARDED", runner_type="LOCAL", module_loader_type="NO_MODULE")
    RunnerProfile.objects.create(name="OFF", runner_type="LOCAL", module_loader_type="NO_MODULE", enabled=False)
    group = Group.objects.create(name="modellers")
    profile.run_groups.add(group)
    page = browser.get("/start").content.decode()
    assert "GUARDED" not in page
    assert "OFF" not in page
    assert "There is no profile that you may use" in page
    refused = browser.post("/start", {"profile_name": "GUARDED", "expid": "a001", "action": "do"})
    assert refused.status_code == 422
    assert "only certain groups may do this" in refused.content.decode()
    assert not RunnerRun.objects.exists()
    record = AuditRecord.objects.get()
    assert (record.outcome, record.actor, record.endpoint) == ("profile_forbidden", "ada", "run-experiment")
    assert (record.expid, record.profile_name) == ("a001", "GUARDED")
    browser.post("/start", {"profile_name": "OFF", "expid": "a001", "action": "preview"})
    assert AuditRecord.objects.latest("id").outcome == "profile_not_found"
    ada.groups.add(group)
    assert "GUARDED" in browser.get("/start").content.decode()


def test_a_switched_off_endpoint_refuses_and_leaves_an_audit_record(browser: Client, account: StubAccount) -> None:
    RunnerProfile.objects.create(name="HERE", runner_type="LOCAL", module_loader_type="NO_MODULE")
    EndpointToggle.objects.create(name="SET_JOB_STATUS", enabled=False)
    form = {"profile_name": "HERE", "expid": "a001", "final_status": "READY", "filter_status": "FAILED"}
    for action in ("preview", "do"):
        response = browser.post("/experiments/set-status", {**form, "action": action})
        assert response.status_code == 403
        assert "currently disabled" in response.content.decode()
    assert list(AuditRecord.objects.values_list("outcome", "actor")) == [("endpoint_disabled", "ada")] * 2
    assert account.calls() == []


def test_a_parameter_outside_of_the_admins_limits_is_refused_at_its_field(browser: Client) -> None:
    RunnerProfile.objects.create(
        name="BOUND", runner_type="SSH", module_loader_type="NO_MODULE", ssh_host="h.example.com", allowed_users="ada_*"
    )
    page = browser.get("/start?profile_name=BOUND").content.decode()
    assert "Allowed: ada_*." in page
    body = {"profile_name": "BOUND", "expid": "a001", "param-SSH.USER": "root", "action": "preview"}
    response = browser.post("/start", body)
    assert response.status_code == 422
    assert "param-SSH.USER" in response.context["form"].errors
    record = AuditRecord.objects.get()
    assert record.outcome == "profile_forbidden"
    assert "ada_*" in record.detail


def test_mistakes_and_previews_are_audited_as_in_the_api(browser: Client) -> None:
    RunnerProfile.objects.create(name="HERE", runner_type="LOCAL", module_loader_type="NO_MODULE")
    form = {"profile_name": "HERE", "expid": "a001"}
    assert browser.post("/start", {**form, "action": "choose", "expid": "A001"}).status_code == 200
    assert not AuditRecord.objects.exists()
    browser.post("/start", {**form, "action": "do", "expid": "A\1" * 20})
    browser.post("/start", {**form, "action": "preview"})
    mistake, preview = AuditRecord.objects.order_by("id")
    assert (mistake.outcome, mistake.profile_name) == ("invalid_request", "HERE")
    assert mistake.expid == "A?" * 8
    assert "expid" in mistake.detail
    assert (preview.outcome, preview.argv) == ("dry_run", ["autosubmit", "run", "a001"])
    page = browser.get("/experiments/a001").content.decode()
    assert "preview" in page
    assert "dry_run" not in page


def test_the_last_parameters_of_a_profile_are_offered_again(browser: Client) -> None:
    RunnerProfile.objects.create(name="S", runner_type="SSH", module_loader_type="NO_MODULE", ssh_host="h.example.com")
    browser.post("/start", {"profile_name": "S", "expid": "a001", "param-SSH.USER": "ada_l", "action": "preview"})
    assert 'value="ada_l"' in browser.get("/experiments/job-list?profile_name=S").content.decode()


# --- duplicate forms --------------------------------------------------------------------------------------------------


@pytest.fixture
def creation(browser: Client, account: StubAccount) -> dict[str, str]:
    """Return the fields of a completed form."""
    RunnerProfile.objects.create(name="HERE", runner_type="LOCAL", module_loader_type="NO_MODULE")
    page = browser.get("/experiments/create?profile_name=HERE")
    return {"profile_name": "HERE", "description": "tides", "action": "do", "once": page.context["once"]}


def test_a_form_that_is_sent_twice_creates_one_experiment(
    browser: Client, account: StubAccount, creation: dict[str, str]
) -> None:
    first, again = (browser.post("/experiments/create", creation) for _ in range(2))
    assert first.status_code == 302
    assert first["Location"] == again["Location"] == "/experiments/job-list?expid=a000&profile_name=HERE"
    assert (
        "This form was already sent. It has created experiment a000" in browser.get(again["Location"]).content.decode()
    )
    assert len(account.calls("expid")) == 1
    assert list(AuditRecord.objects.order_by("id").values_list("outcome", "expid")) == [
        ("ok", "a000"),
        ("replayed", "a000"),
    ]
    changed = browser.post("/experiments/create", {**creation, "description": "waves"})
    fresh = browser.post("/experiments/create", {**creation, "once": "in another form"})
    assert ["a001" in changed["Location"], "a002" in fresh["Location"]] == [True, True]


def test_a_form_can_be_sent_again_after_its_command_failed(
    browser: Client, account: StubAccount, creation: dict[str, str]
) -> None:
    account.control("expid", FAIL="No space left")
    refused = browser.post("/experiments/create", creation)
    assert refused.status_code == 502
    assert "No space left" in refused.content.decode()
    assert refused.context["once"] == creation["once"]
    account.control("expid")
    assert "expid=a000" in browser.post("/experiments/create", creation)["Location"]


def test_a_form_that_is_sent_again_while_it_runs_is_rejected(
    browser: Client, account: StubAccount, creation: dict[str, str]
) -> None:
    fields = {name: [value] for name, value in creation.items() if name != "once"}
    key = idempotency.hash_of(creation["once"], fields)
    idempotency.claim(caller="ada", key=key, endpoint="create-experiment", request_hash=key)  # by this living process
    answer = browser.post("/experiments/create", creation)
    assert answer.status_code == 409
    assert "Nothing is created twice" in answer.content.decode()
    assert answer["Retry-After"]
    assert answer.context["once"] == creation["once"]
    assert account.calls() == []


# --- rate limits ------------------------------------------------------------------------------------------------------


def test_commands_of_pages_and_api_count_together(browser: Client, settings: Any) -> None:
    settings.THROTTLE_COMMANDS = "3/min"
    RunnerProfile.objects.create(name="HERE", runner_type="LOCAL", module_loader_type="NO_MODULE")
    row = unsaved_run()
    row.save()
    form = {"profile_name": "HERE", "expid": "a001", "action": "preview"}
    assert [browser.post("/start", form).status_code for _ in range(2)] == [200, 200]
    assert browser.post("/v4/runners/command/run-experiment", {}, "application/json").status_code == 400
    refused = browser.post("/start", form)
    assert refused.status_code == 429
    assert 1 <= int(refused["Retry-After"]) <= 60
    assert "Too many requests" in refused.content.decode()
    stop = browser.post(f"/runs/{row.pk}/stop")
    assert stop.status_code == 429
    row.refresh_from_db()
    assert row.stop_requested_at is None
    assert [record.outcome for record in AuditRecord.objects.order_by("-id")[:2]] == ["throttled"] * 2
    assert browser.get("/start").status_code == 200


@pytest.mark.parametrize("command", one_shot_commands().values(), ids=str)
def test_each_command_has_a_page_with_a_field_for_each_of_its_parameters(
    browser: Client, command: OneShotCommand
) -> None:
    RunnerProfile.objects.create(name="HERE", runner_type="LOCAL", module_loader_type="NO_MODULE")
    page = browser.get(reverse(f"pages:{command.name}"), {"profile_name": "HERE", "expid": "a001"})
    fields = page.context["form"].fields
    assert [*fields] == (["expid"] if command.needs_expid else []) + [each.name for each in command.parameters]
    for each in command.parameters:
        assert escape(fields[each.name].label) in page.content.decode()
    linked = browser.get("/experiments/a001").content.decode()
    assert f'href="{reverse(f"pages:{command.name}")}"' in linked  # the menu of all pages
    buttons = f'href="{reverse(f"pages:{command.name}")}?expid=a001'
    assert (buttons in linked) is command.needs_expid


def test_the_form_of_a_run_has_the_options_of_a_run(browser: Client, account: StubAccount) -> None:
    RunnerProfile.objects.create(name="HERE", runner_type="LOCAL", module_loader_type="NO_MODULE")
    account.experiment("a001")
    form = {"profile_name": "HERE", "expid": "a001", "run_only_members": "fc0 fc1", "update_version": "on"}
    page = browser.post("/start", {**form, "action": "preview"}).content.decode()
    assert "--run_only_members=fc0 fc1" in page and "--update_version" in page
    refused = browser.post("/start", {**form, "start_time": "8 o'clock", "action": "do"})
    assert refused.status_code == 422 and "use YYYY-MM-DD HH:MM:SS" in refused.content.decode()
    refused = browser.post("/start", {**form, "start_time": "2020-01-01 00:00:00", "action": "do"})
    assert refused.status_code == 400 and "has passed on" in refused.content.decode()
    assert not RunnerRun.objects.exists()
    browser.post("/start", {**form, "action": "do"})
    run = RunnerRun.objects.get()
    assert run.command_params == {"run_only_members": ["fc0", "fc1"], "update_version": True}
    assert "--update_version" in browser.get(f"/runs/{run.pk}").content.decode()
