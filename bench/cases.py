"""The measurements. Each function takes the stage and returns a Result. Names and targets come from the design."""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from bench import bulkheads, viewers, workers
from bench.connections import address
from bench.fill import RUNS_OF_EACH, expid
from bench.floor import LOGIN_SHELL, SHELL, bare_client
from bench.measure import CONNECTIONS, alternate, cpu_seconds, requests_per_second
from bench.stage import COMMANDS, NO_LMOD, PROGRAMS, WORKERS, Stage
from tests.compat.client import Client
from tests.support import job_lists
from tests.support.processes import kill_all, wait_for
from tests.support.servers import SSHServer

# Print the median seconds of launches without HTTP and database.
LAUNCHES = """
import statistics, time
from profiles.models import RunnerProfile
from runners.models import new_run_key
from runners.services.machines.foreign_process import Search
from runners.services.machines.registry import get_runner
runner = get_runner(RunnerProfile.objects.get(name="LOCAL").resolve({}))
seconds = []
for number in range(%d):
    start = time.perf_counter()
    runner.launch(new_run_key(), "exec autosubmit run b000", timeout=60, unless_runs=Search("b000"))
    seconds.append(time.perf_counter() - start)
print(statistics.median(seconds))
"""
ROOT = Path(__file__).resolve().parent.parent
_numbers = count(1)
JOBS = 10_000


@dataclass(frozen=True)
class Result:
    """One line of the table. `reached`: True if the target was met; None if there is no target."""

    what: str
    ours: str
    reference: str
    ratio: str
    target: str
    reached: bool | None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Effort:
    """The size of the measurements.

    `calls` of each kind, `seconds` of load, `past` runs, `active` runs, short `commands`, `megabytes` of output,
    `targets` with one connection each, which stay idle for `idle` seconds, `shown` runs on dashboards that are open for
    `watching` seconds. The workers get `messages` for a receiver that answers at once and `slow_messages` for one that
    needs 1 s; they watch `watched` runs on `machines`, and as many for that many `accounts`.
    """

    calls: int = 40
    seconds: int = 4
    rounds: int = 7
    past: int = 1_000_000
    active: int = 500
    commands: int = 10_000
    megabytes: int = 2_000
    shown: int = 200
    watching: float = 20
    targets: int = 300
    idle: int = 10
    messages: int = 2_000
    slow_messages: int = 100
    machines: int = 60
    accounts: int = 300
    watched: int = 10_000


def new_expid() -> str:
    return f"b{next(_numbers):04x}"


def post(client: Client, command: str, body: Mapping[str, object], expected: int = 200) -> float:
    """Return the seconds that a command took."""
    reply = client.post(COMMANDS + command, body)
    assert reply.status == expected, (command, body, reply)
    return reply.seconds


def run(client: Client, profile: str) -> float:
    return post(client, "run-experiment", {"expid": new_expid(), "profile_name": profile, "profile_params": {}})


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def run_ssh(stage: Stage, effort: Effort) -> Result:
    result = _run(stage, effort, "SSH", "run-experiment over SSH, warm, median", 1 / 8, "<= 1/8")
    return replace(result, notes=[_floor(stage, effort)])


def _floor(stage: Stage, effort: Effort) -> str:
    """Return a sentence about what a run over SSH costs at least, and what this service adds."""
    ours, _ = stage.clients()
    with bare_client(stage.sshd) as client:
        calls: dict[str, Callable[[int], float]] = {
            "shell": lambda _: client.seconds(SHELL),
            "login": lambda _: client.seconds(LOGIN_SHELL),
        }
        got = alternate(calls, effort.calls)
    pids, count = stage.ours.worker_pids, max(20, effort.calls)
    used = cpu_seconds(pids)
    for _ in range(count):
        run(ours, "SSH")
    used = cpu_seconds(pids) - used
    stage.end_runs()
    return (
        f"run-experiment over SSH: a bare client with a kept connection waits {milliseconds(got['shell'])} for the "
        f"output of `echo`, the time of sshd and the shell, and {milliseconds(got['login'])} in a login shell. "
        f"Our server processes need {milliseconds(used / count)} of processor time for a run, its probes included."
    )


def run_local(stage: Stage, effort: Effort) -> Result:
    result = _run(stage, effort, "LOCAL", "run-experiment LOCAL, median", 1 / 2, "<= 1/2")
    return replace(result, notes=[_local_floor(stage, effort)])


def _local_floor(stage: Stage, effort: Effort) -> str:
    """Return a sentence about what a LOCAL run costs without HTTP and database, and what its shells cost alone."""
    environment = stage.ours.environment
    count = max(20, effort.calls)

    def shell(option: str) -> Callable[[int], float]:
        def seconds(_: int) -> float:
            start = time.perf_counter()
            subprocess.run(["bash", option, ":"], env=environment, check=True)
            return time.perf_counter() - start

        return seconds

    shells = alternate({"plain": shell("-c"), "login": shell("-lc")}, count)
    launch = float(stage.ours.manage("shell", "-v0", "-c", LAUNCHES % count))
    stage.end_runs()
    return (
        f"run-experiment LOCAL: the launch alone, without HTTP and database, takes {milliseconds(launch)}: the shell "
        "that reads the script, a search of /proc for the same experiment outside of this service, the run directory, "
        f"and the login shell of the command. A `bash` that does nothing takes {milliseconds(shells['plain'])}, one "
        f"with the profiles of a login shell {milliseconds(shells['login'])}."
    )


def _run(stage: Stage, effort: Effort, profile: str, what: str, limit: float, target: str) -> Result:
    stage.run_seconds(300)
    ours, reference = stage.clients()
    calls = {"ours": lambda _: run(ours, profile), "reference": lambda _: run(reference, profile)}
    got = alternate(calls, effort.calls, between=stage.end_runs)
    ratio = got["ours"] / got["reference"]
    return Result(
        what, milliseconds(got["ours"]), milliseconds(got["reference"]), fraction(ratio), target, ratio <= limit
    )


def fraction(ratio: float) -> str:
    return f"1/{1 / ratio:.1f}" if ratio < 0.9 else f"{ratio:.2f}"


def set_job_status_ssh(stage: Stage, effort: Effort) -> Result:
    """Measure our overhead: the time beyond the same command, executed by hand in a login shell of the same account."""
    ours, reference = stage.clients()
    body = {
        "expid": "b000",
        "profile_name": "SSH",
        "profile_params": {},
        "command_params": {"final_status": "READY", "job_names_list": ["b000_SIM"]},
    }
    environment = {"HOME": str(stage.home), "PATH": os.defpath, **NO_LMOD}
    argv = ["bash", "-lc", "exec autosubmit setstatus b000 --save -np --status_final=READY --list=b000_SIM"]

    def by_hand(_: int) -> float:
        start = time.perf_counter()
        subprocess.run(argv, env=environment, cwd=stage.home, stdin=subprocess.DEVNULL, capture_output=True, check=True)
        return time.perf_counter() - start

    calls: dict[str, Callable[[int], float]] = {
        "ours": lambda _: post(ours, "set-job-status", body),
        "hand": by_hand,
        "reference": lambda _: post(reference, "set-job-status", body),
    }
    got = alternate(calls, effort.calls)
    overhead, its_overhead = got["ours"] - got["hand"], got["reference"] - got["hand"]
    ratio = overhead / got["reference"]
    notes = [
        f"set-job-status: in total {milliseconds(got['ours'])} against {milliseconds(got['reference'])}; the bare "
        f"command in its login shell takes {milliseconds(got['hand'])}. Overhead against overhead (as if the reference "
        f"used a login shell, too, which it does not): {fraction(overhead / its_overhead)}."
    ]
    what = "set-job-status over SSH, warm, beyond the bare command, median"
    return Result(
        what,
        milliseconds(overhead),
        milliseconds(got["reference"]) + " in total",
        fraction(ratio),
        "<= 1/12",
        ratio <= 1 / 12,
        notes,
    )


def status_rate(stage: Stage, effort: Effort) -> Result:
    """Request the status of an active run from both services. Then kill its process and compare the answers."""
    stage.run_seconds(300)
    ours, reference = stage.clients()
    name = new_expid()
    expids = {"ours": name, "reference": name + "r"}
    for client, each in ((ours, expids["ours"]), (reference, expids["reference"])):
        post(client, "run-experiment", {"expid": each, "profile_name": "SSH", "profile_params": {}})
    path = COMMANDS + "get-runner-run-status"
    sides = {
        "ours": (stage.ours.port, stage.headers()),
        "reference": (stage.reference.port, stage.reference_headers),
    }
    rates: dict[str, list[float]] = {"ours": [], "reference": []}
    used: dict[str, list[float]] = {"ours": [], "reference": []}  # CPU seconds of the server for one status
    pids = {"ours": stage.ours.worker_pids, "reference": stage.reference.worker_pids}
    for _ in range(effort.rounds):
        for side, (port, headers) in sides.items():
            body = json.dumps({"expid": expids[side]})
            before = cpu_seconds(pids[side])
            rate = requests_per_second(stage.folder, port, path, body, seconds=effort.seconds, headers=headers)
            rates[side].append(rate.per_second)
            used[side].append((cpu_seconds(pids[side]) - before) / (rate.per_second * effort.seconds))
    got = {side: statistics.median(values) for side, values in rates.items()}
    answer = ours.post(path, {"expid": expids["ours"]}).body
    assert answer["status"] == "ACTIVE" and answer["reachable"], answer
    cpu = {side: statistics.median(values) for side, values in used.items()}
    notes = [
        _truth(ours, reference, path, expids),
        f"get-runner-run-status: processor time of the server for one status, which depends less on the load of the "
        f"machine: {cpu['ours'] * 1000:.2f} ms, the reference {cpu['reference'] * 1000:.2f} ms "
        f"({cpu['reference'] / cpu['ours']:.1f} times as much). {_server_alone(stage, effort)}",
    ]
    stage.end_runs()
    ratio = got["ours"] / got["reference"]
    return Result(
        f"get-runner-run-status, {CONNECTIONS} connections, {WORKERS} workers",
        f"{got['ours']:.0f}/s",
        f"{got['reference']:.0f}/s",
        f"{ratio:.1f}",
        ">= 6",
        ratio >= 6,
        notes,
    )


def _server_alone(stage: Stage, effort: Effort) -> str:
    """Return a sentence about the processor time of the server itself: with an application that does nothing."""
    with stage.constant() as server:
        path, body = "/bench/constant", json.dumps({"expid": "b000"})
        requests_per_second(stage.folder, server.port, path, body, seconds=1, headers=stage.headers())
        before = cpu_seconds(server.worker_pids)
        rate = requests_per_second(
            stage.folder, server.port, path, body, seconds=effort.seconds, headers=stage.headers()
        )
        used = (cpu_seconds(server.worker_pids) - before) / (rate.per_second * effort.seconds)
    return (
        f"Of ours, gunicorn takes {used * 1000:.2f} ms: with an application that sends a constant of the same length, "
        f"it answers {rate.per_second:.0f}/s."
    )


def _truth(ours: Client, reference: Client, path: str, expids: dict[str, str]) -> str:
    """Kill both runs' processes. Return a sentence about the answers, and how soon ours was correct."""
    asked = ((ours, expids["ours"]), (reference, expids["reference"]))
    kill_all([client.post(path, {"expid": each}).body["pid"] for client, each in asked])
    start = time.monotonic()
    wait_for(lambda: ours.post(path, {"expid": expids["ours"]}).body["status"] != "ACTIVE", 20, what="the truth")
    seconds = time.monotonic() - start
    answer = ours.post(path, {"expid": expids["ours"]}).body
    other = reference.post(path, {"expid": expids["reference"]}).body["status"]
    return (
        f"get-runner-run-status: after the killing of the run's process ours answers {answer['status']} "
        f"({answer['reason']}, {answer['signal']}) after {seconds:.1f} s; the reference at that moment: {other}."
    )


def watch(stage: Stage, effort: Effort) -> Result:
    """Watch `effort.active` real detached processes. Count the commands that sshd executes in each cycle."""
    stage.run_seconds(300)
    server = stage.another("watched")
    with server:
        clients = [stage.client(server, person) for person in range(4)]
        with ThreadPoolExecutor(len(clients)) as pool:
            per_client = effort.active // len(clients)
            list(pool.map(lambda client: [run(client, "SSH") for _ in range(per_client)], clients))
    before = _sessions(stage)
    cycles = 5
    output = _in_environment(server.environment, "bench.cycle", str(cycles))
    got = json.loads(output)
    after = wait_for(lambda: _sessions(stage) if _sessions(stage) >= before + cycles else 0, 5, what="sshd's log")
    stage.end_runs()
    trips = (after - before) / cycles
    assert got["confirmed"] == got["runs"] == per_client * len(clients), got
    return Result(
        f"watching {got['runs']} active runs on one host, per cycle",
        f"{trips:g} round trip, {milliseconds(statistics.median(got['seconds']))}",
        "does not",
        "",
        "1 round trip",
        trips == 1,
    )


def shared_connections(stage: Stage, effort: Effort) -> Result:
    """Run short commands, 30 at once, and then much output, over the few shared connections to a healthy sshd."""
    server = stage.another("commands")
    before = stage.sshd.connection_count()
    words = (stage.sshd.port, stage.sshd.user, effort.commands, effort.megabytes)
    got = json.loads(_in_environment(server.environment, "bench.commands", *map(str, words)))
    connections = stage.sshd.connection_count() - before
    short, long = got["seconds"]
    return Result(
        f"{effort.commands:,} short commands, 30 at once, and {effort.megabytes:,} MB of output, over {connections} "
        "shared connections",
        f"{got['bad']} of {got['good'] + got['bad']:,} lost or unknown; {effort.commands / short:.0f} commands/s, "
        f"{effort.megabytes / long:.0f} MB/s",
        "not measured",
        "",
        "none lost",
        got["bad"] == 0,
        [f"Lost commands: {got['errors']}."] if got["bad"] else [],
    )


def many_targets(stage: Stage, effort: Effort) -> Result:
    """Connect to `effort.targets` targets: one real sshd with that many addresses."""
    count = effort.targets
    options = {"ListenAddress": "0.0.0.0"}  # noqa: S104  (with keys of its own, for some seconds)
    with SSHServer(stage.folder / "many", home=stage.home, options=options) as sshd:
        line = sshd.known_hosts.read_text()
        lines = (line.replace("127.0.0.1", address(number)) for number in range(count))
        sshd.known_hosts.write_text("".join(lines))
        environment = {**stage.another("many-service").environment, **sshd.environment}
        words = (sshd.port, sshd.user, count, effort.idle)
        got = json.loads(_in_environment(environment, "bench.connections", *map(str, words)))
        logins = sshd.connection_count()
    return Result(
        f"{count} SSH connections of one process, idle, and with a command on each",
        f"{got['megabytes']:.0f} MB, {got['idle'] / effort.idle:.1%} of a core when idle; a command: "
        f"{got['probed'] / count * 1000:.1f} ms of a core, {logins - count} new logins",
        "not measured",
        "",
        "no new login",
        logins == count,
    )


def bad_machine(stage: Stage, effort: Effort) -> Result:
    """Measure the effect of 40 users of a frozen machine on everybody else's statuses."""
    window, users = 3 * effort.seconds, 40
    with bulkheads.machine_and_server(stage, "bulkheads") as (machine, server):
        alone = bulkheads.notice(stage, server, machine, bulkheads.healthy, 0, window)
        healthy = bulkheads.notice(stage, server, machine, bulkheads.healthy, users, window)
        server.restart()  # so that no connection to the machine is open when it freezes for the first time
        frozen = bulkheads.notice(stage, server, machine, bulkheads.frozen, users, window)
    ratio = frozen.status / alone.status
    notes = []
    for words, got in (("without users of the machine", alone), ("healthy", healthy), ("frozen", frozen)):
        answers = ", ".join(f"{count} x {status}" for status, count in sorted(got.answers.items())) or "none"
        others = "; ".join(f"{what} {milliseconds(got.p95(what))}" for what in got.seconds)
        notes.append(
            f"The machine {words}, p95: status {milliseconds(got.status)}; {others}. Its users' answers: {answers}. "
            f"LOCAL runs refused (503): {got.refused}."
        )
    return Result(
        f"get-runner-run-status, {bulkheads.STATUS_CONNECTIONS} connections, {users} people use a frozen machine: p95, "
        "against the p95 without them",
        f"{milliseconds(frozen.status)} against {milliseconds(alone.status)}",
        "not measured",
        f"{ratio:.1f} (ours)",
        "<= 2",
        ratio <= 2,
        notes,
    )


def _sessions(stage: Stage) -> int:
    return stage.sshd.log.read_text(errors="replace").count("Starting session: command")


def _in_environment(environment: dict[str, str], module: str, *args: str) -> str:
    argv = [sys.executable, "-m", module, *args]
    done = subprocess.run(argv, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def past_runs(stage: Stage, effort: Effort) -> Result:
    """Measure the status of an experiment with 100 past runs among a million, and with one run in an empty table."""
    empty, full = stage.another("empty"), stage.another("full")
    _in_environment(empty.environment, "bench.fill", "1")
    _in_environment(full.environment, "bench.fill", str(effort.past))
    with empty, full:
        one, many = stage.client(empty), stage.client(full)
        path = COMMANDS + "get-runner-run-status"
        experiments = max(1, effort.past // RUNS_OF_EACH)
        calls = {
            "empty": lambda _: one.post(path, {"expid": expid(0)}).seconds,
            "full": lambda number: many.post(path, {"expid": expid(number * 7919 % experiments)}).seconds,
        }
        assert many.post(path, {"expid": expid(0)}).status == 200
        got = alternate(calls, effort.calls * 25)
    ratio = got["full"] / got["empty"]
    return Result(
        f"get-runner-run-status with {effort.past:,} past runs against an empty table, median",
        f"{got['full'] * 1000:.2f} ms against {got['empty'] * 1000:.2f} ms",
        "not measured",
        f"{ratio:.2f} (ours)",
        "<= 1.2",
        ratio <= 1.2,
    )


def simultaneous(stage: Stage, effort: Effort) -> Result:
    """Send 50 simultaneous requests for one experiment to 4 server processes. Then count the processes of the run."""
    stage.run_seconds(20)
    server = stage.another("crowd", workers=4)
    with server:
        ours = _crowd(stage, [stage.client(server, person) for person in range(50)], "LOCAL")
        over_ssh = _crowd(stage, [stage.client(server, person) for person in range(50)], "SSH")
    reference = _crowd(stage, [stage.clients()[1] for _ in range(50)], "LOCAL")
    # 503: above the limit of concurrent commands of one process.
    good = re.compile(r"1 started, 49 refused \((409|409/503)\), 1 process")
    exactly_one = bool(good.fullmatch(ours) and good.fullmatch(over_ssh))
    notes = [f"50 simultaneous run-experiment: LOCAL {ours}; SSH {over_ssh}; the reference LOCAL {reference}."]
    return Result(
        "50 simultaneous run-experiment of one experiment, 4 server processes",
        ours if exactly_one else f"LOCAL {ours}; SSH {over_ssh}",
        f"{reference} ({WORKERS} processes)",
        "",
        "exactly one run",
        exactly_one,
        notes,
    )


def _crowd(stage: Stage, clients: list[Client], profile: str) -> str:
    name = new_expid()
    barrier = threading.Barrier(len(clients))

    def ask(client: Client) -> int:
        client.get("/v4/runners/configuration/endpoints")  # connect first, so that the requests themselves coincide
        barrier.wait()
        body = {"expid": name, "profile_name": profile, "profile_params": {}}
        return client.post(COMMANDS + "run-experiment", body).status

    with ThreadPoolExecutor(len(clients)) as pool:
        statuses = list(pool.map(ask, clients))
    time.sleep(0.5)  # until the last run that was started has a process
    processes = len(stage.processes())
    stage.end_runs()
    refused = [status for status in statuses if status != 200]
    codes = "/".join(str(code) for code in sorted(set(refused)))
    started = statuses.count(200)
    return f"{started} started, {len(refused)} refused ({codes}), {processes} process{'es' if processes != 1 else ''}"


def dashboards(stage: Stage, effort: Effort) -> Result:
    """Measure 10 and then 100 open dashboards of the same runs."""
    stage.run_seconds(600)
    with stage.another("dashboards") as server:
        viewers.start_runs(stage.client(server), [new_expid() for _ in range(effort.shown)])
        loads = {}
        for count in (10, 100):
            polls = [viewers.dashboard(server.port, key) for key in viewers.sessions(server, count)]
            loads[count] = viewers.measure(server, stage.sshd.log, polls, effort.watching)
    stage.end_runs()
    ten, hundred = loads[10], loads[100]
    return Result(
        f"100 dashboards of {effort.shown} active runs, polled every {viewers.LIST:g} s",
        hundred.words(),
        "has none",
        "",
        "< 10 % of a core",
        hundred.core < 0.1,
        [f"10 dashboards of {effort.shown} active runs: {ten.words()}."],
    )


def log_viewers(stage: Stage, effort: Effort) -> Result:
    """Measure 50 viewers of one growing log."""
    stage.run_seconds(600)
    with stage.another("logs") as server:
        name = new_expid()
        (number,) = viewers.start_runs(stage.client(server), [name])
        log = max((stage.home / ".autosubmit-runners").glob("*/log"), key=lambda each: each.stat().st_mtime_ns)
        polls = [viewers.log_viewer(server.port, key, number) for key in viewers.sessions(server, 50)]
        is_over = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(_grow, log, is_over)
            load = viewers.measure(server, stage.sshd.log, polls, effort.watching)
            is_over.set()
    stage.end_runs()
    return Result(
        f"50 viewers of one growing log, {WORKERS} workers",
        load.words(),
        "has none",
        "",
        f"<= {2 * WORKERS} SSH commands/s",
        load.commands <= 2 * WORKERS,
    )


def job_list(stage: Stage, effort: Effort) -> Result:
    """Ask for the counts and a page of 100 of 10,000 jobs over SSH. Each answer is read from the machine anew."""
    stage.run_seconds(600)
    env = {"RUNNERS_STATUS_FRESHNESS": "0.001"}
    with stage.another("jobs", env=env) as server:
        name = new_expid()
        (number,) = viewers.start_runs(stage.client(server), [name])
        size = _write_jobs(stage.home, name, JOBS)
        client = stage.client(server)
        path = f"/v4/runners/runs/{number}/jobs"
        seconds = []
        for page in range(effort.calls):
            reply = client.get(f"{path}?page_size=100&status=FAILED&ordering={'-' * (page % 2)}name")
            assert reply.status == 200 and reply.body["total"] == JOBS and len(reply.body["results"]) == 100, reply
            seconds.append(reply.seconds)
    stage.end_runs()
    middle = statistics.median(seconds)
    return Result(
        f"counts and a page of 100 out of {JOBS:,} jobs ({size / 1e6:.0f} MB) over SSH, warm, median",
        milliseconds(middle),
        "has none",
        "",
        "<= 500 ms",
        middle <= 0.5,
        [f"The slowest of {effort.calls} pages of jobs took {milliseconds(max(seconds))}."],
    )


def _write_jobs(home: Path, expid: str, count: int) -> int:
    """Write a job list as large as one of Autosubmit 4.1.17.1, and its history. Return the bytes of the job list."""
    # A job of 4.1.17.1 has about 95 values, most of them empty, and needs 2 kB in the file.
    padding = {f"_value_{number}": None for number in range(70)} | {"_script": "x" * 700}
    names = [f"{expid}_20000101_fc{number % 10}_{number}_SIM" for number in range(count)]
    jobs = [
        job_lists.job(name, "FAILED" if number % 8 == 0 else "COMPLETED", id=number + 1, **padding)
        for number, name in enumerate(names)
    ]
    job_lists.history(home, expid, [job_lists.row(name, job_id=number + 1) for number, name in enumerate(names)])
    return job_lists.write(home, expid, jobs).stat().st_size


def _grow(log: Path, is_over: threading.Event) -> None:
    while not is_over.wait(0.1):
        with log.open("a") as stream:
            stream.write("one line more\n")


def watched_machines(stage: Stage, effort: Effort) -> Result:
    """Watch many runs on machines of which some are down and some slow, with two workers. Then one is killed."""
    return _watched("watch", effort.machines, effort.watched)


def watched_accounts(stage: Stage, effort: Effort) -> Result:
    """Watch runs of many accounts: each one is a login of its own."""
    return _watched("accounts", effort.accounts, effort.watched)


def _watched(what: str, machines: int, runs: int) -> Result:
    got = _workers(what, "--machines", machines, "--runs", runs)
    delay, later = (workers.p95(got[name]) for name in ("delays", "delays_after_kill"))
    limit = 2 * workers.INTERVAL
    where = (
        f"{machines} accounts" if what == "accounts" else f"{machines} machines, {got['down']} down, {got['slow']} slow"
    )
    return Result(
        f"{runs:,} active runs, {where}, two workers, interval {workers.INTERVAL:g} s: until an end is known, p95",
        f"{delay:.1f} s; {later:.1f} s with one worker killed, replaced after {got['takeover']:.1f} s",
        "does not",
        "",
        f"<= {limit:g} s",
        max(delay, later, got["takeover"]) <= limit,
        [f"{where.capitalize()}: cores used: {got['cores']}; load {got['load']:.1f}."],
    )


def webhooks(stage: Stage, effort: Effort) -> Result:
    """Deliver many messages to a receiver that answers at once, and some to one that needs 1 s."""
    got = _workers("webhooks", "--messages", effort.messages, "--slow-messages", effort.slow_messages)
    slow = got["slow_pace"] * 2000
    what = f"{effort.messages:,} webhooks to an instant receiver, {effort.slow_messages:,} to one that needs 1 s"
    return Result(
        what,
        f"{got['instant']:.0f} s; {got['slow']:.0f} s, at a pace of {slow:.0f} s for 2,000",
        "has none",
        "",
        "<= 60 s; <= 600 s for 2,000",
        got["instant"] <= 60 and slow <= 600,
    )


def _workers(*words: object) -> dict[str, Any]:
    """Return what `python -m bench.workers` has measured."""
    answer: dict[str, Any] = json.loads(_in_environment(dict(os.environ), "bench.workers", *map(str, words)))
    return answer


CASES: dict[str, Callable[[Stage, Effort], Result]] = {
    "run-ssh": run_ssh,
    "set-job-status": set_job_status_ssh,
    "run-local": run_local,
    "status": status_rate,
    "watch": watch,
    "commands": shared_connections,
    "connections": many_targets,
    "bad-machine": bad_machine,
    "past-runs": past_runs,
    "simultaneous": simultaneous,
    "dashboards": dashboards,
    "log-viewers": log_viewers,
    "jobs": job_list,
    "machines": watched_machines,
    "accounts": watched_accounts,
    "webhooks": webhooks,
}
assert PROGRAMS.is_dir()
