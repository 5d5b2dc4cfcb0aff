"""When machines are asked for the states of runs."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.db import OperationalError

from profiles.config import RunnerConfig
from runners.models import RunnerRun
from runners.services import leases, probing, runs
from runners.services.machines.ssh.target import SSHTarget
from tests.support.processes import wait_for
from tests.support.rows import saved_run
from tests.support.servers import listener

pytestmark = pytest.mark.django_db(transaction=True)


def test_two_polls_of_an_unreachable_machine_make_one_connection(settings: Any) -> None:
    settings.RUNNERS_STATUS_FRESHNESS, settings.RUNNERS_CONNECT_TIMEOUT = 0, 2
    connections: list[socket.socket] = []
    with listener(connections.append) as port:  # each connection is closed at once
        target = SSHTarget("127.0.0.1", port, "somebody")
        config = RunnerConfig("SSH", "NO_MODULE", (), target)
        saved_run("a001", config=config.as_dict(), runner="SSH", host=target.host, user=target.user)
        counts = []
        for _ in range(2):
            run = runs.get_run(expid="a001", viewer=AnonymousUser())
            assert (run.status, run.reachable) == ("ACTIVE", False)
            wait_for(lambda: RunnerRun.objects.get().unreachable_detail, what="the stored answer of the first probe")
            counts.append(len(connections))
    assert counts[0]
    assert counts[1] == counts[0]


def test_a_database_that_is_lost_during_a_probe_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, settings: Any
) -> None:
    """A probe through another node of the service stores a command in the database."""

    def lost(*_: Any) -> Any:
        raise OperationalError("server closed the connection")

    settings.RUNNERS_STATUS_FRESHNESS, settings.RUNNERS_STATUS_WAIT = 0, 0.3
    monkeypatch.setattr(probing, "_answers_of", lost)
    saved_run("a001")
    run = runs.get_run(expid="a001", viewer=AnonymousUser())
    assert (run.status, run.reachable, run.unreachable_detail) == ("ACTIVE", False, probing.NOT_YET)
    wait_for(lambda: "was not stored: server closed the connection" in caplog.text, what="the line of the log")
    wait_for(lambda: leases.is_free(RunnerRun.objects.get()), what="the end of the lease")
