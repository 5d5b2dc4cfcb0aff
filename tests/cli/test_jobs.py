"""`jobs` and `job-log` on the command line, against a live server."""

from __future__ import annotations

import json

import pytest

from runners.cli.errors import Exit
from tests.support import job_lists
from tests.support.cli import HERE, Cli
from tests.support.environments import StubAccount
from tests.support.job_lists import job, row
from tests.support.servers import AppServer


@pytest.fixture
def cli(module_app: AppServer) -> Cli:
    return Cli(module_app.url)


def test_jobs_and_their_logs(cli: Cli, account: StubAccount) -> None:
    account.experiment("a001")
    waiting = [job(f"a001_POST_{number:03}", "WAITING") for number in range(600)]
    job_lists.write(account.home, "a001", [job("a001_SIM", "FAILED", id=8, section="RUN"), *waiting])
    job_lists.history(account.home, "a001", [row("a001_SIM", 0, job_id=7), row("a001_SIM", 1, job_id=8)])
    job_lists.write_log(account.home, "a001", "a001_SIM.0.err", b"first\n")
    job_lists.write_log(account.home, "a001", "a001_SIM.1.err", b"no space\nleft\n")
    assert cli("jobs", *HERE, "a001", "--counts") == "601 jobs: 600 WAITING, 1 FAILED\n"  # never run here
    cli("run", *HERE, "a001", "--wait", "--interval", "0.2")
    header, line = cli("jobs", "a001", "--status", "FAILED", "--section", "RUN").splitlines()
    assert header.split() == ["name", "status", "platform", "remote_id", "submitted", "finished", "attempts"]
    assert line.split()[:4] == ["a001_SIM", "FAILED", "LOCAL", "8"]
    assert line.split()[-1] == "2"
    assert "601 jobs: 600 WAITING, 1 FAILED. 1 match." in cli.told
    assert len(cli("jobs", "a001", "--limit", "550").splitlines()) == 551  # two pages
    found = json.loads(cli("jobs", "a001", "--name", "sim", "--json"))
    assert [each["name"] for each in found["results"]] == ["a001_SIM"]
    assert cli("jobs", "a001", "--name", "nothing").count("\n") == 1
    cli("jobs", "a001", "--status", "DONE", expect=Exit.USAGE)
    assert cli("job-log", "a001", "a001_SIM") == "no space\nleft\n"
    assert cli("job-log", "a001", "a001_SIM", "--tail", "16", "--follow") == "no space\nleft\n"
    assert cli("job-log", "a001", "a001_SIM", "--attempt", "1") == "first\n"
    cli("job-log", "a001", "a001_SIM", "--stream", "out", expect=Exit.NOT_THERE)
    cli("job-log", "a001", "../../x", expect=Exit.NOT_THERE)
    cli("jobs", "a002", expect=Exit.NOT_THERE)
