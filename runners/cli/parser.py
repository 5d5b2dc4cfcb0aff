"""The command line: its subcommands, their options, and the texts of --help."""

from __future__ import annotations

import argparse
import re
from typing import Any, Callable, NamedTuple

from runners.cli import __version__, commands, completion, configuration, jobs, login, logs, settings
from runners.cli.catalog import Command, add_arguments, list_commands, name_of, other_names_of
from runners.cli.errors import EXIT_TEXTS, Exit, Problem
from runners.cli.service import Service

Function = Callable[[Service, argparse.Namespace], Exit]
SEVERAL_RUNS = "EXPID|RUN"
WHAT = "an experiment (its last run), or the number of a run"


class Listed(NamedTuple):
    """A subcommand in the list of `--help`."""

    group: str
    name: str
    text: str


class Parser(argparse.ArgumentParser):
    """A parser that keeps the lines of its examples, takes no abbreviated options, and names the way to --help."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **kwargs)

    def format_usage(self) -> str:
        self.usage = self._short_usage()
        return super().format_usage()

    def format_help(self) -> str:
        self.usage = self._short_usage()
        return super().format_help()

    def _short_usage(self) -> str:
        """Return the usage with the needed options and the arguments: the lists below it have the others."""
        words = [self.prog, "[OPTION...]"]
        for action in self._actions:
            name = str(action.metavar or action.dest)
            if isinstance(action, argparse._SubParsersAction):
                words.append(f"{name} ...")
            elif action.option_strings:
                words += [f"{max(action.option_strings, key=len)} {name}"] if action.required else []
            else:
                words.append({"?": f"[{name}]", "*": f"[{name}...]"}.get(str(action.nargs), name))
        return " ".join(words).replace("%", "%%")

    def error(self, message: str) -> Any:
        raise Problem(Exit.USAGE, f"{message}\nMore: {self.prog} --help", {"code": "usage"})


# --- Values of options ------------------------------------------------------------------------------------------------


def key(word: str) -> str:
    if not re.fullmatch(r"[!#-~]{1,255}", word):
        raise argparse.ArgumentTypeError("use 1 to 255 printable ASCII characters without blanks")
    return word


def positive(word: str) -> int:
    if not re.fullmatch(r"0*[1-9][0-9]{0,15}", word):
        raise argparse.ArgumentTypeError(f"'{word[:40]}' is not a whole number of at least 1")
    return int(word)


def seconds(word: str) -> float:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", word):
        raise argparse.ArgumentTypeError(f"'{word[:40]}' is not a number of seconds")
    return float(word)


# --- Groups of options ------------------------------------------------------------------------------------------------


def connection_options(*, is_top: bool) -> argparse.ArgumentParser:
    """Return the options of the connection. Each stands before or after the subcommand; the latter wins."""
    options = Parser(add_help=False)
    group = options.add_argument_group("connection")
    default = None if is_top else argparse.SUPPRESS
    for name, metavar in (("url", "URL"), ("request_timeout", "SECONDS"), ("patience", "SECONDS")):
        setting = settings.BY_NAME[name]
        words = f"; default {setting.default}" if setting.default else ""
        group.add_argument(
            f"--{name.replace('_', '-')}",
            default=default,
            metavar=metavar,
            help=f"{setting.text} (${settings.variable(name)}{words})",
        )
    return options


def output_options() -> argparse.ArgumentParser:
    options = Parser(add_help=False)
    options.add_argument_group("output").add_argument(
        "--json", action="store_true", help="print the complete response as JSON; an error, too"
    )
    return options


def waiting_options() -> argparse.ArgumentParser:
    options = Parser(add_help=False)
    options.add_argument_group("waiting").add_argument(
        "--interval",
        metavar="SECONDS",
        help=f"seconds between two polls (${settings.variable('interval')}; default 2)",
    )
    return options


def safety_options() -> argparse.ArgumentParser:
    options = Parser(add_help=False)
    group = options.add_argument_group("safety")
    group.add_argument("--dry-run", action="store_true", help="print what would be executed, and execute nothing")
    group.add_argument(
        "--idempotency-key",
        type=key,
        metavar="KEY",
        help="key of an earlier call with unknown outcome; returns its outcome and never executes the command twice",
    )
    return options


def profile_options(*, is_needed: bool) -> argparse.ArgumentParser:
    options = Parser(add_help=False)
    group = options.add_argument_group("profile")
    group.add_argument(
        "--profile",
        metavar="NAME",
        help=f"profile with the machine and the environment (${settings.variable('profile')}, or the settings)"
        if is_needed
        else "search only in the installation of this profile; needed if several have an experiment with this id",
    )
    group.add_argument(
        *("-p", "--param"),
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="value of an open parameter of the profile, such as -p SSH.USER=ana; can be repeated",
    )
    options.set_defaults(needs_profile=is_needed)
    return options


# --- The subcommands --------------------------------------------------------------------------------------------------


class Builder:
    """Collects the subcommands, for the parser and for the list of `--help`."""

    def __init__(self, found: Any) -> None:
        self._found = found
        self.listed: list[Listed] = []
        self._always = [output_options(), connection_options(is_top=False)]
        self.waiting, self.safety = waiting_options(), safety_options()
        self.scoped, self.profiled = profile_options(is_needed=False), profile_options(is_needed=True)

    def add(
        self,
        group: str,
        name: str,
        function: Function,
        text: str,
        *parents: argparse.ArgumentParser,
        examples: tuple[str, ...] = (),
        aliases: tuple[str, ...] = (),
        more: str = "",
    ) -> argparse.ArgumentParser:
        """Add a subcommand. `examples`: command lines without the name of the program."""
        made: argparse.ArgumentParser = self._found.add_parser(
            name,
            aliases=aliases,
            description=f"{text}{' ' if more else ''}{more}",
            epilog=epilog(examples),
            parents=[*parents, *self._always],
        )
        made.set_defaults(function=function, parser=made)
        self.listed.append(Listed(group, name, text))
        return made


def epilog(examples: tuple[str, ...]) -> str:
    return "\n".join(["examples:", *(f"  asr {line}" for line in examples)]) if examples else ""


GROUPS = ("Sign in", "Run experiments", "Look", "Create and change experiments", "Configuration files", "More")


def parser(catalog: list[Command], prog: str = "asr") -> tuple[argparse.ArgumentParser, set[str]]:
    """Return the parser and the names of its subcommands: those made by hand, and one for each command of `catalog`."""
    top = Parser(
        prog=prog,
        description="Run Autosubmit experiments through an Autosubmit Runners service.",
        parents=[connection_options(is_top=True)],
    )
    top.add_argument("--version", action="version", version=f"asr {__version__}")
    found = top.add_subparsers(metavar="COMMAND", required=True, help=argparse.SUPPRESS, parser_class=Parser)
    builder = Builder(found)
    _sign_in(builder)
    _runs(builder)
    _look(builder)
    _scripts_and_files(builder, found)
    for command in catalog:
        if name_of(command) not in found.choices:
            waits = (builder.waiting,) if command["is_long"] else ()
            others = tuple(each for each in other_names_of(command) if each not in found.choices)
            it = builder.add(
                "Create and change experiments",
                name_of(command),
                commands.execute,
                f"{command['summary']}.",
                *(builder.profiled, builder.safety, *waits),
                aliases=others,
                examples=EXAMPLES.get(name_of(command), ()),
            )
            it.set_defaults(command=command)
            add_arguments(it, command)
            if command["name"] in commands.PREVIEWED:
                group = it.add_argument_group("preview")
                group.add_argument(
                    "--preview", action="store_true", help="print what Autosubmit would change, and change nothing"
                )
                group.add_argument(
                    "--yes",
                    action="store_true",
                    help="on a terminal: do not show the preview and ask before the change",
                )
    top.description += "\n\n" + listing(builder.listed)  # type: ignore[operator]  # a text
    top.epilog = (
        "`asr COMMAND --help` explains a command. A value is taken from its option, else from the environment, else\n"
        "from the configuration file (`asr settings` shows which). Exit codes:\n"
        + "\n".join(f"  {code.value:>3}  {text}" for code, text in EXIT_TEXTS.items())
    )
    return top, set(found.choices)


def listing(listed: list[Listed]) -> str:
    """Return the list of the subcommands, by groups."""
    width = max(len(each.name) for each in listed)
    lines: list[str] = []
    for group in GROUPS:
        lines += ["", f"{group}:"] if lines else [f"{group}:"]
        lines += [f"  {each.name.ljust(width)}  {each.text}" for each in listed if each.group == group]
    return "\n".join(lines)


EXAMPLES: dict[str, tuple[str, ...]] = {
    "create": (
        'create --profile CLUSTER --description "Nightly" --copy a001',
        'create --profile CLUSTER --description "A first one" --dummy --hpc local',
    ),
    "set-status": (
        "set-status --profile CLUSTER a001 READY a001_SIM a001_POST",
        "set-status --profile CLUSTER a001 WAITING --filter-status FAILED --preview",
    ),
    "recover": ("recover --profile CLUSTER a001 --all", "recover --profile CLUSTER a001 --all --dry-run"),
    "delete": ("delete --profile CLUSTER a001 --confirm-expid a001",),
    "create-job-list": ("create-job-list --profile CLUSTER a001",),
}


def _sign_in(builder: Builder) -> None:
    it = builder.add(
        *("Sign in", "login", login.login, "Get a token and store it, readable for you only."),
        more="Without --with-token, it shows an address and a code: sign in there, in any browser, and approve.",
        examples=("login --url https://runners.example.org", "login --with-token < token.txt"),
    )
    it.add_argument("--with-token", action="store_true", help="read a token from standard input instead")
    it.add_argument("--scope", choices=("read", "run"), default="run", help="what the token may do (default run)")
    it.add_argument("--name", metavar="TEXT", help="name of this machine on the page (default: its host name)")
    it = builder.add(
        *("Sign in", "logout", login.logout, "Revoke the stored token, and remove it."), examples=("logout",)
    )
    it.add_argument("--local", action="store_true", help="only remove it here, for example if the service is gone")
    builder.add("Sign in", "whoami", login.whoami, "Show whose token is used.", examples=("whoami", "whoami --json"))
    builder.add("Sign in", "settings", login.show_settings, "Show the settings, and where each comes from.")


def _run_options(it: argparse.ArgumentParser) -> None:
    group = it.add_argument_group("waiting")
    group.add_argument("--wait", action="store_true", help="wait for its end; the exit code shows the result")
    group.add_argument("--follow", action="store_true", help="wait, and print its log")


def _runs(builder: Builder) -> None:
    it = builder.add(
        *("Run experiments", "run", commands.run, "Start an experiment."),
        *(builder.profiled, builder.safety, builder.waiting),
        examples=(
            "run --profile CLUSTER a001",
            "run --profile CLUSTER a001 --wait",
            "run --profile CLUSTER a001 --restart-on lost,platform --restart-attempts 2",
        ),
    )
    it.add_argument("expid", metavar="EXPID", help="the experiment")
    _run_options(it)
    group = it.add_argument_group("run")
    group.add_argument("--start-time", metavar="TIME", help="wait until 'YYYY-MM-DD HH:MM:SS', by the machine's clock")
    group.add_argument("--start-after", metavar="EXPID", help="wait until this other experiment has completed")
    group.add_argument("--run-only-members", metavar="MEMBERS", help="run only these members, such as 'fc0 fc1'")
    group.add_argument("--update-version", action="store_true", help="set the experiment's Autosubmit version first")
    group.add_argument(
        "--restart-on", metavar="CAUSES", help="start it again after 'lost' (a reboot), 'platform', or both"
    )
    group.add_argument("--restart-attempts", type=positive, metavar="N", help="restarts at most (default 3)")

    it = builder.add(
        *(
            "Run experiments",
            "run-again",
            commands.run_again,
            "Run an experiment again, as its last run or a given one.",
        ),
        *(builder.scoped, builder.safety, builder.waiting),
        examples=("run-again a001 --first failed_to_waiting --dry-run", "run-again a001 --first recover --follow"),
    )
    it.add_argument("what", metavar=SEVERAL_RUNS, help=WHAT)
    _run_options(it)
    it.add_argument("--first", choices=("failed_to_waiting", "recover"), help="what is done before the run")
    it.add_argument("--update-version", action="store_true", help="set the experiment's Autosubmit version first")

    it = builder.add(
        *("Run experiments", "stop", commands.stop, "Stop an experiment, and wait for its end."),
        *(builder.scoped, builder.safety),
        examples=("stop a001", "stop a001 --cancel-jobs", "stop a001 --force --dry-run"),
    )
    it.add_argument("expid", metavar="EXPID", help="the experiment")
    it.add_argument("--force", action="store_true", help="end it at once (KILL)")
    it.add_argument("--cancel-jobs", action="store_true", help="also cancel the jobs that it has submitted")
    it.add_argument("--foreign", action="store_true", help="end a run that this service has not started")

    it = builder.add(
        *("Run experiments", "wait", commands.wait, "Wait for the end of a run."),
        *(builder.scoped, builder.waiting),
        more="The exit code shows the result. Exit code 124: the run has not ended within --timeout.",
        examples=("wait a001", "wait a001 --timeout 3600"),
    )
    it.add_argument("what", metavar=SEVERAL_RUNS, help=WHAT)
    it.add_argument("--timeout", type=seconds, metavar="SECONDS", help="wait no longer (default: without a limit)")


def _look(builder: Builder) -> None:
    it = builder.add(
        *("Look", "status", commands.status, "Show the state of an experiment's last run, or of a run."),
        *(builder.scoped, builder.waiting),
        more="Exit code 8: the run is ACTIVE. 9: ACTIVE is its last known state, and its machine has not confirmed it "
        "for an hour.",
        examples=("status a001", "status 4711 --json", "status a001 --watch"),
    )
    it.add_argument("what", metavar=SEVERAL_RUNS, help=WHAT)
    it.add_argument("--watch", action="store_true", help="wait for its end; the exit code shows the result")

    it = builder.add(
        *("Look", "log", logs.log, "Print the log of an experiment's last run, or of a run.", builder.scoped),
        examples=("log a001 --lines 50", "log a001 --follow", "log a001 --grep CRITICAL", "log 4711 > run.log"),
    )
    it.add_argument("what", metavar=SEVERAL_RUNS, help=WHAT)
    _log_options(it, "of the run; the exit code shows the result")

    it = builder.add(
        *("Look", "jobs", jobs.jobs, "List the jobs of an experiment, as they are now.", builder.scoped),
        more="With --profile, the experiment need not have been run here.",
        examples=("jobs a001 --counts", "jobs a001 --status FAILED,RUNNING", "jobs a001 --section SIM --json"),
    )
    it.add_argument("what", metavar=SEVERAL_RUNS, help=WHAT)
    group = it.add_argument_group("filters")
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
        group.add_argument(f"--{name}", help=words)
    it.add_argument("--limit", type=positive, default=100, metavar="N", help="maximum number (default %(default)s)")
    it.add_argument("--counts", action="store_true", help="print how many jobs have each status, and no jobs")

    it = builder.add(
        *("Look", "job-log", logs.job_log, "Print the log of a job: its standard error, or its standard output."),
        builder.scoped,
        examples=("job-log a001 a001_20000101_fc0_1_SIM", "job-log a001 a001_SIM --stream out --follow"),
    )
    it.add_argument("what", metavar=SEVERAL_RUNS, help=WHAT)
    it.add_argument("job", metavar="JOB", help="the name of the job")
    it.add_argument("--stream", choices=("err", "out"), default="err", help="err (default) or out")
    it.add_argument("--attempt", type=positive, metavar="N", help="number of the attempt (default: the last one)")
    _log_options(it, "of the job")

    it = builder.add(
        *("Look", "runs", commands.runs, "List runs, newest first."),
        examples=("runs --mine --status ACTIVE", "runs --expid a001 --limit 5 --json"),
    )
    group = it.add_argument_group("filters")
    group.add_argument("--mine", action="store_true", help="that I have started")
    for name, words in (
        ("expid", "of this experiment"),
        ("status", "ACTIVE, COMPLETED or TERMINATED"),
        ("reason", "that ended for this reason: stopped, failed, killed, lost, never_started or abandoned"),
        ("search", "with this number, this start of the expid, or this text in the description of the experiment"),
        ("profile-name", "started with this profile"),
        ("installation", "of this installation"),
        ("runner", "LOCAL or SSH"),
        ("host", "on this machine"),
        ("user", "of this account of a machine"),
        ("started-by", "that this person has started"),
        ("created-after", "ISO 8601, such as 2026-01-20T09:30:00Z"),
        ("created-before", "ISO 8601"),
    ):
        group.add_argument(f"--{name}", help=words)
    for name, words in (
        ("silent", "that print nothing for longer than their profile allows"),
        ("log-too-large", "whose log has passed the limit of the service"),
    ):
        group.add_argument(f"--{name}", action="store_const", const="true", help=words)
    it.add_argument("--oldest-first", action="store_true", help="list the oldest runs first")
    it.add_argument("--limit", type=positive, default=50, metavar="N", help="maximum number (default %(default)s)")

    it = builder.add(
        *("Look", "history", commands.history, "List the runs of an experiment: who, when, how long, how they ended."),
        examples=("history a001", "history a001 --limit 5 --json"),
    )
    it.add_argument("expid", metavar="EXPID", help="the experiment")
    it.add_argument("--limit", type=positive, default=20, metavar="N", help="maximum number (default %(default)s)")

    it = builder.add(
        *("Look", "profiles", commands.profiles, "List the profiles that you may use, or what one leaves open."),
        examples=("profiles", "profiles CLUSTER"),
    )
    it.add_argument("name", nargs="?", metavar="NAME", help="show the parameters that this profile leaves open")
    builder.add(
        *("Look", "check", commands.check, "Test a profile step by step.", builder.profiled),
        examples=("check --profile CLUSTER",),
    )


def _log_options(it: argparse.ArgumentParser, of_what: str) -> None:
    group = it.add_argument_group("log")
    group.add_argument("--follow", action="store_true", help=f"print until the end {of_what}")
    part = group.add_mutually_exclusive_group()
    part.add_argument("--lines", type=positive, metavar="N", help="begin with the last N lines")
    part.add_argument("--tail", type=positive, metavar="BYTES", help="begin with the last BYTES bytes (16 to 1000000)")
    part.add_argument(
        "--grep", metavar="TEXT", help="print only lines with this text, and their numbers; 1: none has it"
    )
    group.add_argument("--ignore-case", action="store_true", help="with --grep: capital and small letters are the same")


def _scripts_and_files(builder: Builder, found: Any) -> None:
    it = builder.add(
        *("Look", "scripts", commands.scripts, "List the generated scripts of an experiment's jobs, or print one."),
        builder.profiled,
        examples=("scripts --profile CLUSTER a001", "scripts --profile CLUSTER a001 a001_SIM.cmd"),
    )
    it.add_argument("expid", metavar="EXPID", help="the experiment")
    it.add_argument("name", nargs="?", metavar="NAME", help="print this script, such as a001_SIM.cmd")

    text = "Read and change the configuration files of an experiment."
    it = found.add_parser("config", description=text)
    it.set_defaults(parser=it)
    builder.listed.append(
        Listed("Configuration files", "config", f"{text} Actions: {', '.join(configuration.ACTIONS)}.")
    )
    configuration.add_actions(it, [builder.profiled, *builder._always])

    builder.add("More", "commands", list_commands, "List the commands of the service, those of your site included.")
    it = builder.add(
        *("More", "completion", completion.script, "Print the completion script of a shell."),
        examples=tuple(completion.SETUP.values()),
    )
    it.add_argument("shell", metavar="SHELL", choices=completion.SHELLS, help="bash, zsh or fish")
