"""Installations: an expid belongs to one Autosubmit database, and two databases both begin at a000."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from profiles.installations import MAX_INSTALLATION, installation_of, validate_installation
from profiles.models import RunnerProfile
from profiles.yaml.format import InvalidConfiguration
from profiles.yaml.importer import export_configuration, import_configuration
from profiles.yaml.reader import parse
from profiles.yaml.writer import dump
from runners.models import RunnerRun, SeenDatabase
from runners.services import autosubmit_databases
from runners.services.machines.local import LocalTarget
from runners.services.machines.own_account import own_account
from runners.services.machines.registry import get_runner
from runners.services.machines.ssh.target import SSHTarget
from tests.support.api import Api
from tests.support.environments import StubAccount
from tests.support.processes import wait_for
from tests.support.servers import SSHServer

pytestmark = pytest.mark.django_db(transaction=True)

EACH = "{user}@{host}"  # every account has its own database
CREATE = {"command_params": {"description": "x"}}


@pytest.fixture(scope="module")
def _other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StubAccount]:
    account = StubAccount(tmp_path_factory.mktemp("other") / "home")
    yield account
    account.kill()


@pytest.fixture
def other(_other: StubAccount) -> Iterator[StubAccount]:
    yield _other
    _other.reset()


@pytest.fixture
def api(
    client: Client, settings: Any, account: StubAccount, other: StubAccount, make_sshd: Callable[..., SSHServer]
) -> Api:
    """LOCAL_A uses `account`, SSH_B uses `other`. Each has an Autosubmit database whose first expid is a000."""
    settings.PROTECTION_LEVEL = "NONE"
    settings.THROTTLE_COMMANDS = ""
    settings.RUNNERS_STATUS_FRESHNESS = 0
    server = make_sshd(other.home)
    RunnerProfile.objects.create(name="LOCAL_A", runner_type="LOCAL", module_loader_type="NO_MODULE")
    RunnerProfile.objects.create(
        name="SSH_B",
        runner_type="SSH",
        module_loader_type="NO_MODULE",
        ssh_host="127.0.0.1",
        ssh_port=server.port,
        ssh_user=server.user,
    )
    return Api(client)


def name_installations(**names: str) -> None:
    for profile, name in names.items():
        RunnerProfile.objects.filter(name=profile).update(installation=name)


def start(api: Api, profile: str, expid: str = "a000", *, expect: int = 200) -> dict[str, Any]:
    return api.post("run-experiment", {"expid": expid, "profile_name": profile}, expect=expect)


# --- two databases ----------------------------------------------------------------------------------------------------


def test_the_same_expid_runs_once_in_each_of_two_databases(api: Api, account: StubAccount, other: StubAccount) -> None:
    name_installations(LOCAL_A=EACH, SSH_B=EACH)
    created = [api.post("create-experiment", {"profile_name": name, **CREATE}) for name in ("LOCAL_A", "SSH_B")]
    assert [each["expid"] for each in created] == ["a000", "a000"]
    for each in (account, other):
        each.control("run", SLEEP=60)
    user = own_account().pw_name
    first, second = start(api, "LOCAL_A"), start(api, "SSH_B")
    assert (first["installation"], second["installation"]) == (f"{user}@localhost", f"{user}@127.0.0.1")
    wait_for(lambda: [each.calls("run") for each in (account, other)] == [[["run", "a000"]]] * 2, what="both runs")
    refused = start(api, "SSH_B", expect=409)
    assert refused["code"] == "already_running"
    assert refused["run"]["runner_id"] == second["runner_id"]
    assert f"profile SSH_B, {user} on {second['host']}" in refused["detail"]
    # An idle experiment of that id in the other database causes no conflict, in either direction.
    RunnerRun.objects.filter(pk=first["runner_id"]).update(expid="a001")
    other.experiment("a001")
    params = {"final_status": "READY", "filter_status": "COMPLETED"}
    body = {"expid": "a001", "command_params": params}
    assert api.post("set-job-status", {**body, "profile_name": "SSH_B"})["message"]
    refused = api.post("set-job-status", {**body, "profile_name": "LOCAL_A"}, expect=409)
    assert "profile LOCAL_A" in refused["detail"]


def test_profiles_without_an_installation_run_an_experiment_once(
    api: Api, account: StubAccount, other: StubAccount
) -> None:
    for each in (account, other):
        each.experiment("a000")
        each.control("run", SLEEP=60)
    run = start(api, "LOCAL_A")
    assert run["installation"] == "default"
    refused = start(api, "SSH_B", expect=409)
    assert refused["run"]["runner_id"] == run["runner_id"]
    assert "profile LOCAL_A" in refused["detail"]
    assert "INSTALLATION" in refused["detail"]
    assert not other.calls("run")
    # A new experiment in the database of another account does not affect this account's runs.
    api.post("create-experiment", {"profile_name": "SSH_B", **CREATE})
    assert not RunnerRun.objects.get().superseded


def test_a_named_installation_is_one_database_for_all_its_accounts(
    api: Api, account: StubAccount, other: StubAccount
) -> None:
    name_installations(LOCAL_A="Site", SSH_B="site")
    account.experiment("a000")
    run = start(api, "LOCAL_A")
    assert run["installation"] == "site"
    wait_for(lambda: api.post("get-runner-run-status", {"expid": "a000"})["status"] == "COMPLETED", what="end")
    assert api.post("create-experiment", {"profile_name": "SSH_B", **CREATE})["expid"] == "a000"
    assert api.post("get-runner-run-status", {"expid": "a000"}, expect=404)["code"] == "run_not_found"


def test_the_database_allows_one_active_run_in_an_installation_and_old_servers_use_the_default_one() -> None:
    values: dict[str, Any] = {"expid": "a000", "config": {}, "runner": "LOCAL", "module_loader": "NO_MODULE"}
    assert RunnerRun.objects.create(**values).installation == "default"
    RunnerRun.objects.create(**values, installation="other")
    for name in ("default", "other"):
        with pytest.raises(IntegrityError), transaction.atomic():
            RunnerRun.objects.create(**values, installation=name)


def test_a_new_name_of_the_installation_lets_no_experiment_run_twice(api: Api, account: StubAccount) -> None:
    account.experiment("a000")
    account.control("run", SLEEP=60)
    run = start(api, "LOCAL_A")
    name_installations(LOCAL_A="renamed")
    assert start(api, "LOCAL_A", expect=409)["run"]["runner_id"] == run["runner_id"]
    assert api.post("stop-experiment", {"expid": "a000", "profile_name": "LOCAL_A", "force": True})
    assert start(api, "LOCAL_A")["installation"] == "renamed"
    # A new experiment of the id in the same account is not the experiment of the runs under the former name.
    shutil.rmtree(account.home / "autosubmit")
    api.post("create-experiment", {"profile_name": "LOCAL_A", **CREATE})
    assert RunnerRun.objects.get(pk=run["runner_id"]).superseded


# --- the name ---------------------------------------------------------------------------------------------------------


def test_the_placeholders_are_the_account_and_the_real_name_of_the_machine(settings: Any, tmp_path: Path) -> None:
    config = tmp_path / "ssh_config"
    config.write_text("Host hpc\n  HostName Login1.Example.COM.\n")
    settings.RUNNERS_SSH_CONFIG = str(config)
    for host in ("hpc", "login1.example.com", "LOGIN1.example.com"):
        assert installation_of("Prod-{host}:{user}", SSHTarget(host, 22, "Ana")) == "prod-login1.example.com:Ana"
    assert installation_of("", LocalTarget()) == "default"
    assert installation_of(EACH, LocalTarget()) == f"{own_account().pw_name}@localhost"
    longest = installation_of("x" * 81 + EACH, SSHTarget("h" * 253, 22, "{host}" + "u" * 58))
    assert len(longest) <= MAX_INSTALLATION
    assert "{host}u" in longest


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("{username}", "Use {user}"),
        ("{user}{user}", "each at most once"),
        ("{USER}", "{user} and {host}"),
        ("a b", "letters, digits"),
        ("-a", "beginning with a letter"),
        ("é", "letters, digits"),
        ("x" * 101, "1 to 100"),
        ("x\n", "letters, digits"),
    ],
)
def test_a_wrong_name_is_refused_with_the_remedy(name: str, remedy: str) -> None:
    with pytest.raises(ValidationError) as caught:
        validate_installation(name)
    assert remedy in " ".join(caught.value.messages)
    text = f"RUNNER_CONFIGURATION: {{PROFILES: {{P: {{INSTALLATION: {name!r}}}}}}}"
    with pytest.raises(InvalidConfiguration) as wrong:
        parse(text)
    assert wrong.value.mistakes[0].path == "RUNNER_CONFIGURATION.PROFILES.P.INSTALLATION"


def test_yaml_profile_and_wire_have_the_installation() -> None:
    text = "RUNNER_CONFIGURATION: {PROFILES: {P: {RUNNER_TYPE: LOCAL, INSTALLATION: '{user}'}, Q: {}}}"
    assert "INSTALLATION={user}" in "\n".join(map(str, import_configuration(parse(text)).changes))
    row = RunnerProfile.objects.get(name="P")
    assert row.as_wire()["INSTALLATION"] == "{user}"
    assert "INSTALLATION" not in RunnerProfile.objects.get(name="Q").as_wire()
    exported = dump(export_configuration())
    assert exported.count("INSTALLATION") == 1
    assert not import_configuration(parse(exported))
    kept = import_configuration(parse("RUNNER_CONFIGURATION: {PROFILES: {P: {RUNNER_TYPE: LOCAL}}}"))
    assert not kept  # an import without INSTALLATION does not change it
    plan = import_configuration(parse("RUNNER_CONFIGURATION: {PROFILES: {P: {RUNNER_TYPE: LOCAL, INSTALLATION: ''}}}"))
    assert [str(change) for change in plan.changes] == ["~ PROFILES.P.INSTALLATION: {user} -> (default)"]


# --- which run is meant -----------------------------------------------------------------------------------------------


@pytest.fixture
def two_runs(api: Api, account: StubAccount, other: StubAccount) -> tuple[dict[str, Any], dict[str, Any]]:
    """a000 runs in both databases; LOCAL_A's run was started first."""
    name_installations(LOCAL_A=EACH, SSH_B=EACH)
    for each in (account, other):
        each.experiment("a000")
        each.control("run", SLEEP=60)
    return start(api, "LOCAL_A"), start(api, "SSH_B")


def status(api: Api, *, expect: int = 200, **body: Any) -> dict[str, Any]:
    return api.post("get-runner-run-status", {"expid": "a000", **body}, expect=expect)


def test_status_and_stop_go_by_the_profile(api: Api, two_runs: tuple[dict[str, Any], dict[str, Any]]) -> None:
    first, second = two_runs
    assert status(api)["runner_id"] == second["runner_id"]
    for profile, run in (("LOCAL_A", first), ("SSH_B", second)):
        assert status(api, profile_name=profile)["runner_id"] == run["runner_id"]
    refused = api.post("stop-experiment", {"expid": "a000"}, expect=409)
    assert refused["code"] == "ambiguous"
    assert [each["runner_id"] for each in refused["choices"]] == [second["runner_id"], first["runner_id"]]
    assert [each["profile_name"] for each in refused["choices"]] == ["SSH_B", "LOCAL_A"]
    assert "profile_name" in refused["detail"]
    plan = api.post("stop-experiment", {"expid": "a000", "dry_run": True, "profile_name": "LOCAL_A"})
    assert plan["profile"]["RUNNER_TYPE"] == "LOCAL"
    stopped = api.post("stop-experiment", {"expid": "a000", "profile_name": "SSH_B", "force": True})
    assert (stopped["runner_id"], stopped["status"]) == (second["runner_id"], "TERMINATED")
    assert status(api)["runner_id"] == first["runner_id"], "the active run comes before a newer one that has ended"
    assert status(api)["status"] == "ACTIVE"
    assert status(api, profile_name="SSH_B")["status"] == "TERMINATED"
    refused = api.post("stop-experiment", {"expid": "a000", "profile_name": "SSH_B"}, expect=409)
    assert refused["code"] == "not_running"
    stopped = api.post("stop-experiment", {"expid": "a000", "force": True})
    assert (stopped["runner_id"], stopped["status"]) == (first["runner_id"], "TERMINATED")
    (listed,) = api.get(f"/v4/runners/runs?installation={first['installation']}")["results"]
    assert listed["runner_id"] == first["runner_id"]


def test_profile_params_say_which_account_of_an_open_profile_is_meant(api: Api) -> None:
    where = {"runner_type": "SSH", "module_loader_type": "NO_MODULE", "ssh_host": "127.0.0.1", "installation": "{user}"}
    profile = RunnerProfile.objects.create(name="OPEN", **where)
    values: dict[str, Any] = {"expid": "a000", "config": {}, "runner": "SSH", "module_loader": "NO_MODULE"}
    of = {
        name: RunnerRun.objects.create(**values, profile_name="OPEN", user=name, installation=name)
        for name in ("ana", "ben")
    }
    RunnerRun.objects.create(**values, installation="another")
    refused = api.post("stop-experiment", {"expid": "a000", "profile_name": "OPEN"}, expect=409)
    assert [each["user"] for each in refused["choices"]] == ["", "ben", "ana"], "an open account may be any"
    for name in of:
        body = {"expid": "a000", "profile_name": "OPEN", "profile_params": {"SSH": {"USER": name}}}
        plan_of = api.post("stop-experiment", {**body, "dry_run": True}, expect=502)  # the run's configuration is empty
        assert plan_of["code"] == "runner_unreachable"
        assert str(of[name].pk) in plan_of["detail"]
    # A new name of the installation applies to new runs. The profile's older runs are still found.
    RunnerRun.objects.filter(installation="another").delete()
    RunnerRun.objects.filter(pk=of["ana"].pk).delete()
    RunnerProfile.objects.filter(pk=profile.pk).update(installation="moved")
    assert status(api, profile_name="OPEN")["runner_id"] == of["ben"].pk
    for strange in ("\ud800", "\0", "x" * 101, 7, ["OPEN"]):
        assert status(api, profile_name=strange, expect=400)["code"] in ("invalid_request", "invalid_json")
    for strange in ("x", [1], {"SSH": "x"}, {"SSH": {"USER": 7}}):
        assert status(api, profile_name="OPEN", profile_params=strange, expect=400)["code"] == "invalid_profile"
    assert status(api, profile_name="OPEM", expect=404)["code"] == "profile_not_found"
    assert status(api, profile_params={"SSH": {}}, expect=400)["errors"].keys() == {"profile_name"}


def test_an_expid_finds_the_own_run_and_not_that_of_another_user(client: Client, settings: Any) -> None:
    settings.PROTECTION_LEVEL = "ALL"
    ana, ben, eve = (User.objects.create_user(name) for name in ("ana", "ben", "eve"))
    values: dict[str, Any] = {"expid": "gr05", "config": {}, "runner": "LOCAL", "module_loader": "NO_MODULE"}
    ended = {"status": "COMPLETED", "finished": timezone.now()}
    bens = RunnerRun.objects.create(**values, **ended, started_by="ben", installation="ben")
    anas = RunnerRun.objects.create(**values, started_by="ana", installation="ana", profile_name="ANA")

    def asks(user: User, **body: Any) -> dict[str, Any]:
        client.force_login(user)
        return Api(client).post("get-runner-run-status", {"expid": "gr05", **body})

    assert asks(ana)["runner_id"] == anas.pk
    assert asks(ben)["runner_id"] == bens.pk, "not the newer, active run of another installation"
    assert asks(eve)["runner_id"] == anas.pk
    # Hidden runs are not among a user's choices.
    profile = RunnerProfile.objects.create(name="ANA")
    RunnerRun.objects.filter(pk=anas.pk).update(profile_id=profile.pk)
    profile.view_groups.add(Group.objects.create(name="climate"))
    assert asks(eve)["runner_id"] == bens.pk
    RunnerRun.objects.create(**values, started_by="eve", installation="eve")
    client.force_login(ben)
    other = RunnerRun.objects.create(**values, started_by="ben", installation="ben")
    refused = Api(client).post("stop-experiment", {"expid": "gr05"}, expect=409)
    assert (refused["code"], len(refused["choices"])) == ("ambiguous", 2)
    assert anas.pk not in [each["runner_id"] for each in refused["choices"]]
    assert other.pk in [each["runner_id"] for each in refused["choices"]]


def test_a_conflict_with_a_hidden_run_does_not_describe_it(client: Client, settings: Any, account: StubAccount) -> None:
    settings.PROTECTION_LEVEL = "ALL"
    secret = RunnerProfile.objects.create(name="SECRET", runner_type="LOCAL", module_loader_type="NO_MODULE")
    RunnerProfile.objects.create(name="MINE", runner_type="LOCAL", module_loader_type="NO_MODULE")
    secret.view_groups.add(Group.objects.create(name="climate"))
    account.experiment("a000")
    account.control("run", SLEEP=60)
    for name in ("ana", "ben"):
        User.objects.create_superuser(name) if name == "ana" else User.objects.create_user(name)
    client.force_login(User.objects.get(username="ana"))
    start(Api(client), "SECRET")
    client.force_login(User.objects.get(username="ben"))
    refused = start(Api(client), "MINE", expect=409)
    assert refused["code"] == "already_running"
    assert "run" not in refused
    assert not {"SECRET", "ana"} & set(refused["detail"].replace(",", " ").split())
    assert Api(client).post("stop-experiment", {"expid": "a000"}, expect=404)["code"] == "run_not_found"


def test_the_page_of_a_run_stops_that_run(
    api: Api, client: Client, two_runs: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    first, second = two_runs
    client.force_login(User.objects.create_superuser("root"))
    page = client.post(reverse("pages:stop", args=[first["runner_id"]]), {"force": "on"})
    assert page.status_code == 302, page.content
    assert RunnerRun.objects.get(pk=first["runner_id"]).status == "TERMINATED"
    assert RunnerRun.objects.get(pk=second["runner_id"]).status == "ACTIVE"
    assert (
        f"/runs/{second['runner_id']}"
        not in client.get(reverse("pages:run", args=[first["runner_id"]])).content.decode()
    )


# --- what the connection test says of databases -----------------------------------------------------------------------


def use_database(account: StubAccount, path: Path | str, **more: str) -> None:
    lines = {"path": path, "filename": "autosubmit.db", **more}
    text = "".join(f"{name} = {value}\n" for name, value in lines.items())
    (account.home / ".autosubmitrc").write_text(f"[database]\n{text}[local]\npath = /nowhere\n")


def judged(profile: str) -> tuple[str, str]:
    """Return the database and the remedy that the connection test reports."""
    runner = get_runner(RunnerProfile.objects.get(name=profile).resolve({}))
    database, conflicts = autosubmit_databases.compare(runner, RunnerProfile.objects.all())
    return str(database), " ".join(conflicts)


def test_the_connection_test_compares_databases_with_installations(
    api: Api, account: StubAccount, other: StubAccount, tmp_path: Path
) -> None:
    use_database(account, tmp_path / "a")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "b")
    use_database(other, link)
    host = socket.gethostname()
    assert judged("LOCAL_A") == (f"{tmp_path}/a/autosubmit.db on {host}", "")
    # Two databases, one installation.
    database, remedy = judged("SSH_B")
    assert database == f"{tmp_path}/b/autosubmit.db on {host}", "links are followed"
    assert f"LOCAL_A ({own_account().pw_name} on {host})" in remedy
    assert "INSTALLATION: ssh_b" in remedy, "the accounts have one name on one machine"
    name_installations(LOCAL_A=EACH, SSH_B=EACH)
    assert judged("SSH_B")[1] == ""
    # One database, two installations.
    use_database(other, tmp_path / "a")
    name_installations(LOCAL_A="production")
    assert "INSTALLATION: production" in judged("SSH_B")[1]
    stages = api.post("/v4/runners/profiles/LOCAL_A/check", {})["stages"]
    stage = next(stage for stage in stages if stage["name"] == "installation")
    assert f"'production': {tmp_path}/a/autosubmit.db" in stage["detail"]
    assert stage["ok"]
    assert "SSH_B" in stage["remedy"]
    name_installations(SSH_B="production")
    assert judged("SSH_B")[1] == ""
    seen = SeenDatabase.objects.all()
    assert len(seen) == 2
    assert {each.location for each in seen} == {f"{tmp_path}/a/autosubmit.db"}
    RunnerProfile.objects.get(name="LOCAL_A").delete()
    judged("SSH_B")
    assert len(SeenDatabase.objects.all()) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no section",
        "[database]\nfilename = x\n",
        "[database]\npath = ~/autosubmit\n",
        "[database]\npath = /a\nfilename = \n",
        "[database]\npath = /" + "x" * 2000 + "\n",
        "[database]\npath = /a\x1b[31m\n",
        "[database]\nbackend = postgres\nconnection_url = postgresql://ana:secret@db:x/as\n",
        "[database]\npath = /a\n" + "#" * 20_000 + "\n",
        "[database]\npath = /a\n" + "x" + " " * 16_000 + "\n",
        b"[database]\npath = /\xff\xfe\n",
    ],
)
def test_a_configuration_without_a_database_is_not_an_error(account: StubAccount, text: str | bytes) -> None:
    file = account.home / ".autosubmitrc"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert autosubmit_databases.read(get_runner(account.config())) is None


def test_a_database_server_is_shown_without_its_password(account: StubAccount) -> None:
    use_database(
        account, "/a", backend="postgres", connection_url="postgresql://ana:se%cret@DB.example.com/as?password=x"
    )
    found = autosubmit_databases.read(get_runner(account.config()))
    assert str(found) == "postgres://db.example.com:5432/as"
