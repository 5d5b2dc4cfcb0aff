"""A real sshd whose forced command imitates our reader and then answers what the test wants.

Promise: any wrong answer becomes a described error of that request only, or "cannot tell". The row stays correct and
small.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from profiles.models import RunnerProfile
from runners import printable
from runners.models import RunnerRun
from tests.support.api import Api
from tests.support.environments import StubAccount
from tests.support.hostile_answers import IDENTITY
from tests.support.servers import SSHServer

pytestmark = pytest.mark.django_db(transaction=True)

# Print the marker, which is in the command line in two parts. Then read all input, and answer.
LIAR = r"""#!/bin/bash
end=$(grep -o 's-[0-9a-f]\{16\}' <<<"$SSH_ORIGINAL_COMMAND" | head -n 1)
marker=autosubmit-runner$end
printf '\n%s\n' "$marker" >&2; printf '\n%s\n' "$marker"
cat >/dev/null  # the whole script: a machine that has not got it has certainly not started anything
cat ANSWER
printf '\n%s 0\n' "$marker" >&2; printf '\n%s 0\n' "$marker"
"""


@pytest.fixture
def answer(
    account: StubAccount, make_sshd: Callable[..., SSHServer], settings: Any, tmp_path: Path
) -> Callable[[str], None]:
    """Return answer(text), which sets what the machine of the profile LIAR answers from now on."""
    file, program = tmp_path / "answer", tmp_path / "liar"
    program.write_text(LIAR.replace("ANSWER", str(file)))
    program.chmod(0o755)
    sshd = make_sshd(account.home, options={"ForceCommand": str(program)})
    for name, value in sshd.settings.items():
        setattr(settings, name, value)
    settings.PROTECTION_LEVEL = "NONE"
    settings.THROTTLE_COMMANDS = ""
    settings.RUNNERS_STATUS_FRESHNESS = 0
    RunnerProfile.objects.create(
        name="LIAR",
        runner_type="SSH",
        module_loader_type="NO_MODULE",
        ssh_host="127.0.0.1",
        ssh_port=sshd.port,
        ssh_user=sshd.user,
    )
    return lambda text: file.write_text(text) and None


RUN = {"expid": "a000", "profile_name": "LIAR"}


@pytest.mark.parametrize(
    "said", ["hello\nready\n", "", f"{IDENTITY.replace('4242', '1')}\nready\n", "ready\n", "exit 0"]
)
def test_a_launch_that_is_answered_by_something_else(answer: Callable[[str], None], client: Client, said: str) -> None:
    api = Api(client)
    answer(said)
    body = api.post("run-experiment", RUN, expect=(502,))
    assert body["code"] == "outcome_unknown"
    assert "not valid" in body["detail"] and "forced command" in body["detail"]
    run = RunnerRun.objects.get()
    assert (run.status, run.identity) == ("ACTIVE", None)  # the wrapper may have started the run nevertheless
    status = api.post("get-runner-run-status", {"expid": "a000"})
    assert (status["status"], status["reachable"]) == ("ACTIVE", False)
    assert api.post("run-experiment", RUN, expect=(409,))["code"] == "already_running"
    assert api.post("stop-experiment", {"expid": "a000"}, expect=(502,))["code"] == "runner_unreachable"


def test_the_output_of_a_probe_is_bounded(answer: Callable[[str], None], client: Client) -> None:
    api = Api(client)
    answer(f"{IDENTITY}\nready\n")
    api.post("run-experiment", RUN)
    run = RunnerRun.objects.get()
    assert run.host == "login1.example.org"
    for said in (
        f"{run.key} unknown " + "\x1b[31m\x07\u202e" * 300_000 + "\n",
        f"{run.key} elsewhere {'h' * 300_000}\n",
        f"{run.key} ended 0.-.nan -\n",
        f"{run.key} ended {'9' * 5000}.-.1 -\n",
        f"{run.key} running {IDENTITY}\n{run.key} ended 0.-.1700000000 -\n",
        "\x1b]0;title\x07" * 1000,
    ):
        answer(said)
        RunnerRun.objects.update(probing_until=None)
        status = api.post("get-runner-run-status", {"expid": "a000"})
        assert (status["status"], status["reachable"]) == ("ACTIVE", False), said[:100]
        detail = status["unreachable_detail"]
        assert 0 < len(detail) <= printable.TEXT_LIMIT
        assert all(char.isprintable() or char == "\n" for char in detail)
    answer(f"{run.key} ended 3.-.1700000000 -\n")
    RunnerRun.objects.update(probing_until=None)
    status = api.post("get-runner-run-status", {"expid": "a000"})
    assert (status["status"], status["exit_code"]) == ("TERMINATED", 3)
