"""`jobs`: the jobs of an experiment."""

from __future__ import annotations

import argparse
import urllib.parse
from typing import Any

from runners.cli.commands import find, scope, table, text
from runners.cli.errors import Exit
from runners.cli.service import Service
from runners.cli.terminal import put, put_json, say

FILTERS = ("status", "section", "member", "date", "chunk", "split", "platform", "name", "ordering")
COLUMNS = ("name", "status", "platform", "remote_id", "submitted", "finished")
MOST_ON_A_PAGE = 500


def jobs(service: Service, args: argparse.Namespace) -> Exit:
    """Print the jobs of a run, or of an experiment that this service may never have run (with a profile)."""
    path, query = place(service, args)
    query.update({name: getattr(args, name) for name in FILTERS})
    size = 1 if args.counts else min(args.limit, MOST_ON_A_PAGE)
    found: list[dict[str, Any]] = []
    answer: dict[str, Any] = {"next_cursor": None}
    while not found or (answer["next_cursor"] and len(found) < args.limit and not args.counts):
        answer = service.get(path, **query, page_size=size, cursor=answer["next_cursor"])
        found += answer["results"]
        if not answer["results"]:
            break
    found = found[: args.limit]
    if args.json:
        members = {"results": [] if args.counts else found, "next_cursor": None, "next": None}
        put_json({**answer, **members})
        return Exit.OK
    counts = ", ".join(f"{number} {status}" for status, number in answer["counts"].items())
    if args.counts:
        put(f"{answer['total']} jobs: {counts or 'none'}")
        return Exit.OK
    say(f"{answer['total']} jobs: {counts or 'none'}. {answer['matching']} match.")
    rows = [[*(text(row[name]) for name in COLUMNS), str(len(row["attempts"]))] for row in found]
    table([[*COLUMNS, "attempts"], *rows])
    return Exit.OK


def place(service: Service, args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Return the path of the jobs, and the query that it needs."""
    if args.profile and not args.param and not args.what.isdecimal():
        profile = scope(args)["profile_name"]
        return f"experiments/{urllib.parse.quote(args.what, safe='')}/jobs", {"profile_name": profile}
    return f"runs/{find(service, args)['runner_id']}/jobs", {}
