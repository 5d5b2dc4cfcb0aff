"""Fixtures of the fault tests.

    make_gate       make_gate() -> Gate: stops the next shell at an exact step
    there, over_ssh RunnerConfig of the stub account, which has the experiment EXPID
    launch_gates    two gates of a launch: `before` and `after` the run directory is created. They apply to servers
                    and to this process
    service         Service in front of the stub account, once for LOCAL and once for SSH
    postgres        Postgres: a database cluster that can be stopped and started
    receiver        Receiver of webhooks
Every test in this package has the marker `faults`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from profiles.config import RunnerConfig
from runners.services import lifecycle
from tests.support.environments import StubAccount
from tests.support.faults import EXPID, Gate, LaunchGates, Service, add_profiles, stand_before
from tests.support.postgres import Postgres, find_postgres
from tests.support.requirements import need
from tests.support.servers import AppServer, SSHServer
from tests.support.webhooks import Receiver

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.faults)


@pytest.fixture(scope="session")
def _migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Do the same as the fixture in tests/support/fixtures.py, with the two profiles of the fault tests."""
    app = AppServer(tmp_path_factory.mktemp("migrated"))
    add_profiles(app)
    return app.database


@pytest.fixture
def make_gate(tmp_path: Path) -> Iterator[Callable[[], Gate]]:
    gates: list[Gate] = []

    def make() -> Gate:
        gates.append(Gate(tmp_path / f"gate-{len(gates)}"))
        return gates[-1]

    yield make
    for gate in gates:
        gate.close()


@pytest.fixture
def there(runner_type: str, account: StubAccount, request: pytest.FixtureRequest) -> RunnerConfig:
    """Return the configuration that reaches the stub account with experiment EXPID: once LOCAL and once SSH."""
    account.experiment(EXPID)
    if runner_type == "LOCAL":
        return account.config()
    server: SSHServer = request.getfixturevalue("sshd")
    return server.config()


@pytest.fixture
def over_ssh(account: StubAccount, sshd: SSHServer, settings: Any, monkeypatch: pytest.MonkeyPatch) -> RunnerConfig:
    """Return the configuration of `there` for SSH only, with short timeouts for a machine that does not answer."""
    account.experiment(EXPID)
    settings.RUNNERS_CONNECT_TIMEOUT = 3
    monkeypatch.setattr(lifecycle, "RETRY_UNREACHABLE", 0.1)
    return sshd.config()


@pytest.fixture
def launch_gates(make_gate: Callable[[], Gate], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LaunchGates:
    before, after = make_gate(), make_gate()
    folder = tmp_path / "gates-bin"
    stand_before(folder, "mkdir", when=".autosubmit-runners/", before=before.text, after=after.text)
    path = f"{folder}:{os.environ['PATH']}"
    monkeypatch.setenv("PATH", path)  # PATH of LOCAL commands; AppServer inherits it
    return LaunchGates(before, after, path)


@pytest.fixture
def service(
    runner_type: str,
    account: StubAccount,
    launch_gates: LaunchGates,
    make_app: Callable[..., AppServer],
    make_sshd: Callable[..., SSHServer],
    request: pytest.FixtureRequest,
) -> Service:
    """Start a service. To set its environment, mark the test with `server_env(NAME=value)`."""
    account.experiment(EXPID)
    sshd = make_sshd(account.home, env={"PATH": launch_gates.path}) if runner_type == "SSH" else None
    marker = request.node.get_closest_marker("server_env")
    env: dict[str, Any] = dict(marker.kwargs) if marker else {}
    env = {"RUNNERS_STATUS_FRESHNESS": "0.2", **env}
    return Service(make_app(account=account, sshd=sshd, env=env), account, sshd)


@pytest.fixture(scope="session")
def _postgres() -> Iterator[Postgres]:
    need(find_postgres(), "PostgreSQL")
    with Postgres() as server:
        app_folder = server.folder / "template"
        app = AppServer(app_folder, env={"DATABASE_URL": server.url("template_of_tests")})
        server.create("template_of_tests")
        app.manage("migrate", "--verbosity=0")
        add_profiles(app)
        yield server


@pytest.fixture
def postgres(_postgres: Postgres) -> Iterator[Postgres]:
    yield _postgres
    _postgres.ensure_up()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.close()
