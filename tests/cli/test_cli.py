"""`python3 -m runners.cli` against a live server: what scripts read on standard output, and the exit codes."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from runners.cli.errors import Exit
from tests.support.api import unused_expid
from tests.support.cli import HERE, Cli, StrangerHandler, serving
from tests.support.environments import StubAccount
from tests.support.processes import PATIENCE, free_port, wait_for
from tests.support.servers import ROOT, AppServer, SSHServer


@pytest.fixture
def app(module_app: AppServer) -> AppServer:
    return module_app


@pytest.fixture
def cli(app: AppServer) -> Cli:
    return Cli(app.url)


def test_the_main_job(cli: Cli, account: StubAccount) -> None:
    expid = cli("create", *HERE, "--description", "of the tests", "--dummy").strip()
    assert expid == "a000"
    cli("create-job-list", *HERE, expid)
    account.control("run", expid, SLEEP=1)
    assert cli("run", *HERE, expid, "--wait", "--interval", "0.2") == "COMPLETED\n"
    assert "Experiment a000 started successfully." in cli.told
    assert cli("status", expid) == "COMPLETED\n"
    assert "Run successful" in cli("log", expid)
    planned = cli("run", *HERE, expid, "--run-only-members", "fc0 fc1", "--update-version", "--dry-run")
    assert f"run {expid} '--run_only_members=fc0 fc1' --update_version" in planned
    cli("run", *HERE, expid, "--start-time", "2020-01-01 00:00", expect=Exit.USAGE)
    assert "has passed on" in cli.told
    assert f"exec autosubmit run {expid}" in cli("run-again", expid, "--first", "failed_to_waiting", "--dry-run")
    assert cli("run-again", expid, "--update-version", "--wait", "--interval", "0.2") == "COMPLETED\n"
    assert account.calls("run")[-1] == ["run", expid, "--update_version"]
    cli("set-status", *HERE, expid, "READY", f"{expid}_SIM")
    commands = [call[0] for call in account.calls()]
    assert commands == ["expid", "setstatus", "create", "run", "setstatus", "run", "setstatus"]
    preview = json.loads(cli("set-status", *HERE, expid, "READY", f"{expid}_SIM", "--preview", "--json"))
    assert preview["message"] == "Preview: nothing was saved."
    assert preview["warnings"] == []
    assert "--save" not in account.calls("setstatus")[-1]
    assert "Run successful" in cli("log", expid, "--grep", "SUCCESSFUL", "--ignore-case")
    cli("log", expid, "--grep", "no such text", expect=Exit.FAILED)
    assert cli("log", expid, "--lines", "1").count("\n") <= 1
    assert cli("wait", expid, "--timeout", "30") == "COMPLETED\n"
    assert "COMPLETED" in cli("history", expid)
    assert "HERE" in cli("profiles")
    assert "leaves nothing open" in cli("profiles", "HERE")
    number, *rest = cli("runs", "--expid", expid).split("\n")[1].split()
    assert number.isdigit() and rest[:2] == [expid, "COMPLETED"]


def test_a_run_that_fails(cli: Cli, account: StubAccount) -> None:
    account.experiment("a001")
    account.control("run", "a001", EXIT=1)
    assert cli("run", *HERE, "a001", "--wait", "--interval", "0.2", expect=Exit.FAILED) == "TERMINATED\n"
    assert "Some jobs have failed" in cli.told
    found = json.loads(cli("status", "a001", "--json", expect=Exit.FAILED))
    assert (found["reason"], found["exit_code"]) == ("failed", 1)


def test_a_log_is_followed_to_its_end(cli: Cli, account: StubAccount) -> None:
    account.experiment("a001")
    account.control("run", "a001", SLEEP=2, PRINT="ñ 🐈")
    cli("run", *HERE, "a001")
    log = cli("log", "a001", "--follow")
    assert "ñ 🐈" in log
    assert log.rstrip().endswith("Run successful\x1b[0m\x1b[39m")
    number = cli("runs", "--expid", "a001").split("\n")[1].split()[0]
    assert cli("log", number, "--tail", "20").endswith("successful\x1b[0m\x1b[39m\n")


def test_stop_ends_a_run_and_reports_what_cannot_be_stopped(cli: Cli, account: StubAccount) -> None:
    expid = account.experiment(unused_expid())
    account.control("run", expid, SLEEP=60)
    cli("run", *HERE, expid)
    assert cli("status", expid, expect=Exit.ACTIVE) == "ACTIVE\n"
    cli("run", *HERE, expid, expect=Exit.CONFLICT)
    watcher = cli.start("status", expid, "--watch", "--interval", "0.2")
    assert "autosubmit stop" in cli("stop", expid, "--dry-run")
    assert cli("stop", expid) == "TERMINATED\n"
    assert "autosubmit stop: exit code 0" in cli.told
    output, _ = watcher.communicate(timeout=30 * PATIENCE)
    assert (watcher.returncode, output) == (Exit.FAILED, "TERMINATED\n")
    cli("stop", expid, expect=Exit.NOT_THERE)
    cli("status", "a002", expect=Exit.NOT_THERE)
    cli("log", "4711", expect=Exit.NOT_THERE)


def test_an_invalid_command_line_is_a_usage_error(cli: Cli) -> None:
    for line in (
        "",
        "fly",
        "run a001",
        "run --profile HERE A001",
        "run --profile HERE a001 -p SSH.USER",
        "run --profile HERE a001 -p SSH.HOST=elsewhere",
        "runs --status DONE",
        "runs --limit 0",
        "stop a001 --idempotency-key two\u00a0words",
        "set-status --profile HERE a001 NOSUCH a001_SIM",
    ):
        assert cli(*line.split(), expect=Exit.USAGE) == "", line
        assert cli.told, line


def test_credentials_that_are_not_accepted(make_app: Callable[..., AppServer]) -> None:
    app = make_app(env={"PROTECTION_LEVEL": "ALL"})
    for token in ("", "asr_made_up"):
        Cli(app.url, token)("runs", expect=Exit.REFUSED)
    reader = Cli(app.url, app.manage("create_token", "bob", "--create-user", "--scope", "read").strip())
    reader("runs")
    reader("run", *HERE, "a001", expect=Exit.REFUSED)


def test_a_server_that_is_down_is_unreachable() -> None:
    cli = Cli(f"http://127.0.0.1:{free_port()}")
    cli("--patience", "0", "runs", expect=Exit.UNREACHABLE)
    cli("--patience", "0", "stop", "a001", expect=Exit.UNREACHABLE)
    assert "--idempotency-key" not in cli.told  # the server received nothing
    cli("--url", "", "runs", expect=Exit.USAGE)


def test_a_machine_that_cannot_be_reached(cli: Cli, account: StubAccount, sshd: SSHServer) -> None:
    account.experiment("a001")
    sshd.stop()
    cli("run", "--profile", "THERE", "a001", expect=Exit.UNREACHABLE)
    assert "FAILED" in cli("check", "--profile", "THERE", expect=Exit.FAILED)


def test_a_machine_in_maintenance_refuses_with_the_text_of_the_admin(
    cli: Cli, app: AppServer, account: StubAccount
) -> None:
    account.experiment("a001")
    announce = "from runners.models import Maintenance as M; M.objects.create(machine='localhost', text='New disks')"
    app.manage("shell", "-v0", "-c", announce)
    cli("run", *HERE, "a001", expect=Exit.UNREACHABLE)
    assert "New disks" in cli.told
    assert account.calls("run") == []


def test_a_create_survives_a_server_that_is_killed(cli: Cli, app: AppServer, account: StubAccount) -> None:
    """The client retries with the same key and prints the id of the only experiment."""
    account.control("expid", SLEEP=5)
    client = cli.start("create", *HERE, "--description", "of the tests")
    wait_for(lambda: account.calls("expid"), 30, what="the call")
    app.kill()
    app.start()
    output, told = client.communicate(timeout=60 * PATIENCE)
    assert (client.returncode, output) == (Exit.OK, "a000\n"), told
    assert "Retrying" in told
    assert len(account.calls("expid")) == 1


def key_in(told: str) -> str:
    return told.rpartition("--idempotency-key ")[2].split()[0]


def test_a_create_that_may_have_been_received_can_be_resumed(cli: Cli, app: AppServer, account: StubAccount) -> None:
    """The connection is lost and the time of `--patience` is over.

    A retry with the same key finds the one experiment.
    """
    account.control("expid", SLEEP=5)
    words = ("create", *HERE, "--description", "of the tests")
    client = cli.start("--patience", "0", *words)
    wait_for(lambda: account.calls("expid"), 30, what="the call")
    app.kill()
    output, told = client.communicate(timeout=60 * PATIENCE)
    assert (client.returncode, output) == (Exit.UNKNOWN, ""), told
    app.start()
    assert cli(*words, "--idempotency-key", key_in(told)) == "a000\n"
    assert len(account.calls("expid")) == 1


def test_a_retry_while_the_first_call_is_running_is_not_a_conflict(cli: Cli, account: StubAccount) -> None:
    account.control("expid", SLEEP=3)
    words = ("create", *HERE, "--description", "of the tests", "--idempotency-key", "k")
    first = cli.start(*words)
    wait_for(lambda: account.calls("expid"), 30, what="the call")
    cli("--patience", "0", *words, expect=Exit.UNKNOWN)
    assert "--idempotency-key k " in cli.told
    output, told = first.communicate(timeout=60 * PATIENCE)
    assert (first.returncode, output) == (Exit.OK, "a000\n"), told
    cli(*words, "--dummy", expect=Exit.USAGE)  # the key belongs to another request


def test_the_client_reports_a_started_run_that_it_cannot_watch_any_more(
    cli: Cli, app: AppServer, account: StubAccount
) -> None:
    account.experiment("a001")
    account.control("run", "a001", SLEEP=4)
    words = ("run", *HERE, "a001", "--wait", "--interval", "0.2")
    client = cli.start("--patience", "0", *words)
    assert client.stderr
    wait_for(lambda: "is ACTIVE" in client.stderr.readline(), 30, what="the watch")
    app.stop()
    _, told = client.communicate(timeout=60 * PATIENCE)
    assert client.returncode == Exit.UNKNOWN, told
    app.start()
    assert cli(*words, "--idempotency-key", key_in(told)) == "COMPLETED\n"
    assert len(account.calls("run")) == 1


def test_a_watcher_outlives_a_restart_of_the_service(cli: Cli, app: AppServer, account: StubAccount) -> None:
    account.experiment("a001")
    account.control("run", "a001", SLEEP=4)
    client = cli.start("run", *HERE, "a001", "--follow", "--interval", "0.2")
    wait_for(lambda: account.calls("run"), 30, what="the run")
    app.restart()
    output, told = client.communicate(timeout=60 * PATIENCE)
    assert client.returncode == Exit.OK, told
    assert output.endswith("COMPLETED\n")
    assert "Run successful" in output


def test_interrupting_a_watcher_leaves_the_run(cli: Cli, account: StubAccount) -> None:
    account.experiment("a001")
    account.control("run", "a001", SLEEP=60)
    client = cli.start("run", *HERE, "a001", "--wait")
    wait_for(lambda: account.calls("run"), 30, what="the run")
    cli("status", "a001", expect=Exit.ACTIVE)
    client.send_signal(signal.SIGINT)
    _, told = client.communicate(timeout=20 * PATIENCE)
    assert client.returncode == Exit.INTERRUPTED, told
    assert key_in(told)
    cli("status", "a001", expect=Exit.ACTIVE)


def test_the_reader_of_a_pipe_may_go_away(cli: Cli, account: StubAccount) -> None:
    account.experiment("a001")
    account.control("run", "a001", BYTES=400_000)
    cli("run", *HERE, "a001", "--wait", "--interval", "0.2")
    shell = " ".join(cli.argv("log", "a001")) + " | head -c 10; exit ${PIPESTATUS[0]}"
    done = subprocess.run(
        ["bash", "-c", shell], env=cli.env, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60 * PATIENCE
    )
    assert (done.returncode, len(done.stdout)) == (128 + signal.SIGPIPE, 10)
    assert "Traceback" not in done.stderr


@contextmanager
def stranger(status: int, body: bytes, headers: dict[str, str]) -> Iterator[tuple[str, list[Any]]]:
    """Run a web server that is not this service. Yield its URL and the Authorization headers that it received."""
    seen: list[Any] = []

    class Handler(StrangerHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def do_GET(self) -> None:
            seen.append(self.headers["Authorization"])
            self.reply(body, status, headers)

    with serving(Handler) as url:
        yield url, seen


def test_an_answer_of_another_server_is_unreachable() -> None:
    for status, body in ((200, b"<html>"), (200, b"[]"), (404, b"{}"), (500, b"oops")):
        with stranger(status, body, {}) as (url, _):
            cli = Cli(url)
            cli("--patience", "0", "runs", expect=Exit.UNREACHABLE)
            assert "Traceback" not in cli.told
            if status == 200:  # a proxy, and the service behind it may have executed a command
                cli("--patience", "0", "stop", "a001", expect=Exit.UNKNOWN)
                assert "--idempotency-key" in cli.told


READING: tuple[tuple[str, ...], ...] = (
    ("status", "a001"),
    ("status", "a001", "--watch"),
    ("wait", "a001"),
    ("runs",),
    ("runs", "--mine"),
    ("history", "a001"),
    ("profiles",),
    ("profiles", "P"),
    ("whoami",),
    ("log", "a001"),
    ("log", "a001", "--grep", "x"),
    ("jobs", "a001"),
    ("scripts", "a001"),
    ("check",),
    ("login",),
    ("config", "list", "a001"),
    ("config", "get", "a001", "a.yml"),
    ("stop", "a001", "--dry-run"),
)
SENDING = (("run", "a001"), ("stop", "a001"), ("create", "--description", "x"), ("create-job-list", "a001"))
OTHER_FORMS = (
    {},
    {"status": "ok"},
    {"runner_id": 1, "expid": "a001", "status": "PAUSED", "reachable": True, "created": "", "message": ""},
    dict.fromkeys(("results", "next_cursor", "runner_id", "username", "status", "message", "steps"), 5),
    {"status": {"a": []}, "results": [5], "runner_id": [], "username": None, "message": {}, "next_cursor": None},
)


@pytest.mark.parametrize("form", OTHER_FORMS)
def test_an_answer_of_another_form_is_no_end_of_a_run(form: dict[str, Any]) -> None:
    with stranger(200, json.dumps(form).encode(), {}) as (url, _):
        cli = Cli(url, "asr_secret")
        cli.env["AUTOSUBMIT_RUNNERS_PROFILE"] = "P"
        for words in READING:
            if words[0] in ("profiles", "whoami", "jobs") and cli.exits(*words) == Exit.OK:
                continue  # these print what the answer has
            assert cli.exits(*words) == Exit.UNREACHABLE, (words, cli.told)
            assert cli.told.count("\n") == 1, (words, cli.told)
        for words in SENDING:
            assert cli.exits(*words) == Exit.UNKNOWN, (words, cli.told)
            assert "in a form that this program does not know" in cli.told
            assert "--idempotency-key" in cli.told
            assert "Traceback" not in cli.told


def test_the_traceback_of_an_answer_of_another_form_is_shown_on_request() -> None:
    with stranger(200, b"{}", {}) as (url, _):
        cli = Cli(url)
        cli.env["PYTHONDEVMODE"] = "1"
        cli("runs", expect=Exit.UNREACHABLE)
        assert "Traceback" in cli.told
        assert "KeyError: 'results'" in cli.told


def test_an_error_with_other_members_is_shown() -> None:
    body = {"code": "invalid_request", "status": 422, "detail": "Wrong.", "errors": {"expid": 5, "profile_name": "bad"}}
    with stranger(422, json.dumps(body).encode(), {}) as (url, _):
        cli = Cli(url)
        cli("runs", expect=Exit.USAGE)
        assert cli.told == "error: EXPID: 5\n--profile: bad\n"


@pytest.mark.parametrize(("status", "code"), [(500, Exit.UNKNOWN), (502, Exit.UNKNOWN), (404, Exit.UNREACHABLE)])
def test_an_error_of_a_proxy_does_not_tell_the_outcome_of_a_command(status: int, code: Exit) -> None:
    """The response comes from a proxy or a bug. The service behind the proxy may have executed the command."""
    with stranger(status, b"oops", {}) as (url, _):
        cli = Cli(url)
        cli("--patience", "0", "stop", "a001", expect=code)
        assert ("--idempotency-key" in cli.told) is (code == Exit.UNKNOWN)
        cli("--patience", "0", "stop", "a001", "--dry-run", expect=Exit.UNREACHABLE)


def test_a_throttled_request_was_not_executed() -> None:
    body = json.dumps({"code": "throttled", "status": 429, "detail": "Too many requests."}).encode()
    with stranger(429, body, {}) as (url, _):
        Cli(url)("--patience", "0", "stop", "a001", expect=Exit.UNREACHABLE)


def test_the_token_does_not_follow_a_redirect() -> None:
    with (
        stranger(200, b'{"results": []}', {}) as (elsewhere, seen),
        stranger(302, b"", {"Location": f"{elsewhere}/v4/runners/runs"}) as (url, _),
    ):
        Cli(url, "asr_secret")("--patience", "0", "runs", expect=Exit.UNREACHABLE)
    assert seen == []


def test_configuration_files_are_read_changed_edited_and_restored(
    cli: Cli, app: AppServer, account: StubAccount, tmp_path: Path
) -> None:
    text = "A: 1  # ümlaut\r\nB: 2"
    account.experiment("a001")
    file = account.home / "autosubmit" / "a001" / "conf" / "jobs_a001.yml"
    file.write_bytes(text.encode())
    where = (*HERE, "a001", "jobs_a001.yml")
    assert cli("config", "list", *HERE, "a001").split("\n")[1].startswith("jobs_a001.yml")
    assert cli("config", "get", *where, "--json")
    local = tmp_path / "new.yml"
    local.write_bytes(text.replace("1", "3").encode())
    assert "+A: 3" in cli("config", "diff", *where, str(local), expect=Exit.FAILED)
    cli("config", "put", *where, str(local), expect=Exit.REFUSED)
    switch = "EndpointToggle.objects.update_or_create(name='EDIT_CONFIGURATION', defaults={'enabled': True})"
    app.manage("shell", "-c", f"from profiles.models import EndpointToggle; {switch}")
    assert "+A: 3" in cli("config", "put", *where, str(local), "--dry-run")
    assert file.read_bytes() == text.encode()
    etag = json.loads(cli("config", "get", *where, "--json"))["etag"]
    cli("config", "put", *where, str(local), "--etag", etag)
    assert file.read_bytes() == local.read_bytes()
    cli("config", "put", *where, str(local), "--etag", etag, expect=Exit.CONFLICT)
    local.write_text("A: [")
    cli("config", "put", *where, str(local), expect=Exit.USAGE)
    assert "line 1, column 1" in cli.told
    cli.env["EDITOR"] = "sed -i s/3/4/"
    assert "+A: 4" in cli("config", "edit", *where)
    assert file.read_bytes() == text.replace("1", "4").encode()
    assert "Nothing was changed." in (cli("config", "edit", *where) or cli.told)
    first = cli("config", "versions", *where).split("\n")[2].split()[0]
    cli("config", "restore", *where, first)
    assert file.read_bytes() == text.encode()
