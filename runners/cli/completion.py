"""Completion for bash, zsh and fish.

The script of each shell is static: it calls `asr __complete WORD...` with the words of the command line, the last of
which is completed. The answer has one candidate per line: the word, and a description behind a tab. The line `FILES`
alone asks the shell for names of files.
"""

from __future__ import annotations

import argparse
import pkgutil
import signal
import sys
from typing import Any, Tuple

from runners.cli.errors import UNKNOWN_FORM, Exit, Problem
from runners.cli.service import Service
from runners.cli.terminal import harmless, put_json

SHELLS = ("bash", "zsh", "fish")
FILES = "\tFILES"
SECONDS = 2.0  # after which nothing is completed
MOST = 200  # candidates from the service
SETUP = {
    "bash": "completion bash > ~/.local/share/bash-completion/completions/asr",
    "zsh": "completion zsh > ~/.zfunc/_asr    # with: fpath+=~/.zfunc; autoload -Uz compinit; compinit",
    "fish": "completion fish > ~/.config/fish/completions/asr.fish",
}
Candidate = Tuple[str, str]


def script(service: Service, args: argparse.Namespace) -> Exit:
    """Print the completion script of a shell."""
    text = (pkgutil.get_data("runners.cli", f"completion.{args.shell}") or b"").decode()
    if args.json:
        put_json({"shell": args.shell, "script": text})
    else:
        sys.stdout.write(text)
    return Exit.OK


def complete(words: list[str], top: argparse.ArgumentParser, service_of: Any) -> int:
    """Print the candidates for the last word. Nothing is printed if the service does not answer in time.

    `service_of`: a function from the options of the command line to a Service, or None.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    current = words[-1] if words else ""
    found = candidates(words[:-1], current, top, service_of)
    for word, text in found:
        # What a service sends must not become a second line or a control character of the shell.
        line = harmless(word).replace("\n", " ").replace("\t", " ")
        if word == FILES:
            sys.stdout.write(FILES + "\n")
        elif line == word and word.startswith(current):
            sys.stdout.write(f"{word}\t{harmless(text).splitlines()[0][:100] if text else ''}\n")
    sys.stdout.flush()
    return 0


def candidates(before: list[str], current: str, top: argparse.ArgumentParser, service_of: Any) -> list[Candidate]:
    """Return what may stand in the place of `current`. It need not begin with it."""
    parser = top
    given: dict[str, str] = {}
    position = 0
    pending: argparse.Action | None = None
    for word in before:
        if pending is not None:
            given[pending.dest] = word
            pending = None
            continue
        option = parser._option_string_actions.get(word.split("=", 1)[0]) if word.startswith("-") else None
        if option is not None:
            if "=" in word:
                given[option.dest] = word.split("=", 1)[1]
            elif option.nargs != 0:
                pending = option
            continue
        if word.startswith("-"):
            continue
        action = positional(parser, position)
        if isinstance(action, argparse._SubParsersAction):
            if word not in action.choices:
                return []
            parser = action.choices[word]
            position = 0
        elif action is not None:
            given[action.dest] = word
            position += 0 if action.nargs in ("*", "+") else 1
    if pending is not None:
        return values_of(pending, given, service_of)
    if current.startswith("-"):
        return [
            (max(each.option_strings, key=len), each.help or "")
            for each in parser._actions
            if each.option_strings and each.help != argparse.SUPPRESS
        ]
    action = positional(parser, position)
    return values_of(action, given, service_of) if action is not None else []


def positional(parser: argparse.ArgumentParser, position: int) -> argparse.Action | None:
    """Return what the parser takes as its argument at a position, from 0."""
    found = [each for each in parser._actions if not each.option_strings]
    return found[position] if position < len(found) else None


def values_of(action: argparse.Action, given: dict[str, str], service_of: Any) -> list[Candidate]:
    """Return the values that an argument may have. The service is asked for what only it knows."""
    if isinstance(action, argparse._SubParsersAction):
        # Not the other names of a subcommand: the name of its parser ends with the first one.
        own = [(name, each) for name, each in action.choices.items() if each.prog.split()[-1] == name]
        return [(name, each.description or "") for name, each in own]
    known = getattr(action, "candidates", [])  # of a parameter of a command
    if known:
        return [(each, "") for each in known]
    if action.choices:
        return [(str(each), "") for each in action.choices]
    kind = action.dest.split(":")[-1]
    if kind == "file":
        return [(FILES, "")]
    if kind not in ("profile", "profile_name", "expid", "what", "start_after", "name", "path", "job"):
        return []
    service = service_of(given)
    if service is None:
        return []
    try:
        return from_service(kind, given, service)
    except (Problem, *UNKNOWN_FORM):
        return []


def from_service(kind: str, given: dict[str, str], service: Service) -> list[Candidate]:
    """Ask the service for names. Raises Problem, and KeyError or TypeError for an unexpected answer."""
    if kind in ("profile", "profile_name") or (kind == "name" and "expid" not in given):
        return [
            (name, str(each.get("RUNNER_TYPE", ""))) for name, each in service.get("configuration/profiles").items()
        ]
    if kind in ("expid", "what", "start_after"):
        found: dict[str, str] = {}
        for run in service.get("runs", page_size=MOST)["results"]:
            found.setdefault(run["expid"], f"run {run['runner_id']}: {run['status']}")
        return list(found.items())
    if kind == "job":
        expid = given.get("what", "")
        number = (
            int(expid)
            if expid.isdecimal()
            else service.get("runs", expid=expid, page_size=1)["results"][0]["runner_id"]
        )
        return [(job["name"], job["status"]) for job in service.get(f"runs/{number}/jobs", page_size=MOST)["results"]]
    if kind == "path" and given.get("profile"):
        found_files = service.get(f"experiments/{given['expid']}/config", profile_name=given["profile"])["files"]
        return [(each["path"], "") for each in found_files]
    return []
