"""`python -m soak --minutes N --seed TEXT --report FILE --keep FOLDER`. Exit code 1 if something was not true."""

from __future__ import annotations

import argparse
import os
import pickle
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from soak import faults, growth
from soak.checks import CHECKS_DURING_LOAD, END_EVENTS, Check, Facts, all_checks
from soak.faults import Faults
from soak.load import Records, start_users
from soak.site import Site

USERS = 6
PROGRESS = 30.0  # seconds between two lines about the progress
SETTLED_WITHIN = 240.0  # seconds after the last fault in which everything has to settle
GOES_ON = {  # queries that count what has not settled yet
    "active runs": "SELECT count(*) AS number FROM runners_runnerrun WHERE status = 'ACTIVE'",
    "operations": "SELECT count(*) AS number FROM runners_operation WHERE status = 'running'",
    "messages": "SELECT count(*) AS number FROM runners_webhookdelivery WHERE delivered_at IS NULL",
    "audit records": "SELECT count(*) AS number FROM runners_auditrecord WHERE outcome = 'under_way'",
}


def say(words: str) -> None:
    sys.stderr.write(f"{datetime.now(UTC):%H:%M:%S} {words}\n")
    sys.stderr.flush()


class Looks(threading.Thread):
    """Compares what was seen so far with the journal, again and again during the load."""

    def __init__(self, soak: Soak) -> None:
        super().__init__(name="looks", daemon=True)
        self._soak, self._enough = soak, threading.Event()
        self.count = 0
        self.violations: list[str] = []

    def run(self) -> None:
        while not self._enough.wait(PROGRESS):
            all_records = self._soak.records
            records = replace(
                all_records,
                attempts=[attempt for attempt in list(all_records.attempts) if attempt.done],
                seen=list(all_records.seen),
            )
            if self._enough.wait(5):  # the journal is as new as the answers
                return
            with suppress(psycopg.Error):
                facts = self._soak.facts([], records)
                self.count += 1
                found = [each for check in CHECKS_DURING_LOAD for each in check(facts).violations]
                for violation in found:
                    if violation not in self.violations:
                        self.violations.append(violation)
                        say(f"VIOLATION: {violation}")

    def close(self) -> None:
        self._enough.set()
        self.join()


def ended_early(threads: Iterable[threading.Thread]) -> list[str]:
    """Return a sentence for each thread of the soak that an error has ended: what it compares was compared no more."""
    return [f"the soak's thread {thread.name} has ended early" for thread in threads if not thread.is_alive()]


class Soak:
    """One soak on a site that has started."""

    def __init__(self, site: Site, seed: str, seconds: float) -> None:
        self.site, self.seconds = site, seconds
        self.records, self.enough = Records(), threading.Event()
        self.faults = Faults(site)
        # The last part of the load is without faults, so that the ends of the last runs are seen undisturbed.
        self.planned = faults.schedule(seed, 0.85 * seconds)
        self.sampler = growth.Sampler(site)
        self.started_again: Counter[str] = Counter()
        self.broken: list[str] = []  # what the soak itself could not do
        self.begin = time.monotonic()
        self.users = start_users(site, seed, USERS, self.records, self.enough)
        self.looks = Looks(self)
        self.looks.start()
        self.sampler.start()

    def run(self) -> None:
        waiting = list(self.planned)
        progress, repair = self.begin + PROGRESS, self.begin
        while (now := time.monotonic()) < self.begin + self.seconds:
            self.faults.end_those_over()
            for planned in [each for each in waiting if self.begin + each.at <= now]:
                if not self.faults.is_under_way(planned.target):
                    waiting.remove(planned)
                    self.faults.begin(planned)
            if now > repair:
                self.restart()
                repair = now + 1
            if now > progress:
                self.show()
                progress += PROGRESS
            time.sleep(0.05)
        self.faults.end_those_over(everything=True)
        self.site.receiver.failures = 0.0

    def restart(self) -> None:
        """Start what has ended by itself, as systemd does."""
        if not self.faults.down:
            self.started_again.update(self.site.restart_what_has_ended())

    def show(self) -> None:
        records = self.records
        answers = Counter(str(attempt.status) for attempt in records.attempts if attempt.done)
        seen = ", ".join(f"{number} x {status}" for status, number in sorted(answers.items()))
        say(f"{len(records.attempts)} commands ({seen}), {len(records.seen)} looks, {len(self.faults.done)} faults")

    def settle(self) -> dict[str, int]:
        """Wait until nothing goes on any more. Return what still does."""
        self.broken += ended_early([*self.users, self.looks, self.sampler, self.site.journal.thread])
        self.enough.set()
        self.looks.close()
        deadline = time.monotonic() + SETTLED_WITHIN
        left: dict[str, int] = {}
        while time.monotonic() < deadline:
            self.restart()
            with suppress(psycopg.Error):
                left = {name: self.site.query(query)[0]["number"] for name, query in GOES_ON.items()}
                left["users"] = sum(user.is_alive() for user in self.users)
                if not any(left.values()):
                    break
            time.sleep(0.5)
        self.broken += ended_early([self.sampler, self.site.journal.thread] if not self.broken else [])
        self.sampler.close()
        return {name: number for name, number in left.items() if number}

    def stop(self) -> list[str]:
        """Stop the nodes. Return what is left on the machines."""
        for node in self.site.nodes.values():
            node.stop()
        deadline = time.monotonic() + 20
        while (left := self.site.command_processes()) and time.monotonic() < deadline:
            time.sleep(0.2)
        found = []
        for pid in left:
            with suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found.append(f"process {pid}: {words[:200]}")
        return found

    def facts(self, left: list[str], records: Records | None = None) -> Facts:
        """Return what is known. `records`: what the users had seen some seconds ago. Raises psycopg.Error."""
        processes = self.site.journal.processes()  # before the rows: a process has a row first

        def rows(table: str) -> list[dict[str, Any]]:
            return self.site.query(f"SELECT * FROM {table} ORDER BY id")

        logs = {}
        for node in self.site.nodes.values():
            logs[f"server {node.name}"] = node.app.log_text()
            logs[f"worker {node.name}"] = node.worker_log.read_text(errors="replace")
        return Facts(
            records=records or self.records,
            processes=processes,
            messages=list(self.site.receiver.messages),
            runs={row["id"]: row for row in rows("runners_runnerrun")},
            operations={row["id"]: row for row in rows("runners_operation")},
            audit=rows("runners_auditrecord"),
            deliveries=rows("runners_webhookdelivery"),
            faults=self.faults.done,
            damage=self.faults.damage,
            samples=self.sampler.samples,
            left_at_end=left + self.faults.failed + self.looks.violations + self.broken,
            logs=logs,
            is_long=self.seconds >= 20 * 60,
        )


def report(soak: Soak, facts: Facts, checks: list[Check], seed: str, load: str) -> str:
    records = soak.records
    answers = Counter(f"{attempt.command} {attempt.status} {attempt.code}".strip() for attempt in records.attempts)
    ends = Counter(f"{run['status']} {run['reason']}".strip() for run in facts.runs.values())
    lines = [
        f"Soak of {soak.seconds / 60:g} minutes, seed {seed}, {USERS} users, two nodes; load of the machine {load}",
        f"{len(records.attempts)} commands, {len(records.seen)} statuses, logs and operations, {len(records.pages)} "
        f"pages and lists, {len(facts.runs)} runs, {len(facts.operations)} operations, {len(facts.messages)} messages",
        "Runs: " + ", ".join(f"{number} {end}" for end, number in sorted(ends.items())),
        "Delay from an end to its first message: " + delays(facts),
        f"Looks during the load: {soak.looks.count}, with {len(soak.looks.violations)} violations",
        f"Faults ({len(facts.faults)}): "
        + ", ".join(f"{number} {kind}" for kind, number in faults.counts(facts.faults)),
        "Ended by itself and started again: "
        + (", ".join(f"{number} {what}" for what, number in sorted(soak.started_again.items())) or "nothing"),
        "Answers: " + ", ".join(f"{number} {answer}" for answer, number in sorted(answers.items())),
        "",
    ]
    for check in checks:
        mark = "ok  " if not check.violations else "FAIL"
        lines.append(f"{mark} {check.name}: {check.checked} checked, {len(check.violations)} violations")
        if check.remark:
            lines.append(f"     {check.remark}")
        lines += [f"     ! {violation}" for violation in check.violations[:50]]
    violations = sum(len(check.violations) for check in checks)
    lines.append(f"\n{sum(check.checked for check in checks)} checks, {violations} violations")
    return "\n".join(lines) + "\n"


def delays(facts: Facts) -> str:
    """Return the seconds from the ends of runs to their first messages, faults included."""
    told: dict[int, float] = {}
    for message in facts.messages:
        if message.body["type"] in END_EVENTS:
            told.setdefault(message.body["data"]["runner_id"], message.when)
    found = []
    for number, when in told.items():
        run = facts.runs.get(number)
        starts = facts.starts_of(run["key"]) if run else []
        if starts and starts[0].first_gone:
            found.append(max(0.0, when - starts[0].last_alive))
    if not found:
        return "no end"
    found.sort()
    p95 = found[max(0, int(len(found) * 0.95) - 1)]
    return f"{statistics.median(found):.1f} s (median), {p95:.1f} s (p95), {found[-1]:.1f} s (longest)"


def soak(folder: Path, seconds: float, seed: str) -> tuple[str, bool]:
    """Run a soak below `folder`. Return its report, and True if everything was true."""
    say(f"A soak of {seconds / 60:g} minutes begins, seed {seed}, in {folder}.")
    site = Site(folder, seed, USERS)
    try:
        soak = Soak(site, seed, seconds)
        say(f"The load begins. {len(soak.planned)} faults are planned.")
        soak.run()
        say("The load ends. Everything has to settle now.")
        left = soak.settle()
        say(f"Not settled: {left}" if left else "Everything has settled.")
        facts = soak.facts(soak.stop())
        (folder / "facts.pickle").write_bytes(pickle.dumps(facts))  # with --keep, for questions after a violation
        checks = all_checks(facts)
        load = " ".join(f"{number:.1f}" for number in os.getloadavg())
        return report(soak, facts, checks, seed, load), not any(check.violations for check in checks)
    finally:
        site.close()


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m soak", description="Load, faults, and a comparison with the truth."
    )
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", default="1", help="the load and the faults depend on it (default %(default)s)")
    parser.add_argument("--report", type=Path, help="write the report to this file, too")
    parser.add_argument("--keep", type=Path, help="keep logs and homes in this new folder")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as name:
        folder = wanted.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        text, is_true = soak(folder, wanted.minutes * 60, wanted.seed)
    sys.stdout.write(text)
    if wanted.report:
        wanted.report.write_text(text)
    return int(not is_true)


if __name__ == "__main__":
    sys.exit(main())
