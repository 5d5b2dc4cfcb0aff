"""Each request to both services. A difference that differences.py does not list fails, and so does one that is gone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from tests.compat import side
from tests.compat.cases import CASES
from tests.compat.compare import neutral
from tests.compat.differences import DIFFERENCES
from tests.compat.reference import REFERENCE_VENV
from tests.compat.side import Side
from tests.compat.table import Pair, generated, write, written
from tests.environments import StubAccount
from tests.servers import SSHServer, find_sshd

Ask = Callable[[str], Pair]

pytestmark = [
    pytest.mark.skipif(not (REFERENCE_VENV / "bin").is_dir(), reason="no Autosubmit API: make reference"),
    pytest.mark.skipif(not find_sshd(), reason="sshd is missing: tools/install-test-tools"),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Side, Side]]:
    folder = tmp_path_factory.mktemp("compat")
    account = StubAccount(folder / "home")
    # The Autosubmit API executes its commands in no login shell, so sshd itself has to give them their PATH.
    env = {"PATH": f"{account.home}/bin:/usr/local/bin:/usr/bin:/bin"}
    try:
        with (
            SSHServer(folder / "sshd", home=account.home, env=env) as sshd,
            side.reference(folder, account, sshd) as reference,
            side.ours(folder, account, sshd) as ours,
        ):
            yield reference, ours
    finally:
        account.kill()


@pytest.fixture(scope="module")
def ask(sides: tuple[Side, Side]) -> Ask:
    """Both answers to a case, asked once."""
    pairs: dict[str, Pair] = {}

    def get(case: str) -> Pair:
        if case not in pairs:
            reference, ours = sides
            pairs[case] = Pair(case, neutral(CASES[case](reference)), neutral(CASES[case](ours)))
        return pairs[case]

    return get


@pytest.mark.parametrize("case", CASES)
def test_the_answer_is_that_of_the_autosubmit_api_but_for_what_is_listed(case: str, ask: Ask) -> None:
    pair = ask(case)
    assert pair.differences == list(DIFFERENCES.get(case, {})), (pair.reference, pair.ours)


@pytest.mark.parametrize("case", CASES)
def test_every_error_can_be_read_by_clients_of_today(case: str, ask: Ask) -> None:
    reply = ask(case).ours
    if reply.status >= 400 and "CORS" not in case:
        assert reply.body["error"] is True
        assert isinstance(reply.body["detail"], str)
        assert reply.body["error_message"] == reply.body["detail"]


def test_differences_are_listed_of_known_cases_only() -> None:
    assert set(DIFFERENCES) <= set(CASES)


def test_the_document_is_up_to_date(ask: Ask) -> None:
    """`make compat` writes it (COMPAT_WRITE=1)."""
    text = generated([ask(case) for case in CASES])
    if os.environ.get("COMPAT_WRITE"):
        write(text)
    assert written() == text
