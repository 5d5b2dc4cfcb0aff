"""Send each request to both services. An unlisted difference fails, and so does a listed one that no longer occurs."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jwt
import pytest

from tests.compat import side
from tests.compat.cases import CASES
from tests.compat.compare import neutral
from tests.compat.differences import DIFFERENCES
from tests.compat.reference import JWT_SECRET, REFERENCE_VENV, SCRIPT_TOKEN
from tests.compat.side import Side
from tests.compat.table import Pair, generated, write, written
from tests.support.environments import StubAccount
from tests.support.servers import AppServer, SSHServer, find_sshd

Ask = Callable[[str], Pair]

pytestmark = [
    pytest.mark.skipif(not (REFERENCE_VENV / "bin").is_dir(), reason="no Autosubmit API: make reference"),
    pytest.mark.skipif(not find_sshd(), reason="sshd is missing: tools/install-test-tools"),
    pytest.mark.timeout(600),
]


@pytest.fixture(autouse=True)
def _no_lost_sockets() -> None:
    """Replace that of tests/support/isolation.py: the clients keep their connections for all tests of this module."""


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Side, Side]]:
    folder = tmp_path_factory.mktemp("compat")
    account = StubAccount(folder / "home")
    # The Autosubmit API does not execute its commands in a login shell, so sshd itself must set their PATH.
    env = {"PATH": f"{account.home}/bin:/usr/local/bin:/usr/bin:/bin"}
    try:
        with (
            SSHServer(folder / "sshd", home=account.home, env=env) as sshd,
            side.reference(folder, account, sshd) as reference,
            side.ours(folder, account, sshd, reference.login) as ours,
        ):
            yield reference, ours
    finally:
        account.kill()


@pytest.fixture(scope="module")
def ask(sides: tuple[Side, Side]) -> Ask:
    """Return a function that gives both replies to a case. Each case is sent once."""
    pairs: dict[str, Pair] = {}

    def get(case: str) -> Pair:
        if case not in pairs:
            reference, ours = sides
            pairs[case] = Pair(case, neutral(CASES[case](reference)), neutral(CASES[case](ours)))
        return pairs[case]

    return get


@pytest.mark.parametrize("case", CASES)
def test_the_answer_equals_that_of_the_autosubmit_api_except_listed_differences(case: str, ask: Ask) -> None:
    pair = ask(case)
    assert pair.differences == list(DIFFERENCES.get(case, {})), (pair.reference, pair.ours)


@pytest.mark.parametrize("case", CASES)
def test_every_error_can_be_read_by_clients_of_today(case: str, ask: Ask) -> None:
    reply = ask(case).ours
    if reply.status >= 400 and "CORS" not in case:
        assert reply.body["error"] is True
        assert isinstance(reply.body["detail"], str)
        assert reply.body["error_message"] == reply.body["detail"]


@pytest.mark.parametrize("credential", ["login", "token for scripts", "signed with that token", "expired", "changed"])
def test_both_apis_find_the_same_user_for_the_same_credentials(credential: str, sides: tuple[Side, Side]) -> None:
    reference, ours = sides
    claims = {"user_id": "eva", "sub": "eva", "exp": int(time.time()) + 600}
    login = reference.login("eva")["Authorization"].removeprefix("Bearer ")
    text = {
        "login": login,
        "token for scripts": SCRIPT_TOKEN,
        "signed with that token": jwt.encode(claims, SCRIPT_TOKEN.ljust(32, "\0"), algorithm="HS256"),
        "expired": jwt.encode({**claims, "exp": int(time.time()) - 600}, JWT_SECRET, algorithm="HS256"),
        "changed": login[:-5] + ("A" if login[-5] != "A" else "B") + login[-4:],
    }[credential]
    headers = {"Authorization": f"Bearer {text}"}
    there = reference.get("/v4/auth/verify-token", **headers).body["user"]
    here = ours.get("/v4/user-settings/preferred-username", **headers).body.get("user_id")
    assert there == here == {"login": "eva", "token for scripts": "User"}.get(credential)


def test_the_default_secret_of_the_autosubmit_api_stops_our_start(sides: tuple[Side, Side], tmp_path: Path) -> None:
    show = "from autosubmit_api import config; print(config.JWT_SECRET)"
    argv = [str(REFERENCE_VENV / "bin" / "python"), "-c", show]
    shown = subprocess.run(argv, env={"HOME": str(tmp_path)}, cwd=tmp_path, capture_output=True, text=True, check=True)
    default = shown.stdout.splitlines()[-1]
    with pytest.raises(
        AssertionError, match="AS_API_JWT_SECRET is the default SECRET_KEY of the Autosubmit API"
    ) as told:
        AppServer(tmp_path, env={"AS_API_JWT_SECRET": default})
    assert default not in str(told.value)


def test_differences_are_listed_of_known_cases_only() -> None:
    assert set(DIFFERENCES) <= set(CASES)


def test_the_document_is_up_to_date(ask: Ask) -> None:
    """`make compat` writes it (COMPAT_WRITE=1)."""
    text = generated([ask(case) for case in CASES])
    if os.environ.get("COMPAT_WRITE"):
        write(text)
    assert written() == text
