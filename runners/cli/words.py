"""Errors of the service in the words of the command line: names of options instead of members of the request."""

from __future__ import annotations

import argparse
import re
from typing import Any

from runners.cli.commands import PARAMETER
from runners.cli.errors import Problem

OPTIONS = {
    "profile_name": "--profile",
    "profile_params": "-p",
    "expid": "EXPID",
    "idempotency_key": "--idempotency-key",
    "restart.on": "--restart-on",
    "restart.attempts": "--restart-attempts",
    "cursor": "the page",
    "page_size": "--limit",
}
LOGIN = "Log in with `asr login`, or set AUTOSUBMIT_RUNNERS_TOKEN."
PHRASES = (
    (r"GET configuration/profiles lists them\.", "`asr profiles` lists them."),
    (r"as GET experiments/(\w+)/jobs lists them", r"as `asr jobs \1` lists them"),
    (r"GET experiments/\S+/scripts", "`asr scripts`"),
    (r"Send the header 'Authorization: Bearer TOKEN'\.", LOGIN),
    (r"in command_params of ", "of "),
    (r"\bIdempotency-Key\b", "--idempotency-key"),
    (r"\bcommand_params\.", ""),
    (r"\bprofile_params\.", "-p "),
    (r"\brecover-experiment\b", "`asr recover`"),
    (r"\bset-job-status\b", "`asr set-status`"),
)


def options_of(parser: argparse.ArgumentParser | None) -> dict[str, str]:
    """Return how the command line names each member of a request: an option, or a positional argument."""
    found = dict(OPTIONS)
    for action in parser._actions if parser else ():
        name = action.dest[len(PARAMETER) :] if action.dest.startswith(PARAMETER) else action.dest
        if action.option_strings:
            found.setdefault(name, max(action.option_strings, key=len))
        elif action.metavar:
            found.setdefault(name, str(action.metavar))
    return found


def message(problem: Problem, parser: argparse.ArgumentParser | None, token_source: str) -> str:
    """Return the text of an error for people."""
    body: dict[str, Any] = problem.body or {}
    options = options_of(parser)
    errors = body.get("errors")
    if isinstance(errors, dict) and errors:
        lines = [f"{named(str(path), options)}: {joined(texts)}" for path, texts in errors.items()]
        return "\n".join(translated(line, options) for line in lines)
    text = translated(str(problem), options)
    if body.get("code") == "invalid_credentials" and token_source:
        text += f" The token is from {token_source}. {LOGIN}"
    return text


def joined(texts: Any) -> str:
    return " ".join(map(str, texts)) if isinstance(texts, list) else str(texts)


def named(path: str, options: dict[str, str]) -> str:
    """Return how the command line names a member of the request, such as command_params.job_names_list.0."""
    if path.startswith("profile_params."):
        return f"-p {path.split('.', 1)[1]}"
    path = path[len("command_params.") :] if path.startswith("command_params.") else path
    if path in options:
        return options[path]
    return options.get(path.split(".", 1)[0], path)


def translated(text: str, options: dict[str, str]) -> str:
    for pattern, words in PHRASES:
        text = re.sub(pattern, words, text)

    def option(found: re.Match[str]) -> str:
        return options.get(found[1], found[0])

    # `Send force: true`, and names of members, which have an underscore. Other words may be ordinary English.
    text = re.sub(
        r"\bSend `(\w+): true`", lambda found: f"Use {options.get(found[1], '--' + found[1].replace('_', '-'))}", text
    )
    return re.sub(r"(?<![\w./-])`?([a-z]+(?:_[a-z]+)+)`?(?:: true|=true)?(?![\w./-]*\w)", option, text)
