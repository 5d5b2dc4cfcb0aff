"""`python3 -m runners.cli`: a client for the command line and for shell scripts. See docs/cli.md.

It needs only Python, so this folder can be copied to machines without the service.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
from collections.abc import Callable

from runners.cli import commands
from runners.cli.service import Exit, Problem, Service, put, say

URL, TOKEN = "AUTOSUBMIT_RUNNERS_URL", "AUTOSUBMIT_RUNNERS_TOKEN"


def program_name() -> str:
    """Return how the program was called: `python3 -m runners.cli`, or the name of the installed script."""
    script = os.path.basename(sys.argv[0])
    return "autosubmit-runners" if script == "autosubmit-runners" else "python3 -m runners.cli"


def parser() -> argparse.ArgumentParser:
    codes = ", ".join(f"{code.value} {code.name.lower().replace('_', ' ')}" for code in Exit)
    top = argparse.ArgumentParser(
        prog=program_name(),
        description="Run Autosubmit experiments through an Autosubmit Runners service.",
        epilog=f"Environment: {URL}, {TOKEN}. Exit codes: {codes}. More in docs/cli.md.",
    )
    top.add_argument("--url", default=os.environ.get(URL, ""), help=f"of the service; default ${URL}")
    top.add_argument(
        "--timeout", type=float, default=600, help="timeout of one response in seconds (default %(default)g)"
    )
    top.add_argument(
        "--patience",
        type=float,
        default=60,
        help="seconds for which requests are retried while the service does not answer (60)",
    )
    every = argparse.ArgumentParser(add_help=False)
    every.add_argument("--json", action="store_true", help="print the complete response of the service")
    patient = argparse.ArgumentParser(add_help=False)
    patient.add_argument("--interval", type=float, default=2, help="seconds between two polls (default %(default)g)")
    once = argparse.ArgumentParser(add_help=False)
    once.add_argument("--dry-run", action="store_true", help="print what would be executed, and execute nothing")
    once.add_argument(
        "--idempotency-key",
        type=key,
        metavar="KEY",
        help="key of an earlier call with unknown outcome; returns its outcome and never executes the command twice",
    )
    param = argparse.ArgumentParser(add_help=False)
    param.add_argument(
        *("-p", "--param"),
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="value of an open parameter of the profile, such as -p SSH.USER=ana; can be repeated",
    )
    scoped = argparse.ArgumentParser(add_help=False, parents=[param])
    scoped.add_argument(
        "--profile",
        metavar="NAME",
        help="search only in the installation of this profile; needed if several have an experiment with this id",
    )
    profiled = argparse.ArgumentParser(add_help=False, parents=[param])
    profiled.add_argument(
        "--profile", required=True, metavar="NAME", help="profile with the machine and the environment"
    )
    found = top.add_subparsers(metavar="COMMAND", required=True)

    def add(
        name: str, function: Callable[[Service, argparse.Namespace], Exit], text: str, *parents: argparse.ArgumentParser
    ) -> argparse.ArgumentParser:
        made = found.add_parser(name, help=text, description=text, parents=[every, *parents])
        made.set_defaults(function=function)
        return made

    it = add("run", commands.run, "Start an experiment.", profiled, once, patient)
    it.add_argument("expid")
    it.add_argument("--wait", action="store_true", help="wait for its end; the exit code shows the result")
    it.add_argument("--follow", action="store_true", help="wait, and print its log")

    it = add("stop", commands.stop, "Stop an experiment, and wait for its end.", scoped, once)
    it.add_argument("expid")
    it.add_argument("--force", action="store_true", help="end it at once (KILL)")
    it.add_argument("--cancel-jobs", action="store_true", help="also cancel the jobs that it has submitted")

    it = add("status", commands.status, "The state of an experiment's last run, or of a run.", scoped, patient)
    it.add_argument("what", metavar="EXPID|RUN")
    it.add_argument("--watch", action="store_true", help="wait for its end; the exit code shows the result")

    it = add("log", commands.log, "The log of an experiment's last run, or of a run.", scoped)
    it.add_argument("what", metavar="EXPID|RUN")
    it.add_argument("--follow", action="store_true", help="wait for the end of the run; the exit code shows the result")
    it.add_argument("--tail", type=int, metavar="BYTES", help="print the last BYTES bytes first (16 to 1000000)")

    it = add("runs", commands.runs, "List runs, newest first.")
    for name, words in (
        ("expid", "of this experiment"),
        ("status", "ACTIVE, COMPLETED or TERMINATED"),
        ("profile-name", "started with this profile"),
        ("installation", "of this installation"),
        ("runner", "LOCAL or SSH"),
        ("host", "on this machine"),
        ("started-by", "that this person has started"),
        ("created-after", "ISO 8601, such as 2026-01-20T09:30:00Z"),
        ("created-before", "ISO 8601"),
    ):
        it.add_argument(f"--{name}", help=words)
    it.add_argument("--oldest-first", action="store_true")
    it.add_argument("--limit", type=positive, default=50, help="maximum number (default %(default)s)")

    it = add("create", commands.create, "Create an experiment and print its id.", profiled, once, patient)
    it.add_argument("--description", required=True)
    for name in ("hpc", "copy", "git-repo", "git-branch", "config-path"):
        it.add_argument(f"--{name}")
    for name in ("minimal", "dummy", "operational", "testcase", "evaluation", "use-local-minimal"):
        it.add_argument(f"--{name}", action="store_true")

    it = add(
        "create-job-list", commands.create_job_list, "Create the job list of an experiment.", profiled, once, patient
    )
    it.add_argument("expid")
    for name in ("force", "check-wrapper", "update-version"):
        it.add_argument(f"--{name}", action="store_true")

    it = add("set-status", commands.set_status, "Change the status of jobs.", profiled, once, patient)
    it.add_argument("expid")
    it.add_argument(
        "final_status",
        metavar="STATUS",
        help="READY, COMPLETED, WAITING, SUSPENDED, FAILED, ...; the installed Autosubmit decides",
    )
    it.add_argument("jobs", nargs="*", metavar="JOB", help="full job names, such as a001_SIM")
    for name in ("chunks", "status", "type", "type-chunk", "type-chunk-split"):
        it.add_argument(f"--filter-{name}")

    add("check", commands.check, "Test a profile step by step.", profiled)
    return top


def tell_key(service: Service) -> None:
    if service.was_sent:
        say(f"Retry the same command with --idempotency-key {service.key} to get its result.")


def key(word: str) -> str:
    if not re.fullmatch(r"[!#-~]{1,255}", word):
        raise ValueError
    return word


def positive(word: str) -> int:
    number = int(word)
    if number < 1:
        raise ValueError
    return number


def main(argv: list[str] | None = None) -> int:
    """Run the client and return its exit code."""
    args = parser().parse_args(argv)
    service = Service(
        args.url,
        os.environ.get(TOKEN, ""),
        timeout=args.timeout,
        patience=args.patience,
        key=getattr(args, "idempotency_key", None),
    )
    try:
        if not args.url.startswith(("http://", "https://")):
            raise Problem(
                Exit.USAGE,
                f"The address of the service is missing: set --url or {URL}, such as https://runners.example.org.",
            )
        code: Exit = args.function(service, args)
        return int(code)
    except Problem as problem:
        say(f"error: {problem}")
        if problem.code == Exit.UNKNOWN:
            tell_key(service)
        if args.json and problem.body:
            put(json.dumps(problem.body, indent=2))
        return int(problem.code)
    except KeyboardInterrupt:
        say("Interrupted. The started command continues.")
        tell_key(service)
        return int(Exit.INTERRUPTED)
    except BrokenPipeError:  # the reader has closed the pipe, as in `... log | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


if __name__ == "__main__":
    sys.exit(main())
