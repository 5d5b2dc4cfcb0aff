"""`log` and `job-log`: the log of a run or of a job, its last lines, its lines with a text, and its growth."""

from __future__ import annotations

import argparse
import base64
import urllib.parse
from typing import Any, Iterator

from runners.cli.commands import code_of, find
from runners.cli.errors import Exit, Problem
from runners.cli.log_reading import follow, last_lines, lines_of, parts
from runners.cli.service import Service
from runners.cli.terminal import Printer, harmless, put, put_json, say

MATCHES_AT_ONCE = 100  # in one response of the search
LARGEST_JSON = 16_777_216  # bytes of a log that --json prints


def log(service: Service, args: argparse.Namespace) -> Exit:
    """Print the log of a run."""
    number = find(service, args)["runner_id"]
    code = show(service, args, f"runs/{number}/log", {})
    if args.follow and code == Exit.OK:
        return code_of(service.get(f"runs/{number}"))
    return code


def job_log(service: Service, args: argparse.Namespace) -> Exit:
    """Print the log of a job: its standard error, or its standard output."""
    number = find(service, args)["runner_id"]
    path = f"runs/{number}/jobs/{urllib.parse.quote(args.job, safe='')}/log"
    return show(service, args, path, {"stream": args.stream, "attempt": args.attempt})


def show(service: Service, args: argparse.Namespace, path: str, query: dict[str, Any]) -> Exit:
    """Print the part of a log that the options ask for. With --grep the exit code is 1 if no line matches."""
    if args.json and args.follow:
        raise Problem(Exit.USAGE, "--json prints one value, so it cannot --follow.")
    if args.grep is not None:
        return grep(service, args, path, query)
    if args.json:
        return show_json(service, args, path, query)
    offset = 0
    printer = Printer()
    try:
        if args.lines is not None:
            data, offset = last_lines(service, path, query, args.lines)
            printer.write(data)
        elif args.tail is not None:
            chunk = service.get(path, tail=args.tail, encoding="base64", **query)
            printer.write(base64.b64decode(chunk["data"]))
            offset = chunk["next_offset"]
        if args.follow or (args.lines is None and args.tail is None):
            follow(service, path, offset, printer, live=args.follow, **query)
    finally:
        printer.close()
    return Exit.OK


def show_json(service: Service, args: argparse.Namespace, path: str, query: dict[str, Any]) -> Exit:
    """Print `{"text": ..., "size": bytes of the log, "ended": ...}`."""
    if args.lines is not None:
        data, _ = last_lines(service, path, query, args.lines)
    elif args.tail is not None:
        data = base64.b64decode(service.get(path, tail=args.tail, encoding="base64", **query)["data"])
    else:
        data = b""
        for part, _ in parts(service, path, 0, live=False, **query):
            data += part
            if len(data) > LARGEST_JSON:
                raise Problem(Exit.USAGE, f"The log is longer than {LARGEST_JSON} bytes. Use --lines, or no --json.")
    end = service.get(path, tail=16, encoding="base64", **query)
    put_json({"text": data.decode("utf-8", "replace"), "size": end["size"], "ended": end["ended"]})
    return Exit.OK


def grep(service: Service, args: argparse.Namespace, path: str, query: dict[str, Any]) -> Exit:
    """Print the lines that contain a text, with their numbers. Return FAILED if there is none."""
    if args.lines is not None or args.tail is not None:
        raise Problem(Exit.USAGE, "--grep searches the whole log, so it takes no --lines and no --tail.")
    if not args.grep or "\n" in args.grep:
        raise Problem(Exit.USAGE, "--grep needs a text of one line.")
    found = None if args.follow or query else searched_there(service, args, path)
    if found is None:
        found = searched_here(service, args, path, query)
    printed: list[dict[str, Any]] = []
    is_found = False
    for match in found:
        is_found = True
        if args.json:
            printed.append(match)
        else:
            put(f"{'?' if match['line'] is None else match['line']}:{match['text']}")
    if args.json:
        put_json({"matches": printed})
    elif not is_found:
        say("No line has this text.")
    return Exit.OK if is_found else Exit.FAILED


def searched_there(service: Service, args: argparse.Namespace, path: str) -> Iterator[dict[str, Any]] | None:
    """Return the matches that the machine finds, so that the log is not sent; None if the service cannot do it."""
    query = {"text": args.grep, "ignore_case": "true" if args.ignore_case else None, "limit": MATCHES_AT_ONCE}
    try:
        first = service.get(f"{path}/search", **query)
    except Problem as problem:
        # An older service has no search, and answers without a code of ours about the run or the log.
        if problem.body is None or problem.body["code"] == "not_found":
            return None
        raise
    return pages_of(service, path, query, first)


def pages_of(service: Service, path: str, query: dict[str, Any], answer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    before: Any = None
    while True:
        for match in answer["matches"]:
            if match["line"] is not None and match["line"] == before:  # a second match of the same line
                continue
            before = match["line"]
            yield {"line": match["line"], "text": match["before"] + match["match"] + match["after"]}
        resume = answer["resume"]
        if resume is None:
            return
        answer = service.get(f"{path}/search", **query, offset=resume)
        if answer["resume"] is not None and answer["resume"] <= resume:
            raise Problem(Exit.UNREACHABLE, "The search on the machine does not advance. Try again.")


def searched_here(
    service: Service, args: argparse.Namespace, path: str, query: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yield the lines with the text, of a log that is read completely."""
    wanted = args.grep.lower() if args.ignore_case else args.grep
    for number, line, _ in lines_of(service, path, query, 0, live=args.follow):
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        if wanted in (text.lower() if args.ignore_case else text):
            yield {"line": number, "text": harmless(text)}
