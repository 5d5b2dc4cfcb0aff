"""The soak (soak/): a short one, and what its checks find.

`make soak` runs a long one. Here each kind of fault happens once or so, and everything has to be true afterwards.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from soak.__main__ import ended_early
from soak.checks import ALWAYS, Check, Facts, all_checks
from soak.faults import KINDS, Damage, schedule
from soak.growth import Sampler, Samples, Trend, trend
from soak.journal import Process
from soak.load import Attempt, Records, Seen
from soak.site import Message, Site
from tests.support.paths import ROOT
from tests.support.postgres import find_postgres
from tests.support.processes import PATIENCE
from tests.support.requirements import need

MINUTES = "0.5"


@pytest.mark.alone
@pytest.mark.timeout(600)
def test_a_short_soak_finds_nothing_untrue(tmp_path: Path) -> None:
    need(find_postgres(), "PostgreSQL")
    argv = [sys.executable, "-m", "soak", "--minutes", MINUTES, "--seed", "ci", "--keep", str(tmp_path / "soak")]
    env = {name: value for name, value in os.environ.items() if not name.startswith("DJANGO")}
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=500 * PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_schedule_depends_on_the_seed_only_and_has_each_kind() -> None:
    first = schedule("1", 600)
    assert first == schedule("1", 600) != schedule("2", 600)
    assert {planned.kind for planned in first} == set(KINDS)
    assert all(planned.at + planned.seconds < 600 for planned in first)


def test_a_trend_is_a_straight_line() -> None:
    assert trend([(0.0, 1.0), (10.0, 2.0), (20.0, 3.0)]) == Trend(1.0, 3.0, 20.0, 3)
    assert Trend(1.0, 3.0, 20.0, 3).per_hour == 360


# --- What the checks find ---------------------------------------------------------------------------------------------


def true_facts() -> Facts:
    """Return what is left of one run that a user has started, and that has ended with exit code 0."""
    request = {"expid": "s001", "profile_name": "m1"}
    attempt = Attempt(1, "run-experiment", request, "k1", "r1", 100.0, 101.0, 200, {"runner_id": 7})
    status = {"runner_id": 7, "status": "COMPLETED", "reason": "", "reachable": True, "pid": 50}
    seen = Seen("status", 7, 120.0, 120.1, 200, status)
    run = {"id": 7, "key": "abc", "expid": "s001", "status": "COMPLETED", "reason": "", "exit_code": 0, "signal": ""}
    process = Process(Path("/h"), 50, "9", "abc", "run", "s001", "run s001", 100.5, 110.0, 0, 110.1)
    body = {"type": "run.completed", "data": {"runner_id": 7, "status": "COMPLETED", "reason": "", "exit_code": 0}}
    record = {"id": 1, "request_id": "r1", "outcome": "ok", "run_id": 7, "endpoint": "run-experiment"}
    return Facts(
        records=Records(attempts=[attempt], seen=[seen]),
        processes=[process],
        messages=[Message(111.0, endpoint, f"msg-{endpoint}", body, 204) for endpoint in "ab"],
        runs={7: run},
        operations={},
        audit=[record],
        deliveries=[],
        faults=[],
        damage=Damage(),
        samples=Samples(),
        left_at_end=[],
        logs={},
        is_long=False,
    )


def violations(facts: Facts) -> list[Check]:
    facts.__post_init__()  # the lies came after it
    return [check for check in all_checks(facts) if check.violations]


def test_the_truth_has_no_violation() -> None:
    assert violations(true_facts()) == []


def second_start(facts: Facts) -> None:
    facts.processes.append(Process(Path("/h"), 51, "9", "abc", "run", "s001", "run s001", 105.0, 111.0, 0, 111.1))


def no_start(facts: Facts) -> None:
    facts.processes.clear()


def start_after_rejection(facts: Facts) -> None:
    facts.records.attempts[0].status = 502
    facts.records.attempts[0].answer = {"code": "runner_unreachable", "run_id": 7}
    facts.audit[0]["outcome"] = "runner_unreachable"


def unknown_for_ever(facts: Facts) -> None:
    facts.records.attempts[0].status, facts.records.attempts[0].answer = 502, {"code": "outcome_unknown", "run_id": 7}
    facts.audit[0]["outcome"] = "outcome_unknown"
    facts.runs[7]["status"] = "ACTIVE"


def wrong_exit_code(facts: Facts) -> None:
    facts.processes[0].code = 3


def active_too_long(facts: Facts) -> None:
    facts.records.seen[0].answer["status"] = "ACTIVE"


def ended_too_early(facts: Facts) -> None:
    facts.processes[0].last_alive = 130.0


def second_message(facts: Facts) -> None:
    facts.messages.append(Message(112.0, "a", "msg-c", facts.messages[0].body, 204))


def no_message(facts: Facts) -> None:
    facts.messages.pop()


def no_record(facts: Facts) -> None:
    facts.audit.clear()


def under_way(facts: Facts) -> None:
    facts.audit[0]["outcome"] = "under_way"


def left_after_a_stop(facts: Facts) -> None:
    facts.records.left_after_stop.append((7, "s001", [50]))


def server_error(facts: Facts) -> None:
    facts.records.pages.append(("/runs", 500))


def more_connections_than_threads(facts: Facts) -> None:
    facts.samples.connections, facts.samples.threads = [(100.0, 20.0)], [(100.0, 19.0)]


def growing_connections(facts: Facts) -> None:
    facts.samples.connections = [(float(second), 10 + second / 60) for second in range(0, 2400, 5)]


LIES = [
    *(more_connections_than_threads, growing_connections),
    *(second_start, no_start, start_after_rejection, unknown_for_ever, wrong_exit_code, active_too_long),
    *(ended_too_early, second_message, no_message, no_record, under_way, left_after_a_stop, server_error),
]


@pytest.mark.parametrize("lie", LIES)
def test_each_untruth_is_found(lie: Callable[[Facts], Any]) -> None:
    facts = true_facts()
    lie(facts)
    assert violations(facts)


def test_nothing_to_compare_is_a_violation() -> None:
    """Every request was rejected, for instance because the tokens were wrong."""
    facts = true_facts()
    for records in (facts.records.attempts, facts.records.seen, facts.processes, facts.messages, facts.audit):
        records.clear()
    facts.runs.clear()
    names = {check.name for check in violations(facts)}
    assert len(names) == len(ALWAYS) - 1, names  # all but that nothing is left on the machines
    facts = true_facts()
    facts.is_long = True
    assert {"a log that is called ended has its last line"} < {check.name for check in violations(facts)}


def test_a_process_that_ends_before_its_first_sample_is_left_out() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    sampler = Sampler(Site.__new__(Site))  # it asks the site for nothing here
    sampler.take([("ended", ended.pid), ("this one", os.getpid())])
    assert list(sampler.samples.processes) == [("this one", os.getpid())]
    facts = true_facts()
    facts.samples = sampler.samples
    assert violations(facts) == []


def test_a_thread_that_has_ended_early_is_named() -> None:
    enough = threading.Event()
    ended, alive = threading.Thread(name="journal"), threading.Thread(name="samples", target=enough.wait)
    for thread in (ended, alive):
        thread.start()
    ended.join()
    assert ended_early([ended, alive]) == ["the soak's thread journal has ended early"]
    enough.set()
    alive.join()


def test_a_repeated_message_with_the_same_id_is_allowed() -> None:
    facts = true_facts()
    facts.messages.append(facts.messages[0])
    assert violations(facts) == []
