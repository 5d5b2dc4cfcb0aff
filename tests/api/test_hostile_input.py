"""Hostile texts in every field of every command, into real shells on this machine and over SSH.

A tripwire shows whether any of them was executed: each text tries, in its own way, to create a file in one directory.
"""

from __future__ import annotations

import copy
import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from django.test import Client

from profiles.models import RunnerProfile
from runners.api.commands.views import ExperimentCommands
from runners.commands.create_experiment import DEFAULT_HPC
from runners.commands.registry import one_shot_commands
from runners.models import AuditRecord, RunnerRun
from runners.services.machines import scripts
from tests.support.api import Api
from tests.support.commands import smallest_body, switch_all_on
from tests.support.environments import AutosubmitAccount, StubAccount, fake_conda
from tests.support.servers import AppServer, SSHServer

pytestmark = pytest.mark.django_db

TRIP = "/TRIPWIRE"  # replaced by the tripwire directory
HOSTILE = {
    "substitution": f"$(touch {TRIP}/substitution)",
    "backticks": f"`touch {TRIP}/backticks`",
    "semicolon": f"x; touch {TRIP}/semicolon;",
    "and": f"x && touch {TRIP}/and",
    "or": f"x || touch {TRIP}/or",
    "pipe": f"x | touch {TRIP}/pipe",
    "background": f"x & touch {TRIP}/background &",
    "newline": f"x\ntouch {TRIP}/newline\n",
    "carriage return": f"x\rtouch {TRIP}/cr\r\ntouch {TRIP}/crlf\r\n",
    "NUL": f"x\0touch {TRIP}/nul",
    "single quote": f"x'; touch {TRIP}/single; '",
    "double quote": f'x"; touch {TRIP}/double; "',
    "quotes in quotes": f"'\"'\"'; touch {TRIP}/nested; '\"'\"'",
    "backslash": f"x\\'; touch {TRIP}/backslash; \\",
    "here document": f"x <<#end\n#end\ntouch {TRIP}/heredoc",  # our own scripts end with '#end'
    "redirection": f"x > {TRIP}/redirection",
    "process substitution": f"<(touch {TRIP}/process)",
    "arithmetic": f"$((a[$(touch {TRIP}/arithmetic)]))",
    "variable": "${HOME}${IFS}$PATH",
    "prompt": f"${{x:-$(touch {TRIP}/prompt)}}@P \\u \\w",
    "brace": "{a,b}{1..9}",
    "glob": "/*/*/*",
    "tilde": "~root/x",
    "history": "!! !$ !-1",
    "option": "--help",
    "short option": "-h",
    "separator": "--",
    "option with value": f"--version;touch {TRIP}/option",
    "ssh option": f"-oProxyCommand=touch {TRIP}/proxy",
    "git transport": f"ext::sh -c 'touch% {TRIP}/git'",
    "python": f"{{{{().__class__.__base__}}}} {{0}} {{0.__class__}} __import__('os').mknod('{TRIP}/py')",
    "percent": "%n%s%x%d %(name)s %%",
    "SQL": "x'); DROP TABLE runners_runnerrun; --",
    "YAML": f"!!python/object/apply:os.system ['touch {TRIP}/yaml']",
    "up": "../../../../etc/passwd",
    "right to left": "a\u202e100\u202c",
    "zero width": "a0\u200b0\u200d1\ufeff",
    "full width": "\uff41\uff10\uff10\uff11",
    "combining": "a" + "\u0301" * 200,
    "emoji": "\U0001f469\u200d\U0001f4bb" * 20,
    "lone surrogate": "x\ud800y\udfff",
    "ANSI": "\x1b[31mred\x1b[0m\x1b]0;title\x07\x1b[2J",
    "control": "\x01\x02\x7f\x85\u2028\u2029",
    "log line": "x\n2026-01-01 00:00:00 INFO forged: line",
    "success line": "x\nExperiment a999 created\nJobList saved in 1 seconds\n",
    "empty": "",
    "blank": " \t ",
    "long": "A" * 100_000,
    "long and quoted": "'" * 31_999,
}
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # characters that end a line or control a terminal
FORGED = "x\nExperiment a999 created\nSetting zzzz description to 'x'\n"  # what Autosubmit prints after a success
EXPID = {"expid": "a001"}
READY = {"final_status": "READY"}
BODIES: dict[str, dict[str, Any]] = {
    "run-experiment": EXPID,
    "stop-experiment": EXPID,
    "get-runner-run-status": EXPID,
    "set-job-status": {
        **EXPID,
        "command_params": {
            "job_names_list": ["a001_ONE"],
            "final_status": "READY",
            "filter_chunks": None,
            "filter_status": None,
            "filter_type": None,
            "filter_type_chunk": None,
            "filter_type_chunk_split": None,
            "check_wrapper": False,
            "update_version": False,
        },
    },
    "create-experiment": {
        "command_params": {
            "description": "a text",
            "git_repo": None,
            "git_branch": None,
            "config_path": None,
            "hpc": None,
            "copy": None,
            "minimal": False,
            "use_local_minimal": False,
            "operational": False,
            "testcase": False,
            "evaluation": False,
            "dummy": False,
        }
    },
    "create-job-list": {**EXPID, "command_params": {"check_wrapper": False, "update_version": False, "force": False}},
    "update-experiment-description": {**EXPID, "description": "a text"},
}
BY_NAME = one_shot_commands()
BODIES = {name: smallest_body(command) for name, command in BY_NAME.items()} | BODIES
PROFILELESS = ("stop-experiment", "get-runner-run-status")
STATUSES = (200, 400, 404, 409, 413, 502)
Path_ = tuple[str, ...]


def test_every_command_is_in_the_table() -> None:
    commands = {action.url_path for action in ExperimentCommands.get_extra_actions()} | {"get-runner-run-status"}
    assert commands == set(BODIES)


# The texts that a field accepts in addition to "empty" and "blank".
WORDS = {"log line", "success line", "combining"}  # plain words; a filter takes line ends between them, and any letter
HARMLESS: dict[str, set[str]] = {
    "filter_chunks": WORDS,
    "filter_type": WORDS,
    "filter_type_chunk": WORDS,
    "filter_type_chunk_split": WORDS,
    "git_repo": {"up", "tilde"},  # any path: whatever the account may read
}


def on_one_line(text: str) -> str:
    return " ".join(text.split())


# The normalisations that the API documents. Other fields pass on exactly what was sent.
NORMALISED: dict[str, Callable[[str], str]] = {
    "filter_chunks": on_one_line,
    "filter_status": on_one_line,
    "filter_type": lambda text: ",".join(text.split()),
    "filter_type_chunk": on_one_line,
    "filter_type_chunk_split": on_one_line,
}
PARAMETERS = [parameter for command in BY_NAME.values() for parameter in command.parameters]
OPTIONS = {parameter.name: parameter.option for parameter in PARAMETERS if parameter.option}
DEFAULTS = {"hpc": DEFAULT_HPC}  # what Autosubmit gets when the field is empty


def without_description(argv: list[str]) -> list[str]:
    """Return the arguments that must not contain line ends or other control characters."""
    words = [word for word in argv if not word.startswith("--description=")]
    return words[:-1] if "updatedescrip" in words else words


def arrives(path: Path_, text: str, call: list[str]) -> bool:
    """Return True if `text`, sent in a field, is in Autosubmit's call exactly once, as one argument.

    It must not be in any other argument.
    """
    if path == ("description",):
        return call == ["updatedescrip", "--", "a001", text]
    if path == ("profile_params",):  # an empty text gives no parameter
        return not text.strip()
    value = DEFAULTS.get(path[-1], "") if not text else NORMALISED.get(path[-1], str)(text)
    option = OPTIONS[path[-1]]
    found = [word.partition("=")[2] for word in call if word.partition("=")[0] == option]
    others = [word for word in call if word.partition("=")[0] != option]
    plain = all(re.fullmatch(r"[A-Za-z0-9_=, -]+", word) for word in others)
    return plain and found == ([value] if value or path[-1] == "description" else [])


def leaves(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from leaves(item, (*path, name))
    else:
        yield path


FIELDS = [
    (command, path)
    for command, body in BODIES.items()
    for path in [*leaves(body), *([] if command in PROFILELESS else [("profile_name",), ("profile_params",)])]
]


def put(body: dict[str, Any], path: Path_, value: Any) -> dict[str, Any]:
    body = copy.deepcopy(body)
    place = body
    for name in path[:-1]:
        place = place.setdefault(name, {})
    place[path[-1]] = value
    return body


class Range:
    """A sender of hostile texts that checks the tripwire, the responses and the calls of the stand-in autosubmit."""

    def __init__(self, api: Api, account: StubAccount, tripwire: Path, profile: str) -> None:
        self.api, self.account, self.tripwire, self.profile = api, account, tripwire, profile

    def body(self, command: str) -> dict[str, Any]:
        body = BODIES[command]
        return dict(body) if command in PROFILELESS else {**body, "profile_name": self.profile}

    def texts(self) -> Iterator[tuple[str, str]]:
        for name, text in HOSTILE.items():
            yield name, text.replace(TRIP, str(self.tripwire))

    def fire(self, command: str, body: dict[str, Any], name: str) -> tuple[dict[str, Any], list[list[str]]]:
        """Return the response and Autosubmit's calls.

        Only a description may contain line ends and control characters.
        """
        before = len(self.account.calls())
        answer = self.api.post(command, body, expect=STATUSES)
        assert not list(self.tripwire.iterdir()), (command, name, body)
        calls = self.account.calls()[before:]
        for words in calls:
            assert not CONTROL.search("".join(without_description(words))), (command, name, words)
        for record in AuditRecord.objects.all():
            # `detail` quotes what a program printed, which may have several lines (Lmod's errors do).
            detail = record.detail.replace("\n", "")
            words = [record.expid, record.profile_name, detail, *without_description(record.argv)]
            assert not CONTROL.search("".join(words)), (command, name, words)
        AuditRecord.objects.all().delete()
        return answer, calls


@pytest.fixture
def tripwire(tmp_path: Path) -> Path:
    path = tmp_path / "tripwire"
    path.mkdir()
    return path


@pytest.fixture
def local(client: Client, settings: Any, account: StubAccount, tripwire: Path) -> Range:
    """A range on this machine only, for tests in which the runner type makes no difference."""
    return make_range(Api(client), settings, account, tripwire, {"runner_type": "LOCAL"})


@pytest.fixture
def shooting(
    client: Client,
    settings: Any,
    account: StubAccount,
    tripwire: Path,
    runner_type: str,
    request: pytest.FixtureRequest,
) -> Range:
    """A range on this machine, and one over SSH."""
    fields: dict[str, Any] = {"runner_type": runner_type}
    if runner_type == "SSH":
        sshd: SSHServer = request.getfixturevalue("sshd")
        fields |= {"ssh_host": "127.0.0.1", "ssh_port": sshd.port, "ssh_user": sshd.user}
    return make_range(Api(client), settings, account, tripwire, fields)


def make_range(api: Api, settings: Any, account: StubAccount, tripwire: Path, fields: dict[str, Any]) -> Range:
    settings.PROTECTION_LEVEL = "NONE"
    settings.THROTTLE_COMMANDS = ""
    account.experiment("a001")
    RunnerProfile.objects.create(name="P", module_loader_type="NO_MODULE", **fields)
    RunnerProfile.objects.create(name="OPEN", **fields)
    RunnerProfile.objects.create(name="ALL_OPEN")
    switch_all_on()
    return Range(api, account, tripwire, "P")


@pytest.mark.parametrize("name", ["substitution", "backticks", "pipe", "redirection", "arithmetic", "prompt"])
def test_the_tripwire_detects_execution(
    tripwire: Path, shooting: Range, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Without the quoting of Autosubmit's arguments, the same texts are executed, and `fire` detects it.

    Only the function that puts the arguments into the script loses its quoting. Without the quoting of the other
    scripts and ssh.py, the script would not reach its machine.
    """
    script = scripts.replaced_by(["ARGV"])
    monkeypatch.setattr(scripts, "replaced_by", lambda argv: script.replace("ARGV", " ".join(argv)))
    text = HOSTILE[name].replace(TRIP, str(tripwire))
    body = put(shooting.body("update-experiment-description"), ("description",), text)
    with pytest.raises(AssertionError, match=re.escape(f"('update-experiment-description', '{name}'")):
        shooting.fire("update-experiment-description", body, name)
    assert [path.name for path in tripwire.iterdir()] == [name]


@pytest.mark.parametrize(("command", "path"), FIELDS, ids=[f"{command}-{'.'.join(path)}" for command, path in FIELDS])
def test_hostile_texts_are_refused_or_arrive_unchanged(
    shooting: Range, command: str, path: Path_, caplog: pytest.LogCaptureFixture
) -> None:
    """Arrive unchanged except for the documented normalisation. No text can add a line to the log."""
    accepted = set()
    for name, text in shooting.texts():
        answer, calls = shooting.fire(command, put(shooting.body(command), path, text), name)
        for call in calls:
            assert arrives(path, text, call), (command, name, call)
        if "code" not in answer:
            accepted.add(name)
        RunnerRun.objects.all().delete()  # otherwise an active run would reject the next one
    if path[-1] == "description":
        assert len(accepted) > len(HOSTILE) - 8, accepted
    else:
        harmless = HARMLESS.get(path[-1], set())
        assert harmless <= accepted <= harmless | {"empty", "blank"}
    assert [record.getMessage() for record in caplog.records if not record.getMessage().isprintable()] == []


# The texts that a field accepts as an additional list item after "a001_", in addition to "empty" and "blank".
IN_LISTS: dict[str, set[str]] = {
    "job_names_list": {"option", "short option", "separator", "combining"},  # a001_--help is a valid job name
    "filter_status": set(),
    "filter_type": {"option", "short option", "separator", *WORDS},
}


@pytest.mark.parametrize("field", IN_LISTS)
def test_hostile_texts_in_lists(local: Range, field: str) -> None:
    alone: set[str] = set()
    behind: set[str] = set()
    for name, text in local.texts():
        for value, accepted in (([text], alone), (["a001_ONE", f"a001_{text}"], behind)):
            body = put(local.body("set-job-status"), ("command_params", field), value)
            answer, calls = local.fire("set-job-status", body, name)
            for call in calls:
                assert arrives((field,), " ".join(value), call), (name, call)
            if "code" not in answer:
                accepted.add(name)
    assert alone - {"empty", "blank"} == HARMLESS.get(field, set())
    assert behind - {"empty", "blank"} == IN_LISTS[field]


PARAMETERS: list[tuple[Path_, Callable[[str], Any]]] = [
    (("RUNNER_TYPE",), str),
    (("MODULE_LOADER_TYPE",), str),
    (("MODULES",), str),
    (("SSH",), str),
    (("SSH", "HOST"), str),
    (("SSH", "PORT"), str),
    (("SSH", "USER"), str),
    (("SSH", "USERNAME"), str),
]


@pytest.mark.parametrize("path", [path for path, _ in PARAMETERS], ids=".".join)
def test_hostile_profile_params(local: Range, path: Path_, settings: Any) -> None:
    settings.RUNNERS_CONNECT_TIMEOUT = 2
    params = {"RUNNER_TYPE": "SSH", "MODULE_LOADER_TYPE": "LMOD", "MODULES": "autosubmit"}
    params |= {"SSH": {"HOST": "127.0.0.1", "PORT": 1, "USER": "nobody"}}  # nothing listens there
    for name, text in local.texts():
        given = put(params, path, text)
        body = {**local.body("update-experiment-description"), "profile_name": "ALL_OPEN", "profile_params": given}
        answer, _ = local.fire("update-experiment-description", body, name)
        assert "code" in answer, name
    assert local.account.calls() == []


# A real conda takes a second of processor time for each text. The other two cases use the stand-in for conda.
REAL_CONDA = {("LOCAL", "/"), ("SSH", "/tmp/a b/"), ("LOCAL", ""), ("SSH", "")}


@pytest.mark.timeout(400)  # a real conda takes 2 to 5 s for each of 40 texts on a busy machine
@pytest.mark.parametrize("prefix", ["", "/", "/tmp/a b/"])
@pytest.mark.parametrize("loader", ["VENV", "CONDA", "LMOD", "NO_MODULE"])
def test_hostile_modules_reach_the_shell_as_one_word(
    shooting: Range,
    runner_type: str,
    loader: str,
    prefix: str,
    at_login: Callable[[str], None],
    tmp_path: Path,
) -> None:
    """A path may contain almost anything, so only the quoting protects the shell from the text."""
    if loader == "CONDA" and (runner_type, prefix) not in REAL_CONDA:
        fake_conda(tmp_path / "conda")
        at_login(f"export CONDA_EXE={tmp_path}/conda/bin/conda\n")
    reached = 0
    for name, text in shooting.texts():
        if prefix and not text.strip():
            continue
        body = put(shooting.body("create-job-list"), ("profile_name",), "OPEN")
        body["profile_params"] = {"MODULE_LOADER_TYPE": loader, "MODULES": prefix + text}
        answer, _ = shooting.fire("create-job-list", body, name)
        assert "code" in answer or loader == "NO_MODULE", name
        reached += answer.get("code") == "command_failed"
    assert reached >= (10 if loader in ("VENV", "CONDA") and prefix else 0)


@pytest.mark.parametrize("command", BODIES)
def test_hostile_names_of_members(local: Range, command: str) -> None:
    for name, text in local.texts():
        for path in ((text,), ("command_params", text), ("profile_params", text), ("profile_params", "SSH", text)):
            if path[0] in local.body(command) or path[0] == text:
                body = put(local.body(command), path, "x")
                assert local.fire(command, body, name)[0]["status"] in (400, 413), (name, path)


@pytest.mark.parametrize(
    "value", [None, True, 0, -1, 1e308, [], {}, [[]], [{}], {"a": {"b": {"c": {"d": 1}}}}, 10**400]
)
def test_values_of_other_types(local: Range, value: Any) -> None:
    for command, path in FIELDS:
        local.api.post(command, put(local.body(command), path, value), expect=STATUSES)
        RunnerRun.objects.all().delete()


def test_hostile_headers(local: Range) -> None:
    headers = ("Authorization", "X-Forwarded-For", "Content-Type", "Accept", "User-Agent", "Origin")
    for _, text in local.texts():
        line = text.encode("utf-8", "replace").decode("latin-1").replace("\n", " ").replace("\r", " ")[:8000]
        for header in headers:
            for value in (line, f"Bearer {line}"):
                response = local.api.client.post(
                    "/v4/runners/command/run-experiment", b"{}", "application/json", headers={header: value}
                )
                assert response.status_code in (400, 401, 415), (header, value)
    assert not list(local.tripwire.iterdir())


def test_audit_records_hold_what_was_asked_as_harmless_text(local: Range) -> None:
    for _, text in local.texts():
        local.api.post("run-experiment", {"expid": text, "profile_name": text}, expect=(400, 404))
    for record in AuditRecord.objects.all():
        assert (record.expid + record.profile_name).isprintable()
        assert len(record.expid) <= 16 and len(record.profile_name) <= 100


def test_request_with_a_forged_line_makes_no_line_in_the_log(local: Range, caplog: pytest.LogCaptureFixture) -> None:
    for _, text in local.texts():
        local.api.post("run-experiment", {"expid": text, "profile_name": text}, expect=(400, 404))
    lines = [line for record in caplog.records for line in record.getMessage().splitlines()]
    assert not [line for line in lines if line.startswith("2026-01-01") or "\x1b" in line]


@pytest.mark.real
@pytest.mark.timeout(300)  # ten real commands
def test_real_autosubmit_keeps_hostile_descriptions_as_they_are(
    client: Client, settings: Any, autosubmit: AutosubmitAccount, tripwire: Path
) -> None:
    settings.PROTECTION_LEVEL = "NONE"
    RunnerProfile.objects.create(name="P", runner_type="LOCAL", module_loader_type="NO_MODULE")
    api = Api(client)
    expid = autosubmit.short_experiment(job_list=False)
    for text in (HOSTILE["SQL"] + HOSTILE["substitution"].replace(TRIP, str(tripwire)), FORGED):
        body = {"expid": expid, "profile_name": "P", "description": text}
        api.post("update-experiment-description", body)
        assert autosubmit.description(expid) == text
        # A value that contains Autosubmit's success message does not count as success.
        error = api.post("update-experiment-description", {**body, "expid": "zzzz"}, expect=404)
        assert error["code"] == "experiment_not_found"
    for words in ("JobList saved in 1", "No changes were performed"):
        body = {"expid": "zzzz", "profile_name": "P", "command_params": {**READY, "filter_chunks": words}}
        assert api.post("set-job-status", body, expect=404)["code"] == "experiment_not_found"
    body = {"profile_name": "P", "command_params": {"description": FORGED, "copy": "zzzz"}}
    assert list(api.post("create-experiment", body, expect=400)["errors"]) == ["command_params.copy"]
    body = {"profile_name": "P", "command_params": {"description": FORGED}}
    created = api.post("create-experiment", body)["expid"]
    assert created != "a999" and autosubmit.description(created) == FORGED
    assert not list(tripwire.iterdir())


# --- Secrets ----------------------------------------------------------------------------------------------------------


def test_secrets_are_in_no_log_answer_row_or_environment(
    make_app: Callable[..., AppServer], account: StubAccount, sshd: SSHServer
) -> None:
    """A server with the most verbose log receives good and bad requests, with good and bad credentials."""
    jwt_secret, secret_key = "jwt-secret-of-the-tests-0123456789", "django-secret-of-the-tests-0123456789"
    script_token = "script-token-of-the-tests-0123456789"
    app = make_app(
        account=account,
        sshd=sshd,
        env={
            "PROTECTION_LEVEL": "ALL",
            "SECRET_KEY": secret_key,
            "AS_API_JWT_SECRET": jwt_secret,
            "AS_API_SECRET_TOKEN": script_token,
            "LOG_LEVEL": "DEBUG",
        },
    )
    account.experiment("a001")
    account.control("run", SLEEP=60)
    token = app.manage("create_token", "ana", "--create-user").strip()
    login = jwt.encode({"user_id": "ben", "exp": datetime.now(UTC) + timedelta(hours=1)}, jwt_secret, algorithm="HS256")
    profiles = account.home / "profiles.yml"
    ssh = f"SSH: {{HOST: 127.0.0.1, PORT: {sshd.port}, USER: {sshd.user}}}"
    profiles.write_text(
        "RUNNER_CONFIGURATION: {PROFILES: {L: {RUNNER_TYPE: LOCAL, MODULE_LOADER_TYPE: NO_MODULE}, "
        f"S: {{RUNNER_TYPE: SSH, MODULE_LOADER_TYPE: NO_MODULE, {ssh}}}}}}}"
    )
    app.manage("import_profiles", str(profiles))
    answers = []
    wrong_token, wrong_login = token[:-4] + "xxxx", login[:-4] + "xxxx"
    for credential in (token, login, script_token, wrong_token, wrong_login, "nonsense-credential-0123456789"):
        headers = {"Authorization": f"Bearer {credential}"}
        for profile in ("L", "S", "X"):
            for command in ("create-job-list", "run-experiment", "set-job-status"):
                body = {"expid": "a001", "profile_name": profile, **BODIES[command]}
                answers.append(app.post(f"/v4/runners/command/{command}", body, **headers))
        answers.append(app.post("/v4/runners/command/run-experiment", b"{broken", **headers))
        answers.append(app.get("/v4/runners/configuration/profiles", **headers))
    statuses = [answer.status for answer in answers]
    assert {*statuses} >= {200, 400, 401, 404, 409} and 500 not in statuses
    assert statuses.count(401) == len(statuses) / 2  # the three good credentials were accepted
    key_text = sshd.client_key.read_text().splitlines()[2]
    with closing(sqlite3.connect(app.database)) as database:
        rows = "\n".join(database.iterdump())
    said = {
        "log": app.log_text(),
        "rows": rows,
        "answers": "".join(json.dumps(answer.body) + str(dict(answer.headers)) for answer in answers),
        "environments": "".join(json.dumps(each) for each in account.environments()),
        "arguments": "".join(json.dumps(each) for each in account.calls()),
    }
    assert "create-job-list" in said["rows"] and "HOME" in said["environments"] and said["log"]
    secrets = {
        "token": token,
        "login": login,
        "wrong token": wrong_token,
        "wrong login": wrong_login,
        "nonsense": "nonsense-credential",
        "jwt secret": jwt_secret,
        "script token": script_token,
        "secret key": secret_key,
        "private key": key_text,
    }
    found = [(name, place) for name, secret in secrets.items() for place, text in said.items() if secret in text]
    assert found == []
