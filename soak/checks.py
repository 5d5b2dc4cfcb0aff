"""The comparison of what the service said and stored with what really happened."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from soak import growth
from soak.faults import Damage, Done
from soak.growth import Samples
from soak.journal import Process
from soak.load import Attempt, Records
from soak.site import FRESHNESS, Message

SLACK = 2.0  # seconds between an end of a command and the time when its directory and the journal's observer show it
LOST_DATABASE = re.compile(r"OperationalError|InterfaceError|server closed the connection unexpectedly")
TRACEBACK = "Traceback (most recent call last)"
ENTRY = r"^(?=\[?\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)"
END_EVENTS = ("run.completed", "run.terminated", "run.never_started")


@dataclass
class Check:
    """`name`: what has to be true. `violations`: what was not, each with its ids. `remark`: what else was seen."""

    name: str
    checked: int = 0
    violations: list[str] = field(default_factory=list)
    remark: str = ""

    def expect(self, is_true: object, violation: str) -> None:
        self.checked += 1
        if not is_true:
            self.violations.append(violation)


@dataclass
class Facts:
    """Everything that is compared. Rows are dictionaries of the columns."""

    records: Records
    processes: list[Process]
    messages: list[Message]
    runs: dict[int, dict[str, Any]]
    operations: dict[int, dict[str, Any]]
    audit: list[dict[str, Any]]
    deliveries: list[dict[str, Any]]
    faults: list[Done]
    damage: Damage
    samples: Samples
    left_at_end: list[str]
    logs: dict[str, str]  # of the service, by what wrote them
    is_long: bool

    def __post_init__(self) -> None:
        self.starts: dict[str, list[Process]] = {}
        for process in self.processes:
            self.starts.setdefault(process.key, []).append(process)
        self.audit_of: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for record in self.audit:
            self.audit_of[record["request_id"] or ""].append(record)

    def starts_of(self, key: str) -> list[Process]:
        """Return the executions that the journals have for a run directory, oldest first."""
        return self.starts.get(key, [])

    def run_of(self, attempt: Attempt) -> dict[str, Any] | None:
        """Return the row of the run that an attempt has started or tried to start."""
        number = attempt.answer.get("runner_id") or attempt.answer.get("run_id")
        if number is None:
            number = next((each["run_id"] for each in self.audit_of[attempt.request_id] if each["run_id"]), None)
        return self.runs.get(int(number)) if number else None

    def was_database_down(self, begin: float, end: float) -> bool:
        kinds = ("PostgreSQL restarted", "PostgreSQL frozen", "database connections ended")
        return any(each.kind in kinds and each.begin - 1 < end and each.end + 15 > begin for each in self.faults)


def all_checks(facts: Facts) -> list[Check]:
    """Return all checks. One that had nothing to compare proves nothing, so it is a violation.

    Only in a short soak some checks may have nothing: see ALWAYS.
    """
    checks = []
    for compare in CHECKS:
        check = compare(facts)
        if not check.checked and not check.violations and (facts.is_long or compare in ALWAYS):
            check.violations.append("nothing was compared")
        checks.append(check)
    return checks


def _attempts(facts: Facts, command: str) -> Iterator[Attempt]:
    return (attempt for attempt in facts.records.attempts if attempt.command == command)


def started_runs(facts: Facts) -> Check:
    check = Check("a run that the API calls started has exactly one start in the journal")
    early = 0
    for attempt in _attempts(facts, "run-experiment"):
        if not attempt.succeeded:
            continue
        run = facts.run_of(attempt)
        number = len(facts.starts_of(run["key"])) if run else -1
        was_ended = run and (run["reason"] in ("stopped", "killed", "lost"))
        early += number == 0 and bool(was_ended)
        check.expect(
            number == 1 or (number == 0 and was_ended), f"{attempt.request_id}: {_of(run)} has {number} starts"
        )
    check.remark = f"{early} were ended by a signal before they wrote a line" if early else ""
    return check


def certainly_not_started(facts: Facts) -> Check:
    check = Check("after the answer that nothing was started, the request has no start in the journal")
    for attempt in _attempts(facts, "run-experiment"):
        if not attempt.is_certainly_not:
            continue
        own = [each["run_id"] for each in facts.audit_of[attempt.request_id] if each["run_id"]]
        # The record of a rejection names no run, or the run of this request; never that of another one.
        runs = [facts.runs[number] for number in own if number in facts.runs]
        starts = sum(len(facts.starts_of(run["key"])) for run in runs)
        check.expect(
            not starts, f"{attempt.request_id} ({attempt.code}): {[run['id'] for run in runs]}: {starts} starts"
        )
    return check


def processes_have_rows(facts: Facts) -> Check:
    check = Check("each process of a run or operation in the journal has its row, and no row has two")
    keys = {row["key"] for row in (*facts.runs.values(), *facts.operations.values())}
    for key, processes in facts.starts.items():
        if key != "-":
            who = f"{key} ({processes[0].command} {processes[0].expid})"
            check.expect(key in keys, f"{who} has no row")
            check.expect(len(processes) == 1, f"{who} was started {len(processes)} times")
    return check


def never_two_at_once(facts: Facts) -> Check:
    check = Check("an experiment never runs twice at the same time")
    by_expid: dict[str, list[Process]] = defaultdict(list)
    for process in facts.processes:
        if process.command == "run":
            by_expid[process.expid].append(process)
    for expid, processes in by_expid.items():
        processes.sort(key=lambda process: process.started)
        check.checked += 1
        for earlier, later in zip(processes, processes[1:], strict=False):
            if later.started < earlier.last_alive:
                check.violations.append(f"{expid}: {earlier.key} and {later.key}")
    return check


def keys_execute_once(facts: Facts) -> Check:
    check = Check("requests with one Idempotency-Key, repeated after lost answers, execute once")
    by_key: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in facts.records.attempts:
        if attempt.key:
            by_key[attempt.key].append(attempt)
    repeated = 0
    for key, attempts in by_key.items():
        first = attempts[0]
        repeated += len(attempts) > 1
        if first.command == "run-experiment":
            runs = {run["key"] for attempt in attempts if (run := facts.run_of(attempt)) and _is_own(attempt)}
            number = sum(len(facts.starts_of(each)) for each in runs)
        elif first.command in ("create-experiment", "set-job-status"):
            token = _token(first)
            number = sum(1 for process in facts.processes if token in process.words)
        elif first.command == "create-job-list":
            expid = first.request["expid"]
            number = sum(1 for process in facts.processes if (process.command, process.expid) == ("create", expid))
        else:
            continue
        check.expect(number <= 1, f"{key} ({first.command}): {number} executions")
    check.remark = f"{repeated} keys were used more than once"
    return check


def _is_own(attempt: Attempt) -> bool:
    """Return True if the run that the answer or the record names is the one of this request."""
    return attempt.code not in ("already_running", "foreign_run")


def _token(attempt: Attempt) -> str:
    params = attempt.request["command_params"]
    text = params.get("description") or params["job_names_list"][0]
    return str(text).split(" ")[-1]


def commands_executed(facts: Facts) -> Check:
    check = Check("a command within a request was executed once if it succeeded, and not if nothing was executed")
    for attempt in facts.records.attempts:
        if attempt.command in ("create-experiment", "set-job-status"):
            later = [each for each in facts.records.attempts if each.key == attempt.key]
            number = sum(1 for process in facts.processes if _token(attempt) in process.words)
            if attempt.succeeded:
                check.expect(number == 1, f"{attempt.request_id} succeeded: {number} executions")
            elif all(each.is_certainly_not for each in later):
                check.expect(number == 0, f"{attempt.request_id} ({attempt.code}): {number} executions")
    return check


def unknown_settles(facts: Facts) -> Check:
    check = Check("a start with unknown outcome settles, as the journal says")
    for attempt in _attempts(facts, "run-experiment"):
        if attempt.code in ("outcome_unknown", "command_timed_out") or (not attempt.is_answered and attempt.done):
            run = facts.run_of(attempt)
            if run is None:  # the request was lost before a row, or the row was deleted
                check.checked += 1
                continue
            starts = len(facts.starts_of(run["key"]))
            is_never = run["reason"] == "never_started"
            check.expect(
                run["status"] != "ACTIVE" and (starts == 0 if is_never else starts <= 1),
                f"{attempt.request_id}: {_of(run)}, {starts} starts",
            )
    return check


def rows_are_true(facts: Facts) -> Check:
    check = Check("each run is stored as it ended: never started, exit code, result")
    early = 0
    for run in facts.runs.values():
        starts = facts.starts_of(run["key"])
        check.checked += 1
        said = _of(run)
        if run["status"] == "ACTIVE":
            check.violations.append(f"{said} has not ended")
            continue
        if run["reason"] == "never_started":
            if starts:
                check.violations.append(f"{said} has {len(starts)} starts")
            continue
        if not starts:
            early += 1
            if run["reason"] not in ("stopped", "killed", "lost"):
                check.violations.append(f"{said} has no start")
            continue
        process = starts[0]
        if process.first_gone is None:
            check.violations.append(f"{said}, but its process {process.pid} lives")
        lost_code = run["key"] in facts.damage.supervisors
        if run["exit_code"] is None:
            if process.code is not None and not lost_code and run["reason"] != "stopped":
                check.violations.append(f"{said} has no exit code, the journal has {process.code}")
        elif process.code is not None and not run["signal"] and run["exit_code"] != process.code:
            check.violations.append(f"{said} has exit code {run['exit_code']}, the journal has {process.code}")
        if run["status"] == "COMPLETED" and process.code != 0:
            check.violations.append(f"{said}, but the journal has exit code {process.code}")
        if run["reason"] == "failed" and process.code == 0:
            check.violations.append(f"{said}, but the journal has exit code 0")
        if run["reason"] in ("killed", "lost") and run["key"] not in facts.damage.killed | facts.damage.supervisors:
            check.violations.append(f"{said}, but nobody has killed it; signal {run['signal']!r}")
    check.remark = f"{early} were ended before they wrote a line" if early else ""
    return check


def statuses_are_true(facts: Facts) -> Check:
    check = Check(f"each status is true at that moment (ACTIVE and reachable: it lived at most {FRESHNESS:g} s before)")
    unconfirmed = without = 0
    for seen in facts.records.seen:
        if seen.what != "status":
            continue
        if seen.status != 200:
            without += 1
            continue
        answer, run = seen.answer, facts.runs.get(seen.answer["runner_id"])
        check.checked += 1
        asked = facts.runs.get(seen.number)
        if run is None or asked is None or run["id"] < asked["id"] or run["expid"] != asked["expid"]:
            check.violations.append(f"run {seen.number}: the answer is of run {answer['runner_id']}")
            continue
        starts = facts.starts_of(run["key"])
        if not starts:
            continue
        process = starts[0]
        if answer["status"] == "ACTIVE":
            if not answer["reachable"]:
                unconfirmed += 1
            elif answer["pid"] and process.first_gone and process.first_gone < seen.sent - FRESHNESS - SLACK:
                late = seen.sent - process.first_gone
                check.violations.append(f"run {seen.number}: ACTIVE and reachable {late:.1f} s after its end")
            if answer["pid"] and answer["pid"] != process.pid:
                check.violations.append(f"run {seen.number}: pid {answer['pid']}, the journal has {process.pid}")
        else:
            if process.first_gone is None or process.last_alive > seen.done:
                check.violations.append(f"run {seen.number}: {answer['status']} ({answer['reason']}) while it lives")
            if answer["status"] == "COMPLETED" and process.code != 0:
                check.violations.append(f"run {seen.number}: COMPLETED, the journal has exit code {process.code}")
    check.remark = f"{unconfirmed} were marked as the last known state; {without} requests had no answer or an error"
    return check


def logs_are_whole(facts: Facts) -> Check:
    check = Check("a log that is called ended has its last line")
    for seen in facts.records.seen:
        run = facts.runs.get(seen.number)
        if seen.what == "log" and seen.status == 200 and run and seen.answer.get("ended"):
            starts = facts.starts_of(run["key"])
            # Only exit code 0 in the row proves that the run completed. A shell that TERM ends may write any code into
            # the journal. Without its supervisor, the row has no exit code.
            if starts and starts[0].code == 0 and run["exit_code"] == 0:
                check.expect(
                    "Run successful" in seen.answer["text"], f"run {seen.number}: {seen.answer['text'][-80:]!r}"
                )
    return check


def operations_are_true(facts: Facts) -> Check:
    check = Check("each operation settles, and its result is that of its process")
    for row in facts.operations.values():
        starts = facts.starts_of(row["key"])
        said = f"operation {row['id']} ({row['status']}, exit code {row['exit_code']})"
        check.expect(row["status"] != "running", f"{said} has not ended")
        if row["status"] == "succeeded":
            codes = [process.code for process in starts]  # the stand-in's `expid` replaces the trap that writes the end
            check.expect(codes in ([0], [None]), f"{said}: the exit codes in the journal are {codes}")
        elif row["status"] == "failed" and row["exit_code"] is None and not row["identity"]:
            check.expect(not starts, f"{said} was never started, but has {len(starts)} starts")
    return check


def stops_leave_nothing(facts: Facts) -> Check:
    check = Check("a stop that succeeded has left no process of the run")
    check.checked = facts.records.stops
    check.violations = [f"run {run} ({expid}): {pids}" for run, expid, pids in facts.records.left_after_stop]
    return check


def messages_are_complete(facts: Facts) -> Check:
    check = Check("each end of a run has one webhook-id per endpoint, and the message says what is stored")
    ids: dict[tuple[str, int, str], set[str]] = defaultdict(set)
    count: Counter[str] = Counter()
    for message in facts.messages:
        count[message.message_id] += 1
        number = message.body["data"].get("runner_id")
        if number is None:
            continue
        event = message.body["type"]
        ids[message.endpoint, number, event].add(message.message_id)
        run = facts.runs.get(number)
        if event not in END_EVENTS:
            continue
        if run is None:
            check.violations.append(f"{message.message_id}: there is no run {number}")
            continue
        for name in ("status", "reason", "exit_code"):
            if message.body["data"][name] != run[name]:
                told = message.body["data"][name]
                check.violations.append(f"{message.message_id}: run {number} has {name} {run[name]!r}, told {told!r}")
    for run in facts.runs.values():
        if run["status"] == "ACTIVE":
            continue
        for endpoint in ("a", "b"):
            found = {event: ids[endpoint, run["id"], event] for event in END_EVENTS}
            number = sum(len(each) for each in found.values())
            check.expect(number == 1, f"{_of(run)}: {number} webhook-ids at endpoint {endpoint}")
    waiting = [row for row in facts.deliveries if row["delivered_at"] is None]
    check.violations += [
        f"delivery {row['id']} ({row['event']}) was not delivered: {row['last_error']}" for row in waiting
    ]
    doubles = sum(number - 1 for number in count.values())
    failed = sum(1 for message in facts.messages if message.status != 204)
    check.remark = f"{len(facts.messages)} messages, {doubles} of them repeated; the receiver rejected {failed}"
    return check


def audit_is_complete(facts: Facts) -> Check:
    check = Check("each command has one audit record, with its outcome; none is under way")
    excused = 0
    for attempt in facts.records.attempts:
        found = facts.audit_of[attempt.request_id]
        said = f"{attempt.request_id} ({attempt.command}, {attempt.status} {attempt.code})"
        outcomes = [record["outcome"] for record in found]
        check.checked += 1
        if len(found) > 1:
            check.violations.append(f"{said}: {len(found)} records")
        if not attempt.is_answered:
            continue
        wanted = attempt.code or "ok"
        if attempt.is_replayed:
            wanted = outcomes[0] if outcomes and outcomes[0] == "replayed" else wanted
        if outcomes == [wanted]:
            continue
        # Without a database nothing can be stored. It is stored later, unless the process is ended before.
        if facts.was_database_down(attempt.sent, attempt.done) and outcomes in ([], ["interrupted"]):
            excused += 1
            continue
        check.violations.append(f"{said}: the record says {outcomes}")
    for record in facts.audit:
        if record["outcome"] == "under_way":
            check.violations.append(f"audit record {record['id']} ({record['endpoint']}) is still under way")
    check.remark = f"{excused} were lost or interrupted with the database" if excused else ""
    return check


def no_server_errors(facts: Facts) -> Check:
    check = Check("no answer is a 500, and no process of the service logs a traceback")
    for attempt in facts.records.attempts:
        check.expect(attempt.status != 500, f"{attempt.request_id}: 500")
    for seen in facts.records.seen:
        check.expect(
            seen.status not in (404, 500), f"{seen.what} {seen.number}: {seen.status} {seen.answer.get('code')}"
        )
    for path, status in facts.records.pages:
        check.expect(status not in (403, 404, 500), f"{path}: {status}")
    for what, text in facts.logs.items():
        entries = re.split(ENTRY, text, flags=re.MULTILINE)
        found = Counter(summary(entry) for entry in entries if TRACEBACK in entry and not tells_lost_database(entry))
        check.expect(not found, f"{what}: {found}")
    return check


def tells_lost_database(entry: str) -> bool:
    """Return True if the error is the loss of the database, and no request was answered with 500 because of it."""
    first = entry.split("\n")[0]
    is_lost = "ConnectorException" in entry or LOST_DATABASE.search(entry)
    return bool(is_lost) and "Internal Server Error" not in first


def summary(entry: str) -> str:
    """Return the first line of an entry of a log with a traceback, and the last ones."""
    lines = [line.strip() for line in entry.strip().split("\n")]
    return " | ".join([lines[0][:200], *lines[-3:]])[:600]


def nothing_is_left(facts: Facts) -> Check:
    check = Check("no process is left on the machines, and the soak itself had no error")
    check.checked = 2
    check.violations = facts.left_at_end + facts.records.bugs
    return check


def memory_is_flat(facts: Facts) -> Check:
    check = Check(
        f"memory, descriptors and threads of each process are flat after {growth.WARM_UP:g} s (linear fit over at "
        f"least {growth.SHORTEST:g} s)"
    )
    lines = []
    for (what, pid), samples in facts.samples.processes.items():
        begin = samples[0].when + growth.WARM_UP
        late = [sample for sample in samples if sample.when >= begin]
        if len(late) < 2 or late[-1].when - late[0].when < growth.SHORTEST:
            continue
        memory = growth.trend([(sample.when, sample.megabytes) for sample in late])
        files = growth.trend([(sample.when, float(sample.descriptors)) for sample in late])
        threads = growth.trend([(sample.when, float(sample.threads)) for sample in late])
        most = max(growth.MOST_MORE, growth.MOST_GROWTH * memory.first)
        line = (
            f"{what} ({pid}): {memory.first:.1f} to {memory.last:.1f} MB in {memory.seconds / 60:.1f} min "
            f"({memory.per_hour:+.1f} MB/h), descriptors {files.first:.0f} to {files.last:.0f} (at most "
            f"{max(sample.descriptors for sample in late)}), threads {threads.first:.0f} to {threads.last:.0f}"
        )
        lines.append(line)
        check.expect(memory.last - memory.first < most, line)
        check.expect(files.last - files.first < 10, line)
        check.expect(threads.last - threads.first < 10, line)
    if facts.is_long and not lines:
        check.violations.append("no process lived long enough to be judged")
    check.remark = "\n    ".join(["", *lines]) if lines else "no process lived long enough to be judged"
    return check


def tables_are_flat(facts: Facts) -> Check:
    check = Check("there are no more connections than threads, and the tables of tasks and of housekeeping do not grow")
    if facts.samples.connections:
        most = max(number for _, number in facts.samples.connections)
        check.expect(most < 90, f"{most:.0f} connections to PostgreSQL")
        check.remark = f"at most {most:.0f} connections"
        threads = dict(facts.samples.threads)
        for when, number in facts.samples.connections:
            check.expect(number <= threads.get(when, number), f"{number:.0f} connections, {threads.get(when)} threads")
        begin = facts.samples.connections[0][0] + growth.WARM_UP
        late = [point for point in facts.samples.connections if point[0] > begin]
        if late and late[-1][0] - late[0][0] > growth.SHORTEST:
            line = growth.trend(late)
            grown = line.last - line.first
            check.expect(grown < growth.MOST_MORE_CONNECTIONS, f"connections: {line.first:.0f} to {line.last:.0f}")
            check.remark += f", in the long run {line.first:.0f} to {line.last:.0f}"
    if facts.samples.tables:
        (_, first), (_, last) = facts.samples.tables[0], facts.samples.tables[-1]
        largest: Counter[str] = Counter()
        for _, rows in facts.samples.tables:
            for name, number in rows.items():
                largest[name] = max(largest[name], number)
        for name, number in last.items():
            if name not in growth.OF_PEOPLE:
                more = number - first.get(name, 0)
                check.expect(more <= growth.ROWS_OF_HOUSEKEEPING, f"{name}: {more} rows more")
        shown = [name for name in largest if name.startswith(("procrastinate_", "runners_")) and largest[name]]
        check.remark += "; rows at the end (at most): " + ", ".join(
            f"{name} {last.get(name, 0)} ({largest[name]})" for name in sorted(shown)
        )
    return check


def _of(run: dict[str, Any] | None) -> str:
    if run is None:
        return "no run"
    return f"run {run['id']} of {run['expid']} ({run['status']} {run['reason']}, exit code {run['exit_code']})"


CHECKS: list[Callable[[Facts], Check]] = [
    started_runs,
    certainly_not_started,
    unknown_settles,
    processes_have_rows,
    never_two_at_once,
    keys_execute_once,
    commands_executed,
    rows_are_true,
    statuses_are_true,
    logs_are_whole,
    operations_are_true,
    stops_leave_nothing,
    messages_are_complete,
    audit_is_complete,
    no_server_errors,
    nothing_is_left,
    memory_is_flat,
    tables_are_flat,
]
# A soak of half a minute has something for each of these.
ALWAYS = (
    *(started_runs, processes_have_rows, never_two_at_once, keys_execute_once, rows_are_true, statuses_are_true),
    *(messages_are_complete, audit_is_complete, no_server_errors, nothing_is_left),
)
# These need nothing that settles later.
CHECKS_DURING_LOAD = [
    started_runs,
    certainly_not_started,
    processes_have_rows,
    never_two_at_once,
    statuses_are_true,
    stops_leave_nothing,
]
