"""`asr`: a client for the command line and for shell scripts. See docs/cli.md.

It needs only Python, so it also works as one file (`make zipapp`) or as a copied folder (`python3 -m runners.cli`).
"""

from __future__ import annotations

import argparse
import difflib
import os
import signal
import sys
import traceback
from typing import Any

from runners.cli import credentials, settings
from runners.cli.catalog import bundled, of_service
from runners.cli.completion import complete, script
from runners.cli.errors import UNKNOWN_FORM, Exit, Problem
from runners.cli.login import checked_token, show_settings
from runners.cli.parser import connection_options, parser
from runners.cli.service import Service
from runners.cli.terminal import prepare, put_json, say
from runners.cli.words import message

OFFLINE = (script, show_settings)  # functions of subcommands that need no service
COMPLETE = "__complete"  # what the completion scripts call


def program_name() -> str:
    """Return how the program was called: the name of the installed script or file, or `python3 -m runners.cli`."""
    script = os.path.basename(sys.argv[0])
    return "python3 -m runners.cli" if script == "__main__.py" or not script else script


class Client:
    """What the parts of one call share: the settings, and the service with its token."""

    def __init__(self) -> None:
        self.service: Service | None = None
        self.settings: settings.Settings | None = None
        self.stored: dict[str, Any] = {"last": "", "tokens": {}}
        self.token_source = ""
        self.parser: argparse.ArgumentParser | None = None  # that of the subcommand

    def load(self) -> settings.Settings:
        """Read the files, once. Raises Problem."""
        if self.settings is None:
            # A token of the environment needs no file, so a damaged file does not matter then.
            has_all = os.environ.get(settings.variable("token")) and os.environ.get(settings.variable("url"))
            self.stored = self.stored if has_all else credentials.load()
            self.settings = settings.Settings(self.stored["last"])
        return self.settings

    def connect(self, args: argparse.Namespace) -> Service:
        """Return the service of the command line. Raises Problem if its address is missing or invalid."""
        found = self.load()
        url = found.get("url", args.url)
        if not url:
            raise Problem(Exit.USAGE, settings.MISSING_URL)
        url = settings.checked_url(url, found.source("url", args.url))
        self.service = Service(
            url,
            self.token_for(url),
            timeout=found.number("request_timeout", args.request_timeout),
            patience=found.number("patience", args.patience),
            key=getattr(args, "idempotency_key", None),
        )
        return self.service

    def token_for(self, url: str) -> str:
        """Return the token of the environment, else the stored one of exactly this service, else ""."""
        variable = settings.variable("token")
        if os.environ.get(variable):
            self.token_source = variable
            return checked_token(os.environ[variable].strip(), variable)
        entry = self.stored["tokens"].get(url)
        if entry is None:
            return ""
        self.token_source = credentials.path()
        return checked_token(str(entry["token"]), self.token_source)


def parse(words: list[str], client: Client) -> argparse.Namespace:
    """Parse the command line. If a subcommand is not known here, the service may have it: ask what it takes.

    Raises Problem if the command line is wrong, or if the service does not answer.
    """
    top, names = parser(bundled(), program_name())
    options, rest = connection_options(is_top=True).parse_known_args(words)
    wanted = next((word for word in rest if not word.startswith("-")), "")
    if wanted and wanted not in names and client.load().get("url", options.url):
        service = client.connect(options)
        try:
            top, names = parser(of_service(service), program_name())
        except (KeyError, TypeError, ValueError, argparse.ArgumentError):
            raise Problem(
                Exit.UNREACHABLE, f"{service.url} describes its commands in a form that this program does not know."
            ) from None
    if wanted and wanted not in names and rest[0] == wanted:
        near = difflib.get_close_matches(wanted, sorted(names), n=1)
        remedy = f"Did you mean '{near[0]}'?" if near else f"`{program_name()} --help` lists the commands."
        raise Problem(Exit.USAGE, f"Unknown command '{wanted}'. {remedy}")
    return top.parse_args(words)


def complete_words(words: list[str]) -> int:
    """Complete the last word. A service is asked with a short deadline, and errors are silent."""

    def service_of(given: dict[str, str]) -> Service | None:
        client = Client()
        try:
            service = client.connect(argparse.Namespace(url=given.get("url"), request_timeout="2", patience="0"))
            if "profile" not in given:
                given["profile"] = client.load().get("profile")
        except Problem:
            return None
        service.is_quiet = True
        return service

    top, _ = parser(bundled())
    return complete(words, top, service_of)


def run(words: list[str], client: Client) -> Exit:
    """Execute the command line. Raises Problem."""
    if any("\ud800" <= letter <= "\udfff" for word in words for letter in word):
        raise Problem(Exit.USAGE, "An argument has bytes that are no text in the locale of this shell. Use UTF-8.")
    args = parse(words, client)
    found = client.load()
    args.settings = found
    client.parser = getattr(args, "parser", None)
    if getattr(args, "needs_profile", False) and not args.profile:
        args.profile = found.get("profile") or None
    if hasattr(args, "interval"):
        args.interval = found.number("interval", args.interval)
    code: Exit
    if args.function in OFFLINE:
        code = args.function(None, args)
        return code
    service = client.connect(args)
    try:
        code = args.function(service, args)
    except UNKNOWN_FORM as error:
        detail = f"{service.url} answers in a form that this program does not know"
        raise Problem(service.code_of_failure, f"{detail} ({type(error).__name__}: {str(error)[:200]}).") from error
    return code


def main(argv: list[str] | None = None) -> int:
    """Run the client and return its exit code."""
    words = sys.argv[1:] if argv is None else argv
    client = Client()
    if sys.stdout is None:  # closed by the caller
        say("error: standard output is closed.")
        return int(Exit.FAILED)
    try:
        prepare()
        if words[:1] == [COMPLETE]:
            return complete_words(words[1:])
        code = int(run(words, client))
        sys.stdout.flush()
        return code
    except Problem as problem:
        return report(problem, words, client)
    except KeyboardInterrupt:
        say("Interrupted. A started command continues.")
        tell_key(client.service)
        return int(Exit.INTERRUPTED)
    except BrokenPipeError:  # the reader has closed the pipe, as in `asr log | head`
        discard_output()
        return 128 + signal.SIGPIPE
    except OSError as error:  # of standard output: a full disk
        say(f"error: standard output: {error.strerror or error}.")
        discard_output()
        return int(Exit.FAILED)


def discard_output() -> None:
    """Let what is still buffered go nowhere, so that the end of the interpreter reports no second error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def report(problem: Problem, words: list[str], client: Client) -> int:
    """Print an error, for people and with --json also as JSON. Return its exit code."""
    say(f"error: {message(problem, client.parser, client.token_source)}")
    if problem.__cause__ and sys.flags.dev_mode:  # PYTHONDEVMODE=1: the cause may be a bug of this program
        traceback.print_exception(type(problem.__cause__), problem.__cause__, problem.__cause__.__traceback__)
    if problem.code == Exit.UNKNOWN:
        tell_key(client.service)
    if "--json" in words:
        own = {"code": problem.code.name.lower(), "detail": str(problem), "error": True}
        put_json({**own, **(problem.body or {}), "exit_code": int(problem.code)})
    return int(problem.code)


def tell_key(service: Service | None) -> None:
    if service and service.was_sent:
        say(f"Retry the same command with --idempotency-key {service.key} to get its result.")


if __name__ == "__main__":
    sys.exit(main())
