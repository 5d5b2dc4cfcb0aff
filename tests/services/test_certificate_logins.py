"""Profiles that log in with certificates: who may use them, and for whom the service signs while a run goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.management import call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from profiles.accounts import person_of
from profiles.exceptions import ForbiddenParameter, InvalidProfile
from profiles.models import AccountMap, RunnerProfile
from profiles.people import Person
from profiles.yaml.format import Configuration
from profiles.yaml.importer import import_configuration, settings_of
from profiles.yaml.reader import parse
from profiles.yaml.writer import dump
from runners.exceptions import AuthenticationFailed
from runners.models import AuditRecord, RunnerRun, RunStatus
from runners.services import log_cache, logs, restarting, starting, stopping
from runners.services.active_runs import is_same_environment, is_same_target
from runners.services.check import check_profile
from runners.services.machines.ssh import user_authority
from runners.services.machines.ssh.pool import POOL
from runners.services.machines.ssh.target import SSHTarget
from runners.services.retention import clean_directories
from tests.support.environments import StubAccount
from tests.support.faults import look, wait_ended
from tests.support.rows import api_of
from tests.support.servers import SSHServer

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("protected")]


def profile(way: str = "CERTIFICATE", **fields: Any) -> RunnerProfile:
    row = RunnerProfile(
        name="P",
        runner_type="SSH",
        module_loader_type="NO_MODULE",
        other_parameters={"SSH.AUTHENTICATION": way} if way else {},
        **{"ssh_host": "login.example.org", "ssh_port": 22, **fields},
    )
    row.full_clean()
    row.save()
    return row


def target_for(row: RunnerProfile, user: Any, account: str = "acct") -> SSHTarget:
    params = {} if row.ssh_user else {"SSH": {"USER": account}}
    target = row.resolve(params, person_of(user)).target
    assert isinstance(target, SSHTarget)
    return target


# --- who may use the profile ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fixed", [True, False], ids=["the profile fixes the account", "the account is open"])
def test_a_person_without_a_mapping_gets_nothing(ana: User, fixed: bool) -> None:
    row = profile(ssh_user="acct" if fixed else "")
    with pytest.raises(ForbiddenParameter) as caught:
        target_for(row, ana)
    (text,) = caught.value.errors["SSH.USER"]
    assert "'acct' is not mapped to you" in text
    assert "Accounts of people" in text
    AccountMap.objects.create(person="ana", accounts="other\nacct")
    target = target_for(row, ana)
    assert (target.authentication, target.person) == ("CERTIFICATE", "ana")


def test_nobody_and_admins_need_a_mapping_too(ana: User) -> None:
    row = profile(ssh_user="acct")
    with pytest.raises(ForbiddenParameter) as caught:
        target_for(row, AnonymousUser())
    assert "nobody is signed in" in caught.value.errors["SSH.USER"][0]
    with pytest.raises(ForbiddenParameter):
        row.resolve({}, Person("root", is_admin=True))


def test_the_persons_own_name_in_the_limits_is_a_mapping_and_wildcards_are_none(ana: User) -> None:
    row = profile(allowed_users="{username}\nx_{username}\na*")
    for account in ("ana", "x_ana"):
        assert target_for(row, ana, account).person == "ana"
    with pytest.raises(ForbiddenParameter):
        target_for(row, ana, "acct")
    assert not profile_is_anybody()


def profile_is_anybody() -> bool:
    return RunnerProfile.objects.get().is_anybody


def test_a_profile_with_both_uses_the_keys_for_people_without_a_mapping(ana: User, ben: User) -> None:
    row = profile("BOTH", ssh_user="acct")
    AccountMap.objects.create(person="ana", accounts="acct")
    assert (target_for(row, ana).authentication, target_for(row, ana).person) == ("BOTH", "ana")
    assert (target_for(row, ben).authentication, target_for(row, ben).person) == ("KEY", "")


@pytest.mark.parametrize("way", ["", "KEY"])
def test_the_default_is_the_key_and_stored_as_before(ana: User, way: str) -> None:
    row = profile(way, ssh_user="acct")
    config = row.resolve({}, person_of(ana))
    assert config.as_dict()["SSH"] == {"HOST": "login.example.org", "PORT": 22, "USER": "acct"}
    assert type(config).from_dict(config.as_dict()) == config


def test_the_snapshot_has_the_choice_and_not_the_person(ana: User) -> None:
    AccountMap.objects.create(person="ana", accounts="acct")
    config = profile(ssh_user="acct").resolve({}, person_of(ana))
    stored = config.as_dict()
    assert stored["SSH"]["AUTHENTICATION"] == "CERTIFICATE"
    assert "ana" not in str(stored)


def test_a_request_cannot_choose_how_the_service_logs_in(ana: User) -> None:
    row = profile("", ssh_user="acct")
    for way in ("CERTIFICATE", "KEY", "BOTH"):
        with pytest.raises(InvalidProfile) as caught:
            row.resolve({"SSH": {"AUTHENTICATION": way}}, person_of(ana))
        assert "Only a profile sets SSH.AUTHENTICATION" in caught.value.errors["SSH.AUTHENTICATION"][0]
    assert "SSH.AUTHENTICATION" not in [item["parameter"] for item in row.requirements()]


def test_yaml_has_the_choice() -> None:
    row = profile()
    text = dump(Configuration(profiles={"P": settings_of(row)}))
    assert "AUTHENTICATION: CERTIFICATE" in text
    row.delete()
    import_configuration(parse(text))
    assert RunnerProfile.objects.get().other_parameters == {"SSH.AUTHENTICATION": "CERTIFICATE"}


def test_the_api_tells_the_remedy(client: Client, ana: User) -> None:
    profile(ssh_user="acct")
    body = {"profile_name": "P", "command_params": {"description": "x"}}
    answer = api_of(client, ana).post("create-experiment", body, expect=403)
    assert answer["code"] == "profile_forbidden"
    assert "is not mapped to you" in str(answer)


def test_the_page_tells_the_remedy(client: Client, ana: User) -> None:
    profile(ssh_user="acct")
    client.force_login(ana)
    form = {"profile_name": "P", "action": "preview", "description": "x"}
    page = client.post(reverse("pages:create-experiment"), form)
    assert page.status_code == 422
    assert "is not mapped to you" in page.content.decode()
    assert "How to log in" not in page.content.decode()


# --- while a run goes on ----------------------------------------------------------------------------------------------


@pytest.fixture
def machine(make_sshd: Callable[..., SSHServer], account: StubAccount, tmp_path: Path, settings: Any) -> SSHServer:
    """Return a machine that trusts only the user CA."""
    settings.RUNNERS_SSH_KEY_DIR = str(tmp_path / "keys")
    settings.RUNNERS_STATUS_FRESHNESS = 0
    call_command("create_ssh_ca")
    (tmp_path / "ca.pub").write_text(user_authority.authorities()[0].line)
    sshd = make_sshd(account.home, options={"TrustedUserCAKeys": str(tmp_path / "ca.pub")})
    sshd.authorized = False
    return sshd


def there(sshd: SSHServer, way: str = "CERTIFICATE") -> RunnerProfile:
    return profile(way, ssh_host="127.0.0.1", ssh_port=sshd.port, ssh_user=sshd.user)


def start_as(person: User, row: RunnerProfile, expid: str = "a000") -> RunnerRun:
    audit = AuditRecord(endpoint="run-experiment", actor=person.get_username())
    config = row.resolve({}, person_of(person))
    return starting.run_experiment(expid=expid, config=config, profile_name="P", audit=audit)


def test_the_watch_signs_for_the_starter_after_the_mapping_was_removed(
    machine: SSHServer, account: StubAccount, ana: User, ben: User
) -> None:
    expid = account.experiment("a000")
    account.control("run", expid, SLEEP=60)
    AccountMap.objects.create(person="ana", accounts=machine.user)
    AccountMap.objects.create(person="ben", accounts=machine.user)
    row = there(machine)
    run = start_as(ana, row, expid)
    AccountMap.objects.filter(person="ana").delete()
    POOL.close()
    assert look(expid).reachable
    assert logs.read(run, limit=100).size >= 0
    with pytest.raises(ForbiddenParameter):
        row.resolve({}, person_of(ana))
    # Another person's command in the same account is about the same experiment, whoever logs in.
    config = row.resolve({}, person_of(ben))
    assert is_same_target(run, config)
    assert is_same_environment(run, config)

    audit = AuditRecord(endpoint="stop-experiment", actor="ben")
    stopping.stop_experiment(expid=expid, audit=audit, viewer=AnonymousUser(), force=True)
    assert wait_ended(expid).status == RunStatus.TERMINATED
    accepted = [line for line in machine.log.read_text().splitlines() if line.startswith("Accepted certificate ID")]
    assert accepted
    assert all('"autosubmit-runners:ana"' in line for line in accepted)


def test_after_the_end_the_starter_needs_a_mapping_again(machine: SSHServer, account: StubAccount, ana: User) -> None:
    expid = account.experiment("a000")
    mapping = AccountMap.objects.create(person="ana", accounts=machine.user)
    run = start_as(ana, there(machine), expid)
    run = wait_ended(expid)
    log_cache.forget()
    assert logs.read(run, limit=100).size >= 0
    mapping.delete()
    log_cache.forget()
    with pytest.raises(AuthenticationFailed, match="not mapped to the person who started this"):
        logs.read(run, limit=100)
    (done,) = clean_directories(before=timezone.now())
    assert "not mapped" in done.problem
    AccountMap.objects.create(person="ana", accounts=machine.user)
    (done,) = clean_directories(before=timezone.now())
    assert (done.problem, done.removed) == ("", 1)


def test_the_check_logs_in_with_a_certificate_and_names_the_line_of_the_ca(
    machine: SSHServer, account: StubAccount, ana: User, tmp_path: Path
) -> None:
    AccountMap.objects.create(person="ana", accounts=machine.user)
    config = there(machine).resolve({}, person_of(ana))
    stages = {stage.name: stage for stage in check_profile(config)}
    assert stages["authenticate"].ok, stages["authenticate"]
    assert stages["authenticate"].detail == f"Logged in as {machine.user} with a certificate for ana."
    assert stages["survives_logout"].ok
    (tmp_path / "ca.pub").write_text("")
    failed = {stage.name: stage for stage in check_profile(config)}["authenticate"]
    assert failed.ok is False
    assert user_authority.authorities()[0].line in failed.remedy


def test_a_restart_logs_in_as_the_profile_says_now_and_needs_the_mapping(ana: User) -> None:
    row = profile("KEY", ssh_user="acct")
    config = row.resolve({}, person_of(ana))
    run = RunnerRun.objects.create(
        expid="a000", config=config.as_dict(), runner="SSH", module_loader="NO_MODULE", status=RunStatus.TERMINATED,
        reason="lost", started_by="ana", profile_name="P", profile_id=row.pk, finished=timezone.now(),
        restart={"attempts": 1},
    )  # fmt: skip
    row.other_parameters = {"SSH.AUTHENTICATION": "CERTIFICATE"}
    row.save()
    with pytest.raises(restarting.Refused, match="not mapped to you"):
        restarting._require_allowed(run)
    AccountMap.objects.create(person="ana", accounts="acct")
    target = restarting._require_allowed(run).target
    assert isinstance(target, SSHTarget)
    assert (target.authentication, target.person) == ("CERTIFICATE", "ana")
