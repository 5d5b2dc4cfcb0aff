"""One function for each command. Results go to standard output, progress to standard error. It returns an exit code."""

from __future__ import annotations

import argparse
import math
import shutil
import sys
import time
import urllib.parse
from datetime import datetime, timezone
from typing import Any

from runners.cli.errors import Exit, Problem, exit_code_of
from runners.cli.log_reading import follow
from runners.cli.service import Service
from runners.cli.terminal import Printer, colour, confirm, harmless, is_asked, put, put_json, say

STATES = ("ACTIVE", "COMPLETED", "TERMINATED")  # of a run
UNCONFIRMED_AFTER = 3600  # seconds without a word of its machine after which a run is not a plain ACTIVE
PARAMETER = "parameter:"  # prefix of the names of a command's own parameters in the parsed arguments
RUN_OPTIONS = ("start_time", "start_after", "run_only_members", "update_version")
SHOWN_IN_PREVIEW = 20  # jobs
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
        printer = Printer()
        try:
            follow(service, f"runs/{started['runner_id']}/log", 0, printer)
        finally:
            printer.close()
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
        put_json(stopped)
    return {"unknown": Exit.UNKNOWN, "not_cancelled": Exit.FAILED}.get(stopped["cancel"]["outcome"], Exit.OK)


def status(service: Service, args: argparse.Namespace) -> Exit:
    """Print the state of the last run of an experiment, or of a run by its number."""
    found = find(service, args)
    if args.watch:
        return watch(service, found["runner_id"], args)
    silence = unconfirmed_for(service, found)
    if found["status"] == "ACTIVE" and (silence or not found["reachable"]):
        say(sentence(found, silence))
    show_run(found, args, silence)
    if found["status"] == "ACTIVE":
        return Exit.UNCONFIRMED if silence else Exit.ACTIVE
    return code_of(found)


def wait(service: Service, args: argparse.Namespace) -> Exit:
    """Wait for the end of a run, for at most --timeout seconds."""
    found = find(service, args)
    return watch(service, found["runner_id"], args, args.timeout)


def watch(service: Service, number: int, args: argparse.Namespace, at_most: float | None = None) -> Exit:
    """Print each change of a run's state until the run has ended. `at_most`: in seconds; None: without a limit."""
    before = ""
    start = time.monotonic()
    while True:
        found = service.get(f"runs/{number}")
        silence = unconfirmed_for(service, found)
        words = sentence(found, silence)
        if words != before:
            say(words)
            before = words
        if found["status"] != "ACTIVE":
            show_run(found, args)
            return code_of(found)
        left = math.inf if at_most is None else start + at_most - time.monotonic()
        if left <= 0:
            say(f"{found['expid']}: run {number} has not ended within {at_most:g} s. It continues.")
            show_run(found, args, silence)
            return Exit.TIMED_OUT
        time.sleep(min(args.interval, left))


def scripts(service: Service, args: argparse.Namespace) -> Exit:
    """List the generated scripts of an experiment, or print one of them."""
    path = f"experiments/{urllib.parse.quote(args.expid, safe='')}/scripts"
    query: dict[str, Any] = {"profile_name": profile(args)["profile_name"]}
    if args.name:
        path += f"/{urllib.parse.quote(args.name, safe='')}"
        part = service.get(path, **query)
        texts = [part["text"]]
        while not part["ended"]:
            part = service.get(path, **query, offset=part["next_offset"])
            texts.append(part["text"])
        if args.json:
            put_json({"name": args.name, "text": "".join(texts)})
        else:
            put("".join(texts), end="")
        return Exit.OK
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = service.get(path, **query, cursor=cursor)
        found += page["results"]
        if not args.json:
            for each in page["results"]:
                put(each["name"])
        cursor = page["next_cursor"]
        if cursor is None:
            break
    if args.json:
        put_json(found)
    return Exit.OK


def runs(service: Service, args: argparse.Namespace) -> Exit:
    """List runs with the filters of the command line."""
    names: tuple[str, ...] = ("expid", "status", "profile_name", "installation", "runner", "host", "user", "started_by")
    names += ("reason", "search", "silent", "log_too_large", "created_after", "created_before")
    query = {name: getattr(args, name) for name in names}
    if args.mine:
        if args.started_by:
            raise Problem(Exit.USAGE, "Use either --mine or --started-by.")
        query["started_by"] = service.get("login/whoami")["username"]
    found = found_runs(service, query, args.limit, is_oldest_first=args.oldest_first)
    if args.json:
        put_json(found)
    else:
        table([COLUMNS, *([text(row[name]) for name in COLUMNS] for row in found)])
    return Exit.OK


def found_runs(
    service: Service, query: dict[str, Any], limit: int, *, is_oldest_first: bool = False
) -> list[dict[str, Any]]:
    """Return at most `limit` runs that match a query."""
    found: list[dict[str, Any]] = []
    cursor = None
    while len(found) < limit:
        page = service.get(
            "runs",
            **query,
            page_size=min(limit, 500),
            ordering="created" if is_oldest_first else None,
            cursor=cursor,
        )
        found += page["results"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    return found[:limit]


def history(service: Service, args: argparse.Namespace) -> Exit:
    """List the runs of an experiment, newest first: who, when, how long, and how they ended."""
    found = found_runs(service, {"expid": args.expid}, args.limit)
    if args.json:
        put_json(found)
        return Exit.OK
    if not found:
        raise Problem(Exit.NOT_THERE, f"{args.expid} was never run here, or its runs are hidden from you.")
    rows = [["run", "started", "lasted", "state", "reason", "exit", "profile", "person"]]
    for row in found:
        silence = unconfirmed_for(service, row)
        rows.append(
            [
                str(row["runner_id"]),
                moment(row["created"]),
                lasted(service, row),
                "UNCONFIRMED" if silence else row["status"],
                text(row["reason"]),
                text(row["exit_code"]),
                text(row["profile_name"]),
                text(row["started_by"]),
            ]
        )
    table(rows)
    return Exit.OK


def moment(value: Any) -> str:
    """Return an ISO 8601 time of the service, which is UTC, for people."""
    return f"{str(value)[:16].replace('T', ' ')} UTC" if value else "-"


def seconds_of(value: str) -> float:
    """Return an ISO 8601 time of the service in seconds since 1970. Raises ValueError."""
    return datetime.strptime(value[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc).timestamp()


def lasted(service: Service, row: dict[str, Any]) -> str:
    try:
        end = seconds_of(row["finished"]) if row.get("finished") else service.now()
        return span(max(0.0, end - seconds_of(row["created"])))
    except (TypeError, ValueError):
        return "-"


def profiles(service: Service, args: argparse.Namespace) -> Exit:
    """List the profiles that the person may use, or what one of them leaves open."""
    if args.name:
        found = service.get(f"profiles/{urllib.parse.quote(args.name, safe='')}/requirements")
        if args.json:
            put_json(found)
        elif not found["requirements"]:
            put(f"{args.name} leaves nothing open: use --profile {args.name}.")
        else:
            rows = [["option", "", "values"]]
            for each in found["requirements"]:
                values = ", ".join(each.get("choices") or each.get("allowed_patterns") or []) or each["type"]
                needed = (
                    "needed" if each["required"] else "sometimes needed" if each.get("required_when") else "optional"
                )
                rows.append([f"-p {each['parameter']}=VALUE", needed, values])
            table(rows)
        return Exit.OK
    listed = service.get("configuration/profiles")
    if args.json:
        put_json(listed)
        return Exit.OK
    rows = [["profile", "machine", "account", "environment"]]
    for name in sorted(listed):
        each = listed[name]
        ssh = each.get("SSH") or {}
        is_local = each.get("RUNNER_TYPE") == "LOCAL"
        modules = each.get("MODULES")
        modules = " ".join(modules) if isinstance(modules, list) else text(modules)
        rows.append(
            [
                name,
                "the service's machine" if is_local else text(ssh.get("HOST")),
                text(ssh.get("USER")),
                f"{text(each.get('MODULE_LOADER_TYPE'))} {modules}",
            ]
        )
    table(rows)
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
    if command["name"] in PREVIEWED and not args.dry_run:
        if args.preview:
            return preview(service, command, body, args)
        if not args.yes and is_asked() and not is_wanted(service, command, body):
            say("Nothing was changed.")
            return Exit.FAILED
    answer = long(service, command, body, args)
    if args.dry_run or args.json:
        return Exit.OK
    if not command["needs_expid"]:
        put(answer["expid"])
    show_changes(command, answer)
    return Exit.OK


PREVIEWED = {"set-job-status": "changed", "recover-experiment": "recovered"}  # and the member with the changed jobs


def preview(service: Service, command: dict[str, Any], body: dict[str, Any], args: argparse.Namespace) -> Exit:
    """Print what a command would change. It is not repeated: it only costs the machine time."""
    answer = service.post(f"command/{command['name']}", {**body, "preview": True})
    if args.json:
        put_json(answer)
        return Exit.OK
    for warning in answer["warnings"]:
        say(f"warning: {warning}")
    say(answer["message"])
    show_changes(command, answer)
    return Exit.OK


def is_wanted(service: Service, command: dict[str, Any], body: dict[str, Any]) -> bool:
    """Show on the terminal what a command would change, and ask. Return False if nothing would change, too."""
    answer = service.post(f"command/{command['name']}", {**body, "preview": True})
    changed: dict[str, str] = answer[PREVIEWED[command["name"]]]
    number = (answer.get("counts") or {}).get("changed", len(changed))
    for job, status in list(changed.items())[:SHOWN_IN_PREVIEW]:
        say(f"  {job} -> {status}")
    if number > SHOWN_IN_PREVIEW:
        say(f"  ... and {number - SHOWN_IN_PREVIEW} more")
    for warning in answer["warnings"]:
        say(f"warning: {warning}")
    if not number:
        say("Autosubmit would change no job.")
        return False
    return confirm(f"Change {number} job{'s' if number != 1 else ''} of {body['expid']}?")


def show_changes(command: dict[str, Any], answer: dict[str, Any]) -> None:
    changed: dict[str, str] = answer.get(PREVIEWED.get(command["name"], ""), {})
    for job, status in changed.items():
        put(f"{job} {status}")
    number = (answer.get("counts") or {}).get("changed", 0)
    if number > len(changed):
        say(f"{number} jobs are changed. The first {len(changed)} are listed.")


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
        put_json(answer)
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
        raise Problem(exit_code_of(body["status"], body["code"]), body["detail"], body)
    result: dict[str, Any] = operation["result"]
    return result


def check(service: Service, args: argparse.Namespace) -> Exit:
    params = profile(args)
    name = urllib.parse.quote(params["profile_name"], safe="")
    found = service.post(f"profiles/{name}/check", {"profile_params": params["profile_params"]})
    if args.json:
        put_json(found)
    else:
        for stage in found["stages"]:
            mark = {True: "ok", False: "FAILED", None: "-"}[stage["ok"]]
            put(
                f"{mark:7} {stage['milliseconds']:6} ms  {stage['title']}: {stage['detail']} {stage['remedy']}".rstrip()
            )
    return Exit.OK if found["ok"] else Exit.FAILED


# --- what they share --------------------------------------------------------------------------------------------------


def profile(args: argparse.Namespace, *, is_needed: bool = True) -> dict[str, Any]:
    """Return profile_name and profile_params, with --dry-run also dry_run.

    `-p SSH.USER=ana` becomes `{"SSH": {"USER": "ana"}}`. Raises Problem.
    """
    if is_needed and not args.profile:
        raise Problem(
            Exit.USAGE, "Give --profile NAME, or set AUTOSUBMIT_RUNNERS_PROFILE. `asr profiles` lists the profiles."
        )
    params: dict[str, Any] = {}
    for item in args.param:
        path, equals, value = item.partition("=")
        if not equals:
            raise Problem(Exit.USAGE, f"-p {item}: use NAME=VALUE, such as SSH.USER=ana.")
        outer, dot, inner = path.partition(".")
        section = params.setdefault(outer, {}) if dot else params
        if not isinstance(section, dict):
            raise Problem(Exit.USAGE, f"-p {item}: {outer} has a value already.")
        section[inner if dot else outer] = value
    body = {"profile_name": args.profile, "profile_params": params}
    return {**body, "dry_run": True} if getattr(args, "dry_run", False) else body


def scope(args: argparse.Namespace) -> dict[str, Any]:
    """Return profile_name and profile_params for a command in which both are optional."""
    if args.profile is None and args.param:
        raise Problem(Exit.USAGE, "-p also needs --profile NAME.")
    asked = profile(args, is_needed=False)
    return {name: asked[name] for name in ("profile_name", "profile_params") if asked[name]}


def find(service: Service, args: argparse.Namespace) -> dict[str, Any]:
    """Return a run by its number, or the last run of an experiment."""
    if args.what.isdecimal():
        return service.get(f"runs/{args.what}")
    return service.post("command/get-runner-run-status", {"expid": args.what, **scope(args)})


def state_of(found: dict[str, Any]) -> str:
    """Return the status of a run. Raises ValueError if it is none that this program knows: no exit code fits it."""
    status = str(found["status"])
    if status not in STATES:
        raise ValueError(f"a run is {status}")
    return status


def code_of(found: dict[str, Any]) -> Exit:
    return Exit.OK if state_of(found) == "COMPLETED" else Exit.FAILED


def unconfirmed_for(service: Service, found: dict[str, Any]) -> float:
    """Return for how many seconds the machine of an ACTIVE run has not confirmed it, if for an hour; else 0."""
    if state_of(found) != "ACTIVE":
        return 0
    last = found.get("confirmed_at") or found["created"]
    try:
        seconds = service.now() - seconds_of(last)
    except (TypeError, ValueError):
        return 0
    return seconds if seconds >= UNCONFIRMED_AFTER else 0


def span(seconds: float) -> str:
    """Return a duration in words of at most two units: 3 h 20 min."""
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min {int(seconds) % 60} s" if minutes else f"{int(seconds)} s"


def sentence(found: dict[str, Any], silence: float = 0) -> str:
    """Describe the state of a run. `silence`: seconds, as `unconfirmed_for` returns them."""
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
    if silence:
        words += f" (last known state; its machine has not confirmed it for {span(silence)})"
    elif found["status"] == "ACTIVE" and not found["reachable"]:
        words += " (last known state)"
    if found["status"] == "ACTIVE" and not found["reachable"]:
        words += f": {found['unreachable_detail']}"
    return words


COLOURS = {"COMPLETED": "32", "ACTIVE": "36", "UNCONFIRMED": "33"}


def show_run(found: dict[str, Any], args: argparse.Namespace, silence: float = 0) -> None:
    word = "UNCONFIRMED" if silence else state_of(found)
    if args.json:
        put_json(found)
    else:
        sys.stdout.write(colour(harmless(word), COLOURS.get(word, "31")) + "\n")
        sys.stdout.flush()


def planned(plan: dict[str, Any], args: argparse.Namespace) -> Exit:
    if args.json:
        put_json(plan)
    else:
        put(f"# {plan['where']}\n{plan['script']}")
    return Exit.OK


def text(value: object) -> str:
    return "-" if value in (None, "") else str(value)


def table(rows: list[Any]) -> None:
    rows = [[harmless(cell).replace("\n", " ") for cell in row] for row in rows]
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
        put(line[: shutil.get_terminal_size().columns] if sys.stdout.isatty() else line)
