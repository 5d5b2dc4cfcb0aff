"""A machine that may return anything: `refresh`, `stop` and `watch_runs` with random and mutated answers.

The runner is the real one except for `execute`, whose results are generated. The tests run on SQLite, and on PostgreSQL
in a separate pytest process (the last test).
"""

from __future__ import annotations

import io
import itertools
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.core.management import call_command
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from profiles.config import RunnerConfig
from runners import printable
from runners.commands.registry import long_commands
from runners.exceptions import CommandTimedOut, OutcomeUnknown, RunnerServiceError, RunnerUnreachable
from runners.models import AuditRecord, RunnerRun, new_run_key
from runners.models.operation import Operation
from runners.services import active_runs, execute, lifecycle, logs, operations, probing, runs, starting, stopping
from runners.services.machines import leftovers, scripts
from runners.services.machines.exchange import Exchange
from runners.services.machines.runner import CommandResult, Runner
from runners.services.machines.ssh.target import SSHTarget
from runners.services.representations import run_fields
from runners.web.problems import problem_type_of
from tests.support.hostile_answers import IDENTITY, KEY, PROBE_LINES, bytes_like, hostile_rows
from tests.support.processes import PATIENCE
from tests.support.servers import ROOT

pytestmark = pytest.mark.django_db(transaction=True)

ON_POSTGRESQL = "HOSTILE_MACHINE_ON_POSTGRESQL"
LOCAL = RunnerConfig("LOCAL", "NO_MODULE", (), None)
HOSTILE = RunnerConfig("SSH", "NO_MODULE", (), SSHTarget("hostile", 22, "u"))
IDENTITY_FIELDS = dict(
    zip(
        ("host", "boot_id", "pid_namespace", "pid", "start", "supervisor_pid", "supervisor_start"),
        [int(word) if word.isdigit() else word for word in IDENTITY.split()],
        strict=True,
    )
)
WORDS = [
    *PROBE_LINES,
    "\n".join(PROBE_LINES[:1]),
    f"{IDENTITY}\n{scripts.READY}\n",
    "4242\n",
    "\n",
    "0 0\n",
    "30 0\n[CRITICAL] no [eCode=7014]\n",
    "2000000 0\nJobList saved in 1 seconds\nExperiment a000 created\n",
    "left 4242 helper autosubmit\nleft 4243 job bash\nend\n",
    "end\n",
    "Cancelling job a000_SIM on platform LOCAL\nChanging status of job a000_SIM to FAILED\n",
    "busy 4242\n",
    "4.1.17.1\n",
]
EXIT_CODES = [0, 0, 0, 1, 66, 70, 88, 124, 125, 137, 255, -1, 2**31, 2**32 - 1]
outputs = bytes_like(WORDS)
results = st.one_of(
    st.builds(CommandResult, st.sampled_from(EXIT_CODES), outputs, outputs, st.just(0.1), st.booleans()),
    st.builds(CommandResult, st.just(0), outputs, st.just(b""), st.just(0.1)),
    st.sampled_from([RunnerUnreachable, OutcomeUnknown, CommandTimedOut]).flatmap(
        lambda kind: st.builds(kind, outputs.map(lambda data: data.decode("utf-8", "replace")))
    ),
)


class HostileRunner(Runner):
    """A runner that returns the drawn answers in turn. `KEY` in an answer becomes the key of one of the rows.

    The answers are drawn in advance, because nothing can be drawn in the threads that contact machines.
    """

    drawn: Iterator[tuple[Any, int]]
    keys: list[str]

    @property
    def where(self) -> str:
        return "u@hostile:22"

    @property
    def target(self) -> tuple[str, ...]:
        return ("SSH", self.where) if self.config.target.host else ("LOCAL",)

    def exchange(self, exchange: Exchange) -> None:
        raise AssertionError("nothing is started")

    def execute(self, script: str, **options: Any) -> CommandResult:
        if not self.config.target.host:
            raise RunnerUnreachable("This machine is not asked here.")
        result, number = next(self.drawn)
        if isinstance(result, RunnerServiceError):
            raise type(result)(result.detail)
        key = self.keys[number].encode()
        stdout = result.stdout.replace(KEY.encode(), key)
        return CommandResult(result.exit_code, stdout, result.stderr, result.duration, result.truncated)


def make_run(config: RunnerConfig, expid: str, **fields: Any) -> RunnerRun:
    return RunnerRun.objects.create(
        expid=expid, config=config.as_dict(), runner=config.runner_type, module_loader="NO_MODULE", **fields
    )


@contextmanager
def world(data: Any) -> Iterator[SimpleNamespace]:
    """Two runs and an operation on the hostile machine, and one run on another machine."""
    kind = data.draw(st.sampled_from(list(long_commands())))
    HostileRunner.drawn = itertools.cycle(
        data.draw(st.lists(st.tuples(results, st.integers(0, 3)), min_size=1, max_size=8))
    )
    old = timezone.now() - timedelta(hours=1)
    mine = make_run(HOSTILE, "a000", identity=IDENTITY_FIELDS, pid=4242, confirmed_at=old)
    unknown = make_run(HOSTILE, "a001", created=old)
    operation = Operation.objects.create(
        key=new_run_key(),
        kind=kind,
        expid="a002",
        config=HOSTILE.as_dict(),
        argv=["autosubmit"],
        timeout=60,
        identity=IDENTITY_FIELDS,
    )
    other = make_run(LOCAL, "a003", identity=IDENTITY_FIELDS, pid=4242, reachable=True)
    HostileRunner.keys = [mine.key, unknown.key, operation.key, other.key]
    before = RunnerRun.objects.filter(pk=other.pk).values().get()
    try:
        yield SimpleNamespace(mine=mine, unknown=unknown, operation=operation, other=other)
        after = RunnerRun.objects.filter(pk=other.pk).values().get()
        for name in ("reachable", "unreachable_detail", "probing_until"):  # it may have been unreachable
            before.pop(name), after.pop(name)
        assert after == before
        for row in [*RunnerRun.objects.all(), *Operation.objects.all()]:
            check(row.__dict__)
            if row.identity:
                assert lifecycle.identity_of(row)
        for run in RunnerRun.objects.all():
            json.dumps(run_fields(run), ensure_ascii=False).encode()
        check(list(AuditRecord.objects.values()))
    finally:
        for model in (RunnerRun, Operation, AuditRecord):
            model.objects.all().delete()


def check(value: Any) -> None:
    """Assert that every stored text is printable and bounded."""
    if isinstance(value, str):
        assert len(value) <= printable.TEXT_LIMIT
        assert all(char.isprintable() or char in "\n\t" for char in value), value
    elif isinstance(value, dict):
        for name, each in value.items():
            if name != "_state":
                check(name)
                check(each)
    elif isinstance(value, list | tuple):
        assert len(value) <= 1000
        for each in value:
            check(each)


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    for module in (active_runs, execute, lifecycle, operations, runs, starting):
        if hasattr(module, "get_runner"):
            monkeypatch.setattr(module, "get_runner", HostileRunner)
    ticks = itertools.count(0, 0.7)  # two or three polls take as long as any wait
    clock = SimpleNamespace(monotonic=lambda: next(ticks), sleep=lambda seconds: None)
    for module in (stopping, leftovers):
        monkeypatch.setattr(module, "time", clock)
    settings.RUNNERS_TERM_WAIT = settings.RUNNERS_KILL_WAIT = 1.0


@hostile_rows
@given(st.data(), st.integers(0, 2**63 - 1))
def test_refresh_raises_nothing_and_stores_little(data: Any, offset: int) -> None:
    with world(data) as there:
        probing.refresh([there.mine, there.unknown])
        probing.refresh([there.operation])
        with suppress(RunnerServiceError):
            operations.outcome(there.operation)
        with suppress(RunnerServiceError):
            page = logs.read(there.mine, offset=offset, limit=100)
            assert len(page.data) <= 100


@hostile_rows
@given(st.data(), st.booleans(), st.booleans())
def test_a_stop_ends_with_a_result_or_a_clear_error(data: Any, force: bool, cancel_jobs: bool) -> None:
    with world(data) as there:
        audit = AuditRecord(endpoint="stop-experiment")
        try:
            outcome = stopping.stop_experiment(
                expid="a000", audit=audit, viewer=AnonymousUser(), force=force, cancel_jobs=cancel_jobs
            )
            check(outcome.steps)
        except RunnerServiceError as error:
            assert problem_type_of(error)
            check(error.detail)
            check({name: fact for name, fact in error.facts.items() if name != "run"})
        audit.save()
        assert RunnerRun.objects.filter(pk=there.unknown.pk, status="ACTIVE").exists()


@hostile_rows
@given(st.data())
def test_a_launch_ends_with_a_result_or_a_clear_error(data: Any) -> None:
    with world(data):
        audit = AuditRecord(endpoint="run-experiment")
        try:
            run = starting.run_experiment(expid="a009", config=HOSTILE, profile_name="P", audit=audit)
            assert lifecycle.identity_of(run)
        except RunnerServiceError as error:
            assert problem_type_of(error)
            check(error.detail)
        audit.save()


@hostile_rows
@given(st.data())
def test_watch_runs_executes_all_its_steps(data: Any) -> None:
    with world(data):
        call_command("watch_runs", stdout=io.StringIO(), stderr=io.StringIO())


@pytest.mark.skipif(ON_POSTGRESQL in os.environ, reason="it runs on PostgreSQL already")
def test_the_same_on_postgresql(request: pytest.FixtureRequest) -> None:
    from tests.support.postgres import Postgres, find_postgres

    assert find_postgres()
    with Postgres() as postgres:
        env = os.environ | {ON_POSTGRESQL: "1", "HOSTILE_EXAMPLES": "15"}
        env["DATABASE_URL"] = postgres.create(f"hostile_{secrets.token_hex(4)}")
        argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
        done = subprocess.run(
            argv, env=env, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110 * PATIENCE
        )
        assert done.returncode == 0, done.stdout[-6000:]
