"""Runs that print nothing, or too much: marked by their probes, and told once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from profiles.config import RunnerConfig
from profiles.models import RunnerProfile
from profiles.yaml.format import InvalidConfiguration
from profiles.yaml.importer import export_configuration, import_configuration
from profiles.yaml.reader import parse
from profiles.yaml.writer import dump
from runners.models import Mail, MailSubscription, RunnerRun, WebhookDelivery
from runners.services import machine_states, probing, run_output
from runners.services.machines.probe import LogState
from runners.services.machines.runner import Runner, exchange_ended
from runners.services.representations import run_fields
from runners.webhooks.chat import body_of
from tests.support.api import Api
from tests.support.contract import launch
from tests.support.environments import StubAccount
from tests.support.processes import kill_all
from tests.support.rows import saved_run
from tests.support.webhooks import Receiver, hook

pytestmark = pytest.mark.django_db(transaction=True)
LIMIT = 100  # seconds without output


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    server = Receiver()
    hook(server)
    yield server
    server.close()


@pytest.fixture
def running(config_of: Callable[[str], RunnerConfig], account: StubAccount) -> Iterator[tuple[RunnerRun, Path]]:
    """A command that runs and has printed one line, and its log."""
    config = config_of("NO_MODULE")
    key, identity = launch(config, ["sh", "-c", "echo begun; exec sleep 300"])
    run = saved_run(
        key=key, identity=identity.as_dict(), pid=identity.pid, config=config.as_dict() | {"SILENT_AFTER": LIMIT}
    )
    log = account.home / ".autosubmit-runners" / key / "log"
    while not log.read_text():
        time.sleep(0.01)
    yield run, log
    kill_all([identity.pid])


def let_be_silent(log: Path, seconds: float) -> None:
    moment = time.time() - seconds
    os.utime(log, (moment, moment))


def look(run: RunnerRun) -> RunnerRun:
    """Probe the run and return its row. The probe makes one exchange with the machine."""
    exchanges: list[object] = []

    def count(**_: object) -> None:
        exchanges.append(1)

    exchange_ended.connect(count, weak=False)
    try:
        probing.probe([run])
    finally:
        exchange_ended.disconnect(count)
    assert len(exchanges) == 1
    return RunnerRun.objects.get(pk=run.pk)


def events() -> list[str]:
    return list(WebhookDelivery.objects.order_by("id").values_list("event", flat=True))


def test_each_silence_is_told_once(running: tuple[RunnerRun, Path], receiver: Receiver) -> None:
    run, log = running
    seen = look(run)
    assert (seen.silent_since, seen.log_size, events()) == (None, len("begun\n"), [])
    assert seen.last_output_at and abs(timezone.now() - seen.last_output_at) < timedelta(seconds=30)

    let_be_silent(log, LIMIT + 50)
    seen = look(run)
    assert seen.silent_since == seen.last_output_at
    assert events() == ["run.silent"]
    data = WebhookDelivery.objects.get().payload["data"]
    assert (data["expid"], data["status"], data["log_size"]) == (run.expid, "ACTIVE", len("begun\n"))
    assert data["silent_since"] == data["last_output_at"] == seen.silent_since.isoformat(timespec="seconds")
    assert look(run).silent_since == seen.silent_since
    assert events() == ["run.silent"]

    with log.open("a") as stream:
        stream.write("a sign of life\n")
    assert look(run).silent_since is None
    let_be_silent(log, LIMIT + 50)
    assert look(run).silent_since is not None
    assert events() == ["run.silent", "run.silent"]


def test_output_that_came_long_ago_begins_a_new_silence(running: tuple[RunnerRun, Path], receiver: Receiver) -> None:
    run, log = running
    RunnerRun.objects.filter(pk=run.pk).update(created=timezone.now() - timedelta(days=1))
    run.refresh_from_db()
    let_be_silent(log, 3 * LIMIT)
    first = look(run).silent_since
    with log.open("a") as stream:
        stream.write("a sign of life\n")
    let_be_silent(log, 2 * LIMIT)  # no probe has seen this output while it was new
    second = look(run).silent_since
    assert first and second
    assert timedelta(seconds=LIMIT - 5) < second - first < timedelta(seconds=LIMIT + 5)
    assert events() == ["run.silent", "run.silent"]


def test_a_run_that_never_printed_is_silent_since_its_start(running: tuple[RunnerRun, Path]) -> None:
    run, log = running
    log.write_text("")
    let_be_silent(log, LIMIT + 50)
    seen = look(run)
    assert (seen.last_output_at, seen.log_size) == (None, 0)
    assert seen.silent_since == run.created  # the output cannot be older than the run


def test_silence_is_off_by_default(running: tuple[RunnerRun, Path], receiver: Receiver) -> None:
    run, log = running
    run.config.pop("SILENT_AFTER")
    run.save()
    let_be_silent(log, 10**7)
    assert look(run).silent_since is None
    assert events() == []


def test_a_log_that_is_too_large_is_told_once(
    running: tuple[RunnerRun, Path], receiver: Receiver, settings: Any
) -> None:
    run, log = running
    settings.RUNNERS_LOG_SIZE_LIMIT = 1000
    assert not look(run).log_too_large
    for _ in range(2):
        with log.open("a") as stream:
            stream.write("x" * 1001)
        assert look(run).log_too_large
    assert events() == ["run.log_too_large"]
    assert WebhookDelivery.objects.get().payload["data"]["log_size"] > 1000


def test_a_log_that_cannot_be_read_does_not_disturb_the_probe(running: tuple[RunnerRun, Path]) -> None:
    run, log = running
    look(run)
    log.unlink()
    os.mkfifo(log)
    seen = look(run)
    assert (seen.status, seen.reachable, seen.log_size) == ("ACTIVE", True, len("begun\n"))


def test_an_older_answer_marks_nothing(receiver: Receiver) -> None:
    run = saved_run(config={"SILENT_AFTER": LIMIT}, log_size=20)
    run_output.mark(run, LogState(10, LIMIT + 1), timezone.now())
    assert (RunnerRun.objects.get().silent_since, events()) == (None, [])


def test_the_end_of_a_run_ends_its_silence(running: tuple[RunnerRun, Path], receiver: Receiver, settings: Any) -> None:
    run, log = running
    settings.RUNNERS_LOG_SIZE_LIMIT = 10
    let_be_silent(log, LIMIT + 50)
    look(run)
    with log.open("a") as stream:
        stream.write("more than the limit\n")
    log.parent.joinpath("running").rename(log.parent / f"ended.0.-.{int(time.time())}")
    kill_all([run.pid or 0])
    probing.probe([run])
    seen = RunnerRun.objects.get()
    assert (seen.status, seen.silent_since, seen.log_too_large) == ("COMPLETED", None, True)
    assert seen.log_size == log.stat().st_size
    assert events() == ["run.silent", "run.completed"]


def test_many_rows_are_updated_together_and_ended_ones_are_left_alone(
    runner: Runner, django_assert_max_num_queries: Any
) -> None:
    launched = [launch(runner.config, ["sh", "-c", f"echo {'x' * number}; exec sleep 300"]) for number in range(4)]
    config = runner.config.as_dict()
    rows = [saved_run(f"a00{n}", key=key, identity=i.as_dict(), config=config) for n, (key, i) in enumerate(launched)]
    RunnerRun.objects.filter(pk=rows[0].pk).update(status="TERMINATED", reason="abandoned")
    machine_states.store()  # its row is new; an answer that changes nothing is stored every few seconds
    with django_assert_max_num_queries(9):
        probing.probe(rows)
    assert [row.status for row in rows] == ["TERMINATED", "ACTIVE", "ACTIVE", "ACTIVE"]
    assert [row.log_size for row in rows] == [None, 2, 3, 4]
    for row in rows:
        stored = RunnerRun.objects.get(pk=row.pk)
        assert (stored.log_size, stored.status, stored.confirmed_at) == (row.log_size, row.status, row.confirmed_at)
    with django_assert_max_num_queries(2):  # nothing new: one statement confirms all of them
        probing.probe(rows[1:])
    kill_all([identity.pid for _, identity in launched])


def test_the_list_has_filters_for_the_marks(client: Client, settings: Any) -> None:
    settings.PROTECTION_LEVEL = "NONE"
    api = Api(client)
    saved_run("a001", silent_since=timezone.now(), log_size=5)
    saved_run("a002", log_too_large=True)

    def found(query: str) -> list[str]:
        return [run["expid"] for run in api.get(f"/v4/runners/runs?{query}")["results"]]

    assert found("silent=true") == ["a001"]
    assert found("silent=false") == ["a002"]
    assert found("log_too_large=true") == ["a002"]
    assert found("log_too_large=true&silent=true") == []
    assert found("") == ["a002", "a001"]
    assert "silent" in str(api.get("/v4/runners/runs?silent=yes", expect=400))


def test_pages_show_the_marks(client: Client) -> None:
    client.force_login(User.objects.create_user("ana"))
    hour = timezone.now() - timedelta(hours=1)
    progress = {"total": 10, "done": 4, "failed": 1, "running": 2, "stamp": "1", "failed_jobs": ["a_X"]}
    run = saved_run(silent_since=hour, last_output_at=hour, log_size=3 * 2**30, log_too_large=True, progress=progress)
    saved_run("a001")
    for path in ("/", f"/runs/{run.pk}", f"/runs/{run.pk}/state"):
        text = client.get(path).content.decode()
        assert "no output since" in text, path
        assert "very large" in text
        assert '<progress class="jobs" max="10" value="4"' in text
        assert "4 of 10 jobs done, 2 running" in text and "1 failed" in text
        assert ("failed: a_X" in text) == (path != "/")
    assert text.count("3.0\xa0GB") == 1
    page = client.get("/").content.decode()
    assert (page.count("no output since"), page.count("<progress")) == (1, 1)


def test_the_profile_decides_when_its_runs_are_silent(client: Client, settings: Any) -> None:
    settings.PROTECTION_LEVEL = "NONE"
    text = "RUNNER_CONFIGURATION:\n  PROFILES:\n    P: {{RUNNER_TYPE: LOCAL, MODULE_LOADER_TYPE: NO_MODULE{}}}\n"
    import_configuration(parse(text.format(", SILENT_AFTER: 900")))
    profile = RunnerProfile.objects.get()
    config = profile.resolve(None)
    assert (config.silent_after, RunnerConfig.from_dict(config.as_dict()).silent_after) == (900, 900)
    assert Api(client).get("/v4/runners/configuration/profiles")["P"]["SILENT_AFTER"] == 900
    assert "SILENT_AFTER: 900" in dump(export_configuration())
    assert not import_configuration(parse(dump(export_configuration()))).changes
    import_configuration(parse(text.format("")))  # not in the text: it stays
    assert RunnerProfile.objects.get().silent_after == 900
    (change,) = import_configuration(parse(text.format(", SILENT_AFTER: 0"))).changes
    assert "SILENT_AFTER" in str(change)
    assert "SILENT_AFTER" not in RunnerProfile.objects.get().resolve(None).as_dict()


@pytest.mark.parametrize("value", ["-1", "true", "soon", "1.5", "31622401", "[1]"])
def test_an_invalid_limit_of_silence_names_its_place(value: str) -> None:
    text = f"RUNNER_CONFIGURATION:\n  PROFILES:\n    P:\n      SILENT_AFTER: {value}\n"
    with pytest.raises(InvalidConfiguration, match=r"PROFILES.P.SILENT_AFTER \(line 4\): Give whole seconds"):
        parse(text)


def test_two_processes_that_mark_a_run_at_once_tell_it_once(receiver: Receiver, settings: Any) -> None:
    settings.RUNNERS_LOG_SIZE_LIMIT = 5
    saved_run(config={"SILENT_AFTER": LIMIT}, log_size=10)
    for copy in [RunnerRun.objects.get(), RunnerRun.objects.get()]:
        run_output.mark(copy, LogState(10, LIMIT), timezone.now())
    assert events() == ["run.silent", "run.log_too_large"]


def test_a_size_limit_of_0_is_off(settings: Any) -> None:
    settings.RUNNERS_LOG_SIZE_LIMIT = 0
    run = saved_run(log_size=10)
    run_output.mark(run, LogState(10, 0), timezone.now())
    assert not RunnerRun.objects.get().log_too_large


def test_mail_and_chat_say_which_mark_it_is(settings: Any) -> None:
    settings.EMAIL_HOST = "mail.example.org"
    settings.RUNNERS_LOG_SIZE_LIMIT = 5
    ana = User.objects.create_user("ana", email="ana@example.org")
    MailSubscription.objects.create(user=ana)
    run = saved_run(config={"SILENT_AFTER": LIMIT}, log_size=10, started_by="ana")
    run_output.mark(run, LogState(10, LIMIT), timezone.now())
    silent, large = Mail.objects.order_by("id")
    assert "is silent" in silent.subject and "is silent: it has had no output" in silent.body
    assert "very large log" in large.subject and "longer than the limit" in large.body
    assert "has ended" not in silent.body + large.body
    texts = [
        body_of("slack", {"type": event, "data": run_fields(run)})["text"]
        for event in ("run.silent", "run.log_too_large")
    ]
    assert "no output" in texts[0] and "longer than the limit" in texts[1]
