"""The reference of the command line, docs/cli-reference.md, is made of the parser; and what --help has to say."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator

import pytest

from runners.cli.catalog import bundled
from runners.cli.parser import GROUPS, parser
from tests.support.paths import ROOT

DOCUMENT = ROOT / "docs/cli-reference.md"
HEAD = """# Commands and options

`make cli-docs` writes this page: it has what `asr COMMAND --help` prints. [The command line](cli.md) explains how to
install, log in and use it. Every command also takes `--help`, and the options of the [connection](cli.md#settings):
`--url`, `--request-timeout` and `--patience`.
"""
EVERYWHERE = {"--help", "--url", "--request-timeout", "--patience"}


def parsers(top: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield the name and the parser of each subcommand and action, each once."""
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            seen: list[argparse.ArgumentParser] = []
            for name, found in action.choices.items():
                if found in seen:  # another name of it
                    continue
                seen.append(found)
                yield name, found
                yield from ((f"{name} {inner}", each) for inner, each in parsers(found))


def options(found: argparse.ArgumentParser) -> list[argparse.Action]:
    return [each for each in found._actions if not isinstance(each, argparse._SubParsersAction)]


def name_of(action: argparse.Action) -> str:
    """Return an argument as the table shows it: `--lines N`, or `EXPID`."""
    if not action.option_strings:
        return f"`{action.metavar or action.dest}`"
    value = ""
    if action.nargs != 0:
        value = " " + str(action.metavar or ("|".join(map(str, action.choices or ())) or action.dest.upper()))
    return ", ".join(f"`{each}{value}`" for each in action.option_strings)


def section(name: str, found: argparse.ArgumentParser) -> str:
    lines = [f"### {name}", "", str(found.description)]
    rows = [each for each in options(found) if not EVERYWHERE & {*each.option_strings}]
    if rows:
        lines += ["", "| argument | meaning |", "|---|---|"]
    for each in rows:
        needed = " Needed." if each.option_strings and each.required else ""
        text = str(each.help).replace("%%", "%").replace("%(default)s", str(each.default)).replace("|", "\\|")
        lines.append(f"| {name_of(each).replace('|', chr(92) + '|')} | {text}{needed} |")
    examples = str(found.epilog or "").splitlines()[1:]
    if examples:
        lines += ["", "```text", *(line.strip() for line in examples), "```"]
    return "\n".join(lines) + "\n"


def document() -> str:
    top, _ = parser(bundled())
    return HEAD + "\n" + "\n".join(section(name, found) for name, found in parsers(top))


def test_the_reference_is_what_help_prints() -> None:
    """If this fails, run `make cli-docs`, which writes the page."""
    if os.environ.get("CLI_DOCS_WRITE"):
        DOCUMENT.write_text(document())
    assert DOCUMENT.read_text() == document()


def test_every_argument_has_a_help_and_every_command_an_example() -> None:
    top, _ = parser(bundled())
    for name, found in parsers(top):
        assert found.description, name
        for each in options(found):
            assert each.help and each.help != argparse.SUPPRESS, f"{name}: {name_of(each)}"
        if " " not in name and name not in ("settings", "commands", "config"):
            lacks = name in ("describe", "refresh", "inspect", "archive", "unarchive")
            assert lacks or "examples:" in str(found.epilog), name


def test_every_command_takes_json(capsys: pytest.CaptureFixture[str]) -> None:
    top, _ = parser(bundled())
    for name, found in parsers(top):
        if name != "config":
            assert "--json" in found._option_string_actions, name


def test_every_example_is_a_valid_command_line() -> None:
    top, _ = parser(bundled())
    for name, found in parsers(top):
        for line in str(found.epilog or "").splitlines()[1:]:
            words = line.split("#")[0].split(" > ")[0].split(" < ")[0].replace('"', "").split()[1:]
            if name not in ("create",):  # its description has several words
                assert top.parse_args(words), line


def test_the_list_of_commands_has_each_once_in_a_known_group() -> None:
    top, names = parser(bundled())
    words = str(top.description)
    assert all(f"{group}:" in words for group in GROUPS)
    for name, _ in parsers(top):
        if " " not in name:
            assert f"\n  {name} " in words, name
    assert {"recover-experiment", "set-job-status", "delete-experiment"} <= names  # the names of the service
