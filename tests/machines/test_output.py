"""The output of machines, and where it is stored."""

from __future__ import annotations

import pytest

from runners.models import AuditRecord, RunReason
from runners.services import lifecycle, probing, starting
from runners.services.machines.output import last_lines, plain_text
from runners.services.machines.registry import get_runner
from tests.support.environments import StubAccount
from tests.support.processes import wait_for


def test_plain_text_has_no_escapes_and_nothing_that_cannot_be_stored() -> None:
    assert plain_text(b"\x1b[31mred\x1b[0m\r\n\0\xff gr\xc3\xb6\xc3\x9fe\r") == "red\n\ufffd\ufffd größe\n"
    assert last_lines(b"one\n\ntwo\0\nthree  \n", lines=2) == "two\ufffd\nthree"


@pytest.mark.django_db
def test_a_run_whose_log_ends_with_binary_can_be_ended(account: StubAccount) -> None:
    """PostgreSQL rejects texts with a NUL: the end could not be stored, and each probe of the run failed."""
    account.experiment("a001")
    account.control("run", "a001", SLEEP=600)
    run = starting.run_experiment(expid="a001", config=account.config(), profile_name="MACHINE", audit=AuditRecord())
    with (account.home / ".autosubmit-runners" / run.key / "log").open("ab") as log:
        log.write(b"\0\x01binary\0\xfe\n")
    identity = lifecycle.identity_of(run)
    assert identity
    get_runner(account.config()).signal(run.key, identity, "KILL", timeout=30)

    def has_ended() -> bool:
        probing.probe([run])
        return not run.is_active

    wait_for(has_ended, what="end of the run")
    run.refresh_from_db()
    assert run.reason == RunReason.KILLED
    assert "binary" in run.detail
