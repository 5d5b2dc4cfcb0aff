"""One function for each command. Results go to standard output, progress to standard error. It returns an exit code."""

from __future__ import annotations

import argparse
import base64
import json
import shutil
import sys
import time
import urllib.parse
from typing import Any

from runners.cli.service import Exit, Problem, Service, exit_code_of, put, say

LOG_POLL = 1.0  # seconds between two polls of a live log
LOG_LIMIT = 262_144  # bytes of the log in one response
PARAMETER = "parameter:"  # prefix of the names of a command's own parameters in the parsed arguments
RUN_OPTIONS = ("start_time", "start_after", "run_only_members", "update_version")
COLUMNS = ("runner_id", "expid", "status", "reason", "exit_code", "profile_name", "host", "started_by", "created")


def run(service: Service, args: argparse.Namespace) -> Exit:
    options = {name: getattr(args, name) for name in RUN_OPTIONS if getattr(args, name)}
    body = {"expid": args.expid, **profile(args)} | ({"command_params": options} if options else {})
    if args.restart_on:
        restart: dict[str, Any] = {"on": args.restart_on.replace(",", " ").split()}
        if args.restart_attempts:
            restart["attempts"] = args.restart_attempts
        body["restart"] = restart
    elif args.restart_attempts:
        raise Problem(Exit.USAGE, "--restart-attempts also needs --restart-on.")
    return after_start(service, service.command("run-experiment", body), args)


def run_again(service: Service, args: argparse.Namespace) -> Exit:
    """Run the experiment of an ended run again, after an optional first step."""
    number = find(service, args)["runner_id"]
    body: dict[str, Any] = {"dry_run": True} if args.dry_run else {}
    if args.first:
        body["first"] = args.first
    if args.update_version:
        kept = service.get(f"runs/{number}")["command_params"]
        waited = ("start_time", "start_after")
        body["command_params"] = {**{name: kept[name] for name in kept if name not in waited}, "update_version": True}
    started = service.once(f"runs/{number}/run-again", body)
    for step in started.get("steps", []):
        say(f"{step['command']}: {step['message']}")
        for job, new in (step.get("changed") or step.get("recovered") or {}).items():
            say(f"{job} {new}")
    for warning in started.get("warnings", []):
        say(f"warning: {warning}")
    return after_start(service, started, args)


def after_start(service: Service, started: dict[str, Any], args: argparse.Namespace) -> Exit:
    """Print the plan of a run; or its start, and then its log and its end, if they were asked for."""
    if args.dry_run:
        return planned(started, args)
    say(started["message"])
    if args.follow:
        follow(service, f"runs/{started['runner_id']}/log", 0)
    if args.wait or args.follow:
        return watch(service, started["runner_id"], args)
    show_run(started, args)
    return Exit.OK


def stop(service: Service, args: argparse.Namespace) -> Exit:
    flags = {"force": args.force, "cancel_jobs": args.cancel_jobs, "dry_run": args.dry_run}
    body = {"expid": args.expid, **scope(args), **flags, **({"foreign": True} if args.foreign else {})}
    stopped = service.command("stop-experiment", body)
    if args.dry_run:
        return planned(stopped, args)
    for step in stopped["steps"]:
        say(f"{step['action']}: {step['outcome']} ({step['seconds']:g} s)")
    say(stopped["message"])
    if stopped["cancel"]["requested"]:
        say(stopped["cancel"]["detail"])
    for warning in stopped["warnings"]:
        say(f"warning: {warning}")
    if "runner_id" in stopped:
        show_run(stopped, args)
    elif args.json:  # a run that the service has not started has no state there
        put(json.dumps(stopped, indent=2))
    return {"unknown": Exit.UNKNOWN, "not_cancelled": Exit.FAILED}.get(stopped["cancel"]["outcome"], Exit.OK)


def status(service: Service, args: argparse.Namespace) -> Exit:
    """Print the state of the last run of an experiment, or of a run by its number."""
    found = find(service, args)
    if args.watch:
        return watch(service, found["runner_id"], args)
    show_run(found, args)
    return Exit.ACTIVE if found["status"] == "ACTIVE" else code_of(found)


def watch(service: Service, number: int, args: argparse.Namespace) -> Exit:
    """Print each change of a run's state until the run has ended."""
    before = ""
    while True:
        found = service.get(f"runs/{number}")
        words = sentence(found)
        if words != before:
            say(words)
            before = words
        if found["status"] != "ACTIVE":
            show_run(found, args)
            return code_of(found)
        time.sleep(args.interval)


def log(service: Service, args: argparse.Namespace) -> Exit:
    number = find(service, args)["runner_id"]
    path = f"runs/{number}/log"
    offset = 0
    if args.tail is not None:
        chunk = service.get(path, tail=args.tail, encoding="base64")
        write(chunk)
        offset = chunk["next_offset"]
        if not args.follow:
            return Exit.OK
    follow(service, path, offset, live=args.follow)
    return code_of(service.get(f"runs/{number}")) if args.follow else Exit.OK


def follow(service: Service, path: str, offset: int, *, live: bool = True, **query: Any) -> None:
    """Write a log from `offset` to its present end; with `live`, until the run has ended and its log is complete."""
    while True:
        chunk = service.get(path, offset=offset, limit=LOG_LIMIT, encoding="base64", **query)
        write(chunk)
        offset = chunk["next_offset"]
        if chunk["ended"] or (offset >= chunk["size"] and not live):
            return
        if offset >= chunk["size"]:
            time.sleep(LOG_POLL)


def write(chunk: dict[str, Any]) -> None:
    sys.stdout.buffer.write(base64.b64decode(chunk["data"]))
    sys.stdout.buffer.flush()


def scripts(service: Service, args: argparse.Namespace) -> Exit:
    """List the generated scripts of an experiment, or print one of them."""
    path = f"experiments/{urllib.parse.quote(args.expid, safe='')}/scripts"
    query: dict[str, Any] = {"profile_name": profile(args)["profile_name"]}
    if args.name:
        path += f"/{urllib.parse.quote(args.name, safe='')}"
        part = service.get(path, **query)
        sys.stdout.write(part["text"])
        while not part["ended"]:
            part = service.get(path, **query, offset=part["next_offset"])
            sys.stdout.write(part["text"])
        return Exit.OK
    cursor = None
    while True:
        page = service.get(path, **query, cursor=cursor)
        for each in page["results"]:
            put(json.dumps(each) if args.json else each["name"])
        cursor = page["next_cursor"]
        if cursor is None:
            return Exit.OK


def runs(service: Service, args: argparse.Namespace) -> Exit:
    names = (
        "expid",
        "status",
        "profile_name",
        "installation",
        "runner",
        "host",
        "started_by",
        "silent",
        "log_too_large",
        "created_after",
        "created_before",
    )
    query = {name: getattr(args, name) for name in names} | {"page_size": min(args.limit, 500)}
    found: list[dict[str, Any]] = []
    cursor = None
    while len(found) < args.limit:
        page = service.get("runs", **query, ordering="created" if args.oldest_first else None, cursor=cursor)
        found += page["results"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    found = found[: args.limit]
    if args.json:
        put(json.dumps(found, indent=2))
    else:
        table([COLUMNS, *([text(row[name]) for name in COLUMNS] for row in found)])
    return Exit.OK


def execute(service: Service, args: argparse.Namespace) -> Exit:
    """Send a command of `catalog` and print its result: the id of a created experiment, or the changed jobs."""
    command = args.command
    body = profile(args)
    if command["needs_expid"]:
        body["expid"] = args.expid
    if any(not parameter["in_body"] for parameter in command["parameters"]):
        body["command_params"] = {}
    for parameter in command["parameters"]:
        value = getattr(args, PARAMETER + parameter["name"])
        if value not in (None, False, []):
            target = body if parameter["in_body"] else body["command_params"]
            target[parameter["name"]] = value
    answer = long(service, command, body, args)
    if args.dry_run or args.json:
        return Exit.OK
    if not command["needs_expid"]:
        put(answer["expid"])
    if command["name"] == "set-job-status":
        for job, status in answer["changed"].items():
            put(f"{job} {status}")
        if answer["counts"]["changed"] > len(answer["changed"]):
            say(f"{answer['counts']['changed']} jobs were changed. The first {len(answer['changed'])} are listed")
    return Exit.OK


def long(service: Service, command: dict[str, Any], body: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Send a command, as an operation if it is long, and poll the operation. Print and return the result."""
    headers = {"Prefer": "respond-async, wait=5"} if command["is_long"] else {}
    answer = service.command(command["name"], body, **headers)
    if args.dry_run:
        planned(answer, args)
        return answer
    if "operation_id" in answer:
        answer = finished(service, answer, args)
    for warning in answer["warnings"]:
        say(f"warning: {warning}")
    say(answer["message"])
    if args.json:
        put(json.dumps(answer, indent=2))
    return answer


def finished(service: Service, operation: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    number = operation["operation_id"]
    before = ""
    while operation["status"] in ("pending", "running"):
        words = "" if operation["reachable"] else f": {operation['unreachable_detail']}"
        words = f"operation {number} is {operation['status']}{words}"
        if words != before:
            say(words)
            before = words
        time.sleep(args.interval)
        operation = service.get(f"operations/{number}")
    if operation["error"]:
        body = operation["error"]
        raise Problem(exit_code_of(body), body["detail"], body)
    result: dict[str, Any] = operation["result"]
    return result


def check(service: Service, args: argparse.Namespace) -> Exit:
    params = profile(args)
    name = urllib.parse.quote(params["profile_name"], safe="")
    found = service.post(f"profiles/{name}/check", {"profile_params": params["profile_params"]})
    if args.json:
        put(json.dumps(found, indent=2))
    else:
        for stage in found["stages"]:
            mark = {True: "ok", False: "FAILED", None: "-"}[stage["ok"]]
            put(
                f"{mark:7} {stage['milliseconds']:6} ms  {stage['title']}: {stage['detail']} {stage['remedy']}".rstrip()
            )
    return Exit.OK if found["ok"] else Exit.FAILED


# --- what they share --------------------------------------------------------------------------------------------------


def profile(args: argparse.Namespace) -> dict[str, Any]:
    """Return profile_name and profile_params, with --dry-run also dry_run.

    `-p SSH.USER=ana` becomes `{"SSH": {"USER": "ana"}}`.
    """
    params: dict[str, Any] = {}
    for item in args.param:
        path, equals, value = item.partition("=")
        if not equals:
            raise Problem(Exit.USAGE, f"-p {item}: use NAME=VALUE, such as SSH.USER=ana.")
        outer, dot, inner = path.partition(".")
        if dot:
            params.setdefault(outer, {})[inner] = value
        else:
            params[outer] = value
    body = {"profile_name": args.profile, "profile_params": params}
    return {**body, "dry_run": True} if getattr(args, "dry_run", False) else body


def scope(args: argparse.Namespace) -> dict[str, Any]:
    """Return profile_name and profile_params for a command in which both are optional."""
    if args.profile is None and args.param:
        raise Problem(Exit.USAGE, "-p also needs --profile NAME.")
    asked = profile(args)
    return {name: asked[name] for name in ("profile_name", "profile_params") if asked[name]}


def find(service: Service, args: argparse.Namespace) -> dict[str, Any]:
    """Return a run by its number, or the last run of an experiment."""
    if args.what.isdecimal():
        return service.get(f"runs/{args.what}")
    return service.post("command/get-runner-run-status", {"expid": args.what, **scope(args)})


def code_of(found: dict[str, Any]) -> Exit:
    return Exit.OK if found["status"] == "COMPLETED" else Exit.FAILED


def sentence(found: dict[str, Any]) -> str:
    words = f"{found['expid']}: run {found['runner_id']} is {found['status']}"
    if found["status"] == "TERMINATED":
        code = "" if found["exit_code"] is None else f", exit code {found['exit_code']}"
        words += f" ({found['reason']}{code})"
        if found["explanation"]:
            words += f"\n{found['explanation']}"
    elif found.get("progress"):
        counts = found["progress"]
        words += f": {counts['done']} of {counts['total']} jobs done, {counts['running']} running"
        words += f", {counts['failed']} failed" if counts["failed"] else ""
    if found["status"] == "ACTIVE" and not found["reachable"]:
        words += f" (last known state): {found['unreachable_detail']}"
    return words


def show_run(found: dict[str, Any], args: argparse.Namespace) -> None:
    if args.json:
        put(json.dumps(found, indent=2))
    else:
        put(found["status"])


def planned(plan: dict[str, Any], args: argparse.Namespace) -> Exit:
    put(json.dumps(plan, indent=2) if args.json else f"# {plan['where']}\n{plan['script']}")
    return Exit.OK


def text(value: object) -> str:
    return "-" if value in (None, "") else str(value)


def table(rows: list[Any]) -> None:
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()  # noqa: B905  (Python 3.9)
        put(line[: shutil.get_terminal_size().columns] if sys.stdout.isatty() else line)
