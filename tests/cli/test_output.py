"""What the client prints: text that cannot control a terminal, words of the command line, locales, a full disk."""

from __future__ import annotations

import argparse
import base64
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from runners.cli.catalog import bundled
from runners.cli.errors import Exit, Problem
from runners.cli.parser import parser
from runners.cli.terminal import harmless
from runners.cli.words import message
from tests.support.cli import Cli, StrangerHandler, serving
from tests.support.processes import PATIENCE
from tests.support.servers import ROOT

RUN: dict[str, Any] = {
    "runner_id": 7,
    "expid": "a001",
    "status": "ACTIVE",
    "reason": "",
    "exit_code": None,
    "explanation": "",
    "reachable": True,
    "unreachable_detail": "",
    "profile_name": "CLUSTER",
    "host": "login1",
    "started_by": "ada",
    "created": "2026-01-20T09:30:00+00:00",
    "finished": None,
    "confirmed_at": None,
}
HOSTILE = b"one \x1b]0;title\x07\x1b[31mred\x1b[0m\x1b[2J \xc3\xb1 \xe2\x80\xae\x9b2J\xff end\nCRITICAL two\n"


@contextmanager
def service(answer: Callable[[str, dict[str, str], Any], Any]) -> Iterator[str]:
    """Run a server that answers `answer(path, query, body)`. A tuple is a status and a body."""

    class Handler(StrangerHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.look_up(body)

        def do_GET(self) -> None:
            self.look_up(None)

        def look_up(self, body: Any) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            found = answer(parts.path.removeprefix("/v4/runners/"), query, body)
            status, found = found if isinstance(found, tuple) else (200, found)
            self.reply(json.dumps(found).encode(), status)

    with serving(Handler) as url:
        yield url


def answering(run: dict[str, Any], log: bytes = b"", *, search: bool = False) -> Callable[..., Any]:
    """Return the answers for one run and its log."""

    def answer(path: str, query: dict[str, str], body: Any) -> Any:
        if path.endswith("/log/search"):
            if not search:
                return 404, {"code": "not_found", "status": 404, "detail": "There is nothing here."}
            match = {"line": 2, "before": "", "match": query["text"], "after": " two", "offset": 5, "length": 8}
            first = "offset" not in query
            return {"matches": [match, match] if first else [], "size": len(log), "resume": 9 if first else None}
        if path.endswith("/log"):
            begin = max(0, len(log) - int(query["tail"])) if "tail" in query else int(query["offset"])
            end = min(len(log), begin + int(query.get("limit", len(log))))
            data = base64.b64encode(log[begin:end]).decode()
            return {"data": data, "next_offset": end, "size": len(log), "ended": end == len(log)}
        if path == "runs":
            return {"results": [run], "next_cursor": None}
        return run

    return answer


def on_terminal(cli: Cli, *words: str, typed: str = "", **env: str) -> tuple[int, str]:
    """Run the client on a terminal. Return its exit code and what the terminal received."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(ROOT)
        os.execve(sys.executable, cli.argv(*words), {**cli.env, "TERM": "xterm", "LC_ALL": "C.UTF-8", **env})
    if typed:
        os.write(terminal, typed.encode())
    received = b""
    while True:
        try:
            part = os.read(terminal, 65_536)
        except OSError:  # the end
            break
        if not part:
            break
        received += part
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), received.decode()


# --- Terminal ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ñ 🐈\tx\n", "plain ñ 🐈\tx\n"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07x\x1b]8;;http://a\x1b\\y", "xy"),
        ("a\rb\x08\x00", "a\ufffdb\ufffd\ufffd"),
        ("a\r\nb", "a\nb"),
        ("\u202eabc\u2066", "\ufffdabc\ufffd"),
        ("\x9b2J", "\ufffd2J"),
        ("\x1b", "\ufffd"),
    ],
)
def test_control_characters_do_not_reach_a_terminal(text: str, shown: str) -> None:
    assert harmless(text) == shown


def test_a_log_is_harmless_on_a_terminal_and_exact_in_a_pipe() -> None:
    with service(answering({**RUN, "status": "COMPLETED"}, HOSTILE)) as url:
        cli = Cli(url)
        code, shown = on_terminal(cli, "log", "7")
        assert code == Exit.OK
        assert "\x1b" not in shown
        assert "\x9b" not in shown
        assert "one red ñ" in shown
        done = subprocess.run(cli.argv("log", "7"), env=cli.env, cwd=ROOT, capture_output=True, timeout=60 * PATIENCE)
        assert done.stdout == HOSTILE


def test_names_of_the_service_are_harmless_everywhere() -> None:
    run = {**RUN, "profile_name": "\x1b[2Jevil\nname", "status": "TERMINATED", "explanation": "\x1b]0;x\x07why\x1b[1m"}
    with service(answering(run)) as url:
        cli = Cli(url)
        assert "\x1b" not in cli("runs") + cli("history", "a001")
        assert len(cli("runs").splitlines()) == 2
        cli("status", "7", "--watch", expect=Exit.FAILED)
        assert "why" in cli.told
        assert "\x1b" not in cli.told
        assert json.loads(cli("runs", "--json"))[0]["profile_name"] == "\x1b[2Jevil\nname"


def test_colours_are_only_on_a_terminal_and_obey_no_color() -> None:
    with service(answering({**RUN, "status": "COMPLETED"})) as url:
        cli = Cli(url)
        assert cli("status", "7") == "COMPLETED\n"
        assert on_terminal(cli, "status", "7") == (0, "\x1b[32mCOMPLETED\x1b[0m\r\n")
        assert on_terminal(cli, "status", "7", NO_COLOR="1") == (0, "COMPLETED\r\n")


@pytest.mark.parametrize("locale", [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}])
def test_a_locale_without_utf_8_is_no_error(locale: dict[str, str]) -> None:
    with service(answering({**RUN, "profile_name": "ñandú"}, "ñ\n".encode())) as url:
        cli = Cli(url)
        cli.env.update(locale)
        assert "and" in cli("runs")
        cli("log", "7", "--grep", "nothing", expect=Exit.FAILED)
        done = subprocess.run(
            [*map(os.fsencode, cli.argv("log", "7", "--grep")), b"\xff"], env=cli.env, cwd=ROOT, capture_output=True
        )
        assert done.returncode in (Exit.USAGE, Exit.FAILED)
        assert b"Traceback" not in done.stderr


def test_a_full_disk_and_a_closed_output_are_errors_without_a_traceback() -> None:
    with service(answering(RUN)) as url:
        cli = Cli(url)
        for redirection in (">/dev/full", ">&-"):
            done = subprocess.run(
                ["bash", "-c", f'"$@" {redirection}', "bash", *cli.argv("runs", "--json")],
                env=cli.env,
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=60 * PATIENCE,
            )
            assert done.returncode == Exit.FAILED, (redirection, done.stderr)
            assert "standard output" in done.stderr
            assert "Traceback" not in done.stderr


# --- States and logs --------------------------------------------------------------------------------------------------


def ago(**span: float) -> str:
    return (datetime.now(UTC) - timedelta(**span)).isoformat()


def test_a_run_that_its_machine_has_not_confirmed_for_an_hour_is_no_plain_active() -> None:
    unreachable = {"reachable": False, "unreachable_detail": "No route to host."}
    for run, code, word in (
        ({"confirmed_at": ago(minutes=1)}, Exit.ACTIVE, "ACTIVE"),
        ({"confirmed_at": ago(minutes=50), **unreachable}, Exit.ACTIVE, "ACTIVE"),
        ({"confirmed_at": ago(minutes=70), **unreachable}, Exit.UNCONFIRMED, "UNCONFIRMED"),
        ({"created": ago(days=2), **unreachable}, Exit.UNCONFIRMED, "UNCONFIRMED"),
        ({"confirmed_at": ago(hours=3), "status": "COMPLETED"}, Exit.OK, "COMPLETED"),
    ):
        with service(answering({**RUN, **run})) as url:
            cli = Cli(url)
            assert cli("status", "7", expect=code) == f"{word}\n"
            if code == Exit.UNCONFIRMED:
                assert "not confirmed it for" in cli.told
                assert "No route to host." in cli.told
                assert "UNCONFIRMED" in cli("history", "a001")


def test_wait_ends_at_its_timeout_while_the_run_continues() -> None:
    with service(answering({**RUN, "confirmed_at": ago(seconds=1)})) as url:
        cli = Cli(url)
        assert cli("wait", "7", "--timeout", "0.5", expect=Exit.TIMED_OUT) == "ACTIVE\n"
        assert "has not ended within 0.5 s. It continues." in cli.told
    with service(answering({**RUN, "status": "COMPLETED"})) as url:
        assert Cli(url)("wait", "7", "--timeout", "0") == "COMPLETED\n"


def test_the_last_lines_of_logs_of_every_shape() -> None:
    ended = {**RUN, "status": "COMPLETED"}
    numbered = b"".join(b"line %d\n" % number for number in range(5000))
    for log, lines, expected in (
        (numbered, "2", "line 4998\nline 4999\n"),
        (b"a\nb", "1", "b"),
        (b"a\nb", "5", "a\nb"),
        (b"a\n\n", "1", "\n"),
        (b"", "3", ""),
        (b"x" * 2_000_000, "1", "x" * 65_536),  # one endless line: its beginning
        (b"first\n" + b"x" * 1_500_000 + b"\nlast\n", "3", "first\n" + "x" * 65_536 + "\nlast\n"),
    ):
        with service(answering(ended, log)) as url:
            assert Cli(url)("log", "7", "--lines", lines) == expected


def test_grep_uses_the_search_of_the_machine_or_reads_the_log() -> None:
    for search in (True, False):
        with service(answering({**RUN, "status": "COMPLETED"}, HOSTILE, search=search)) as url:
            cli = Cli(url)
            assert cli("log", "7", "--grep", "CRITICAL") == "2:CRITICAL two\n"
            found = json.loads(cli("log", "7", "--grep", "CRITICAL", "--json"))
            assert found == {"matches": [{"line": 2, "text": "CRITICAL two"}]}
            if not search:
                cli("log", "7", "--grep", "critical", expect=Exit.FAILED)
                assert "2:CRITICAL two" in cli("log", "7", "--grep", "critical", "--ignore-case")
            cli("log", "7", "--grep", "", expect=Exit.USAGE)
            cli("log", "7", "--grep", "x", "--lines", "2", expect=Exit.USAGE)


def test_a_log_as_json() -> None:
    with service(answering({**RUN, "status": "COMPLETED"}, b"a\nb\n")) as url:
        cli = Cli(url)
        assert json.loads(cli("log", "7", "--json")) == {"text": "a\nb\n", "size": 4, "ended": True}
        assert json.loads(cli("log", "7", "--lines", "1", "--json"))["text"] == "b\n"
        cli("log", "7", "--follow", "--json", expect=Exit.USAGE)


# --- Changes after a preview ------------------------------------------------------------------------------------------


def test_set_status_on_a_terminal_shows_the_preview_and_asks() -> None:
    sent: list[Any] = []

    def answer(path: str, query: dict[str, str], body: Any) -> Any:
        sent.append(body)
        counts = {"selected": 30, "changed": 30, "unchanged": 0}
        changed = {f"a001_{number}": "READY" for number in range(30)}
        return {"message": "Done.", "warnings": [], "changed": changed, "counts": counts, "while_running": None}

    line = ("set-status", "--profile", "P", "a001", "READY", "--filter-status", "FAILED")
    with service(answer) as url:
        cli = Cli(url)
        code, shown = on_terminal(cli, *line, typed="n\n")
        assert (code, len(sent), sent[0]["preview"]) == (Exit.FAILED, 1, True)
        assert "a001_19 -> READY" in shown
        assert "... and 10 more" in shown
        assert "Change 30 jobs of a001? [y/N]" in shown
        sent.clear()
        code, _ = on_terminal(cli, *line, typed="y\n")
        assert (code, [each.get("preview") for each in sent]) == (Exit.OK, [True, None])
        sent.clear()
        assert on_terminal(cli, *line, "--yes")[0] == Exit.OK
        cli(*line)  # no terminal, no question
        assert [each.get("preview") for each in sent] == [None, None]
        assert "a001_0 READY" in cli(*line, "--preview")
        assert sent[-1]["preview"] is True


# --- Words ------------------------------------------------------------------------------------------------------------


def words_of(line: str, **body: Any) -> str:
    top, _ = parser(bundled())
    found: argparse.ArgumentParser = top.parse_args(line.split()).parser
    problem = Problem(Exit.USAGE, body.get("detail", ""), {"code": "invalid_request", **body})
    return message(problem, found, "")


def test_errors_name_options_and_not_members_of_the_request() -> None:
    run = "run --profile P a001"
    errors = {"command_params.start_time": ["It has passed."], "profile_params.SSH.USER": ["Not allowed."]}
    assert words_of(run, errors=errors) == "--start-time: It has passed.\n-p SSH.USER: Not allowed."
    assert words_of(run, errors={"expid": ["Wrong."], "profile_name": ["No."]}) == "EXPID: Wrong.\n--profile: No."
    assert words_of(run, errors={"restart.on": ["x"]}) == "--restart-on: x"
    status = "set-status --profile P a001 READY a001_SIM"
    assert words_of(status, errors={"command_params.job_names_list.0": ["x"]}) == "JOB: x"
    assert words_of("runs", errors={"created_after": ["x"]}) == "--created-after: x"
    assert words_of("stop a001", detail="Send `cancel_jobs: true` to cancel.") == "Use --cancel-jobs to cancel."
    text = "Profile 'X' does not exist. GET configuration/profiles lists them."
    assert words_of(run, detail=text) == "Profile 'X' does not exist. `asr profiles` lists them."
    assert "asr login" in words_of(run, detail="Send the header 'Authorization: Bearer TOKEN'.")
    assert words_of(run, detail="/home/a_b/start_time is a file_name.").startswith("/home/a_b/start_time")


def test_an_error_as_json_has_the_exit_code() -> None:
    with service(lambda *_: (404, {"code": "run_not_found", "status": 404, "detail": "Never run."})) as url:
        found = json.loads(Cli(url)("status", "a001", "--json", expect=Exit.NOT_THERE))
        assert (found["code"], found["exit_code"]) == ("run_not_found", Exit.NOT_THERE)
    cli = Cli("http://127.0.0.1:1")
    found = json.loads(cli("--patience", "0", "runs", "--json", expect=Exit.UNREACHABLE))
    assert (found["code"], found["error"]) == ("unreachable", True)


def test_a_mistyped_command_or_option_is_named_with_a_remedy() -> None:
    cli = Cli("http://127.0.0.1:1")
    cli("--patience", "0", "--url", "", "statsu", "a001", expect=Exit.USAGE)
    assert "Did you mean 'status'?" in cli.told
    cli("run", "--profil", "P", "a001", expect=Exit.USAGE)
    assert "--help" in cli.told
    cli("runs", "--limit", "0", expect=Exit.USAGE)
    assert "is not a whole number of at least 1" in cli.told
