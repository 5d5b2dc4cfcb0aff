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

from runners.cli import commands, configuration, jobs
from runners.cli.catalog import Command, add_arguments, bundled, list_commands, name_of, of_service
from runners.cli.service import Exit, Problem, Service, put, say

HTTP = ("http://", "https://")
URL, TOKEN = "AUTOSUBMIT_RUNNERS_URL", "AUTOSUBMIT_RUNNERS_TOKEN"


def program_name() -> str:
    """Return how the program was called: `python3 -m runners.cli`, or the name of the installed script."""
    script = os.path.basename(sys.argv[0])
    return "autosubmit-runners" if script == "autosubmit-runners" else "python3 -m runners.cli"


def general() -> argparse.ArgumentParser:
    """Return the parser of the options before the subcommand."""
    options = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    options.add_argument("--url", default=os.environ.get(URL, ""), help=f"of the service; default ${URL}")
    options.add_argument(
        "--timeout", type=float, default=600, help="timeout of one response in seconds (default %(default)g)"
    )
    options.add_argument(
        "--patience",
        type=float,
        default=60,
        help="seconds for which requests are retried while the service does not answer (60)",
    )
    return options


def parser(catalog: list[Command]) -> tuple[argparse.ArgumentParser, set[str]]:
    """Return the parser and the names of its subcommands: those made by hand, and one for each command of `catalog`."""
    codes = ", ".join(f"{code.value} {code.name.lower().replace('_', ' ')}" for code in Exit)
    top = argparse.ArgumentParser(
        prog=program_name(),
        description="Run Autosubmit experiments through an Autosubmit Runners service.",
        epilog=f"`commands` also lists those of your site. Environment: {URL}, {TOKEN}. Exit codes: {codes}. "
        "More in docs/cli.md.",
        parents=[general()],
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
    it.add_argument("--start-time", metavar="TIME", help="wait until 'YYYY-MM-DD HH:MM:SS', by the machine's clock")
    it.add_argument("--start-after", metavar="EXPID", help="wait until this other experiment has completed")
    it.add_argument("--run-only-members", metavar="MEMBERS", help="run only these members, such as 'fc0 fc1'")
    it.add_argument("--update-version", action="store_true", help="set the experiment's Autosubmit version first")
    it.add_argument(
        "--restart-on", metavar="CAUSES", help="start it again after 'lost' (a reboot), 'platform', or both"
    )
    it.add_argument("--restart-attempts", type=positive, metavar="N", help="restarts at most (default 3)")

    it = add("run-again", commands.run_again, "Run an experiment again, as its last run or a given one.", once, scoped)
    it.add_argument("what", metavar="EXPID|RUN")
    it.add_argument("--first", choices=("failed_to_waiting", "recover"), help="what is done before the run")
    it.add_argument("--update-version", action="store_true", help="set the experiment's Autosubmit version first")
    it.add_argument("--wait", action="store_true", help="wait for its end; the exit code shows the result")
    it.add_argument("--follow", action="store_true", help="wait, and print its log")
    it.add_argument("--interval", type=float, default=2, help="seconds between two polls (default %(default)g)")

    it = add("stop", commands.stop, "Stop an experiment, and wait for its end.", scoped, once)
    it.add_argument("expid")
    it.add_argument("--force", action="store_true", help="end it at once (KILL)")
    it.add_argument("--cancel-jobs", action="store_true", help="also cancel the jobs that it has submitted")
    it.add_argument("--foreign", action="store_true", help="end a run that this service has not started")

    it = add("status", commands.status, "The state of an experiment's last run, or of a run.", scoped, patient)
    it.add_argument("what", metavar="EXPID|RUN")
    it.add_argument("--watch", action="store_true", help="wait for its end; the exit code shows the result")

    it = add("log", commands.log, "The log of an experiment's last run, or of a run.", scoped)
    it.add_argument("what", metavar="EXPID|RUN")
    it.add_argument("--follow", action="store_true", help="wait for the end of the run; the exit code shows the result")
    it.add_argument("--tail", type=int, metavar="BYTES", help="print the last BYTES bytes first (16 to 1000000)")

    it = add("jobs", jobs.jobs, "The jobs of an experiment, as they are now.", scoped)
    it.add_argument("what", metavar="EXPID|RUN")
    for name, words in (
        ("status", "jobs with one of these statuses, separated by commas, such as FAILED,RUNNING"),
        ("section", "jobs of this section"),
        ("member", "jobs of this member"),
        ("date", "jobs of this start date, as 20000101"),
        ("chunk", "jobs of this chunk"),
        ("split", "jobs of this split"),
        ("platform", "jobs on this platform"),
        ("name", "jobs with this text in their name"),
        ("ordering", "name, status, section, date, member, chunk or platform; with - in front in reverse"),
    ):
        it.add_argument(f"--{name}", help=words)
    it.add_argument("--limit", type=positive, default=100, help="maximum number (default %(default)s)")
    it.add_argument("--counts", action="store_true", help="print how many jobs have each status, and no jobs")

    it = add("job-log", jobs.job_log, "The log of a job: its standard error, or its standard output.", scoped)
    it.add_argument("what", metavar="EXPID|RUN")
    it.add_argument("job", metavar="JOB", help="the name of the job")
    it.add_argument("--stream", choices=("err", "out"), default="err", help="err (default) or out")
    it.add_argument("--attempt", type=positive, help="number of the attempt (default: the last one)")
    it.add_argument("--tail", type=positive, metavar="BYTES", help="print only its end")
    it.add_argument("--follow", action="store_true", help="print until the job has ended")

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
    for name, words in (
        ("silent", "that print nothing for longer than their profile allows"),
        ("log-too-large", "whose log has passed the limit of the service"),
    ):
        it.add_argument(f"--{name}", action="store_const", const="true", help=words)
    it.add_argument("--oldest-first", action="store_true")
    it.add_argument("--limit", type=positive, default=50, help="maximum number (default %(default)s)")

    it = add("scripts", commands.scripts, "List the generated scripts of an experiment's jobs, or print one.", profiled)
    it.add_argument("expid")
    it.add_argument("name", nargs="?", help="print this script, such as a001_SIM.cmd")

    it = found.add_parser("config", help="Read and change the configuration files of an experiment.")
    configuration.add_actions(it, [every, profiled])

    add("check", commands.check, "Test a profile step by step.", profiled)
    add("commands", list_commands, "List the commands of the service, those of your site included.")
    for command in catalog:
        if name_of(command) not in found.choices:
            waits = (patient,) if command["is_long"] else ()
            it = add(name_of(command), commands.execute, f"{command['summary']}.", profiled, once, *waits)
            it.set_defaults(command=command)
            add_arguments(it, command)
    return top, set(found.choices)


def parse(words: list[str]) -> argparse.Namespace:
    """Parse the command line. If a subcommand is not known here, the service may have it: ask what it takes.

    Raises Problem if the service does not answer.
    """
    top, names = parser(bundled())
    options, rest = general().parse_known_args(words)
    wanted = next((word for word in rest if not word.startswith("-")), "")
    if wanted and wanted not in names and options.url.startswith(HTTP):
        service = Service(options.url, os.environ.get(TOKEN, ""), timeout=options.timeout, patience=options.patience)
        try:
            top, _ = parser(of_service(service))
        except (KeyError, TypeError, ValueError):
            raise Problem(
                Exit.UNREACHABLE, f"{options.url} describes its commands in a form that this program does not know."
            ) from None
    return top.parse_args(words)


def tell_key(service: Service | None) -> None:
    if service and service.was_sent:
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
    words = sys.argv[1:] if argv is None else argv
    service: Service | None = None
    try:
        args = parse(words)
        if not args.url.startswith(HTTP):
            raise Problem(
                Exit.USAGE,
                f"The address of the service is missing: set --url or {URL}, such as https://runners.example.org.",
            )
        service = Service(
            args.url,
            os.environ.get(TOKEN, ""),
            timeout=args.timeout,
            patience=args.patience,
            key=getattr(args, "idempotency_key", None),
        )
        code: Exit = args.function(service, args)
        return int(code)
    except Problem as problem:
        say(f"error: {problem}")
        if problem.code == Exit.UNKNOWN:
            tell_key(service)
        if "--json" in words and problem.body:
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
