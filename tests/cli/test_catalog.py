"""The subcommands that the client makes of a description of the commands: the bundled one, and that of a service."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.test import Client

from profiles.extensions import own_entries
from runners.cli.__main__ import main
from runners.cli.catalog import BY_HAND, MEMBERS, PARAMETER_MEMBERS, POSITIONAL, TAKEN, bundled, name_of
from runners.cli.errors import Exit
from runners.cli.parser import parser
from runners.commands.registry import COMMANDS
from tests.support.cli import StrangerHandler, serving
from tests.support.paths import ROOT

Parameter = dict[str, Any]
Received = list[tuple[str, Any]]  # path and body


def parameter(name: str, kind: str, **more: bool) -> Parameter:
    return {"name": name, "kind": kind, "required": False, "in_body": False, "help": "100 % of it", **more}


ARCHIVE: dict[str, Any] = {
    "name": "archive-it",
    "summary": "Pack an experiment",
    "needs_expid": True,
    "is_long": False,
    "parameters": [
        parameter("level", "words"),
        parameter("clean", "flag"),
        parameter("profile", "text", in_body=True),
        parameter("tags", "texts", required=True),
    ],
}
ANSWER = {"message": "Done.", "warnings": ["It is large."]}


@contextmanager
def service(commands: Any) -> Iterator[tuple[str, Received]]:
    """Run a server that describes `commands` and accepts each command. Yield its URL and the requests it received."""
    received: Received = []

    class Handler(StrangerHandler):
        def do_GET(self) -> None:
            self.reply(json.dumps({"commands": commands}).encode())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            received.append((self.path.removeprefix("/v4/runners/command/"), body))
            self.reply(json.dumps(ANSWER).encode())

    with serving(Handler) as url:
        yield url, received


def run(url: str, line: str) -> int:
    return main(["--url", url, "--patience", "0", *line.split()])


@pytest.mark.django_db
def test_the_bundled_commands_are_those_of_the_registry(client: Client, settings: Any) -> None:
    """If this fails, run `make cli-commands`, which writes the file."""
    settings.PROTECTION_LEVEL = "NONE"
    described = client.get("/v4/runners/commands").json()["commands"]
    own = {entry.name for entry in own_entries(COMMANDS.group)} - {*BY_HAND}
    excerpt = [
        {name: command[name] for name in MEMBERS}
        | {"parameters": [{name: each[name] for name in PARAMETER_MEMBERS} for each in command["parameters"]]}
        for command in described
        if command["name"] in own
    ]
    if os.environ.get("COMMANDS_WRITE"):
        (ROOT / "runners/cli/commands.json").write_text(json.dumps(excerpt, indent=1) + "\n")
    assert bundled() == excerpt


def test_each_bundled_command_has_a_subcommand_with_all_its_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    top, names = parser(bundled())
    for command in bundled():
        assert name_of(command) in names
        with pytest.raises(SystemExit, match="0"):
            top.parse_args([name_of(command), "--help"])
        words = capsys.readouterr().out
        for each in command["parameters"]:
            assert each["name"] not in TAKEN
            positional = POSITIONAL.get(command["name"], {}).get(each["name"])
            assert (positional or f"--{each['name'].replace('_', '-')}") in words


def test_a_command_of_the_site_is_sent_as_the_service_describes_it(capsys: pytest.CaptureFixture[str]) -> None:
    with service([*bundled(), ARCHIVE]) as (url, received):
        line = "archive-it --profile HERE a001 --clean --command-profile big"
        assert run(url, f"{line} --tags x y") == Exit.OK
        assert run(url, line) == Exit.USAGE  # tags are required
        assert run(url, "commands") == Exit.OK
    expected = {"profile_name": "HERE", "profile_params": {}, "expid": "a001", "profile": "big"}
    assert received == [("archive-it", {**expected, "command_params": {"clean": True, "tags": ["x", "y"]}})]
    printed = capsys.readouterr()
    assert "archive" in printed.out
    assert "Pack an experiment" in printed.out
    assert "warning: It is large.\nDone.\n" in printed.err


def test_a_command_that_the_service_does_not_have_is_a_wrong_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    with service([ARCHIVE]) as (url, _):
        assert run(url, "fly --profile HERE a001") == Exit.USAGE
    assert "Unknown command 'fly'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "commands", [None, {}, [1], ["archive"], [{"name": "archive"}], [{**ARCHIVE, "parameters": 3}]]
)
def test_a_description_that_is_not_understood_is_an_error(commands: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with service(commands) as (url, received):
        if commands == {}:  # no command at all
            assert run(url, "archive-it a001") == Exit.USAGE
        else:
            assert run(url, "archive-it a001") == Exit.UNREACHABLE
            assert "describes its commands in a form" in capsys.readouterr().err
    assert received == []
