"""Fixtures: the real accounts and servers that tests use. The docstring of each module describes its objects.

    account          StubAccount (support/environments.py): a home with the stand-in autosubmit; cleaned after each test
    at_login         at_login(text): add lines at the beginning of `account`'s login profile, for this test
    sshd             SSHServer (support/servers.py) for logins to `account`; repaired after each test
    autosubmit       AutosubmitAccount: a home with real Autosubmit 4.1.17.1, for tests marked `real` (one per session)
    autosubmit_sshd  SSHServer for logins to `autosubmit`
    make_sshd        make_sshd(home, max_sessions=..., env=..., options=...) -> SSHServer of only this test
    runner_type      each of LOCAL, SSH          loader_type   each module loader
    config           RunnerConfig of `runner_type` and `loader_type` for `account`; also sets the settings that it needs
    runner           Runner for a `config` with NO_MODULE, of each runner_type
    make_app         make_app(env=..., workers=2, account=account, sshd=sshd) -> AppServer, migrated and running
    app              an AppServer for `account` and `sshd`, protection off
    module_app       an AppServer with short waits and the profiles HERE and THERE, shared by all tests of a module. Its
                     database is restored after each test; it is restarted after a test that stopped it or `sshd`

LOCAL commands run in `account.home` because the fixtures set HOME of the test process (and of AppServers) to it.
Tests that need a missing tool are skipped with the reason; if CI is set, they fail.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from profiles.config import RunnerConfig
from profiles.rules import MODULE_LOADERS, RUNNERS
from runners.services.machines.registry import get_runner
from runners.services.machines.runner import Runner
from runners.services.machines.ssh.pool import POOL
from tests.support.environments import (
    AUTOSUBMIT_VENV,
    Account,
    AutosubmitAccount,
    StubAccount,
    find_lmod,
    live_in,
    loader_id,
)
from tests.support.requirements import need
from tests.support.servers import PROFILES_YAML, AppServer, SSHServer, find_sshd, heal, use

# --- accounts ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def _account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StubAccount]:
    account = StubAccount(tmp_path_factory.mktemp("account") / "home")
    yield account
    account.kill()


@pytest.fixture
def account(_account: StubAccount, monkeypatch: pytest.MonkeyPatch) -> Iterator[StubAccount]:
    live_in(_account, monkeypatch)
    yield _account
    _account.reset()


@pytest.fixture
def at_login(account: StubAccount) -> Iterator[Callable[[str], None]]:
    profile = account.home / ".bash_profile"
    before = profile.read_text()

    def add(text: str) -> None:
        profile.write_text(text + before)

    yield add
    profile.write_text(before)


@pytest.fixture(scope="session")
def _autosubmit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AutosubmitAccount]:
    need((AUTOSUBMIT_VENV / "bin" / "autosubmit").exists(), "Autosubmit")
    account = AutosubmitAccount(tmp_path_factory.mktemp("autosubmit") / "home")
    yield account
    account.kill()


@pytest.fixture
def autosubmit(_autosubmit: AutosubmitAccount, monkeypatch: pytest.MonkeyPatch) -> Iterator[AutosubmitAccount]:
    live_in(_autosubmit, monkeypatch)
    yield _autosubmit
    _autosubmit.kill()


# --- sshd -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def _sshd(_account: StubAccount, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SSHServer]:
    need(find_sshd(), "sshd")
    with SSHServer(tmp_path_factory.mktemp("sshd"), home=_account.home) as server:
        yield server


@pytest.fixture
def sshd(_sshd: SSHServer, account: StubAccount, settings: Any) -> Iterator[SSHServer]:
    use(_sshd, settings)
    yield _sshd
    POOL.close()
    heal(_sshd)


@pytest.fixture(scope="session")
def _autosubmit_sshd(_autosubmit: AutosubmitAccount, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SSHServer]:
    need(find_sshd(), "sshd")
    with SSHServer(tmp_path_factory.mktemp("autosubmit-sshd"), home=_autosubmit.home) as server:
        yield server


@pytest.fixture
def autosubmit_sshd(_autosubmit_sshd: SSHServer, autosubmit: AutosubmitAccount, settings: Any) -> Iterator[SSHServer]:
    use(_autosubmit_sshd, settings)
    yield _autosubmit_sshd
    POOL.close()
    heal(_autosubmit_sshd)


@pytest.fixture
def make_sshd(tmp_path: Path, settings: Any) -> Iterator[Callable[..., SSHServer]]:
    need(find_sshd(), "sshd")
    servers: list[SSHServer] = []

    def make(home: Path, **options: Any) -> SSHServer:
        server = SSHServer(tmp_path / f"sshd-{len(servers)}", home=home, **options)
        servers.append(server)
        server.start()
        use(server, settings)
        return server

    yield make
    POOL.close()
    for server in servers:
        server.stop()


# --- runners ----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=list(RUNNERS), ids=str)
def runner_type(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=list(MODULE_LOADERS), ids=loader_id)
def loader_type(request: pytest.FixtureRequest) -> str:
    loader = request.param
    if loader == "LMOD":
        need(find_lmod(), "Lmod")
    return loader


@pytest.fixture
def config_of(runner_type: str, account: StubAccount, request: pytest.FixtureRequest) -> Callable[[str], RunnerConfig]:
    """config_of(loader) -> RunnerConfig of the current runner_type for `account`."""
    if runner_type == "LOCAL":
        return account.config
    server: SSHServer = request.getfixturevalue("sshd")
    return lambda loader: server.config(loader, account.modules(loader))


@pytest.fixture
def config(config_of: Callable[[str], RunnerConfig], loader_type: str) -> RunnerConfig:
    return config_of(loader_type)


@pytest.fixture
def runner(config_of: Callable[[str], RunnerConfig], db: None) -> Runner:
    # `db`: opening a connection queries the host keys that an admin has approved.
    return get_runner(config_of("NO_MODULE"))


# --- the service ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def _migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a migrated database file. It is made once and copied for each server."""
    return AppServer(tmp_path_factory.mktemp("migrated")).database


@pytest.fixture
def make_app(_migrated: Path, tmp_path: Path) -> Iterator[Callable[..., AppServer]]:
    servers: list[AppServer] = []

    def make(
        *,
        account: Account | None = None,
        sshd: SSHServer | None = None,
        env: dict[str, str] | None = None,
        **options: Any,
    ) -> AppServer:
        environment = {"HOME": str(account.home)} if account else {}
        environment |= sshd.environment if sshd else {}
        folder = tmp_path / f"app-{len(servers)}"
        server = AppServer(folder, env=environment | (env or {}), template_db=_migrated, **options)
        servers.append(server)
        server.start()
        return server

    yield make
    for server in servers:
        server.stop()


@pytest.fixture
def app(make_app: Callable[..., AppServer], account: StubAccount, sshd: SSHServer) -> AppServer:
    return make_app(account=account, sshd=sshd)


@pytest.fixture(scope="module")
def _module_app(
    _account: StubAccount, _sshd: SSHServer, _migrated: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[AppServer, Path]]:
    """Yield the server, and the copy of its database from which it is restored for each test."""
    folder = tmp_path_factory.mktemp("module-app")
    waits = {"RUNNERS_STATUS_FRESHNESS": "0.1", "RUNNERS_CONNECT_TIMEOUT": "3", "RUNNERS_PROBE_TIMEOUT": "5"}
    env = {"HOME": str(_account.home), **_sshd.environment, **waits}
    server = AppServer(folder, env=env, template_db=_migrated)
    file = folder / "profiles.yml"
    file.write_text(PROFILES_YAML.format(port=_sshd.port, user=_sshd.user))
    server.manage("import_profiles", str(file))
    template = folder / "template.sqlite3"
    shutil.copy(server.database, template)
    with server:
        yield server, template


@pytest.fixture
def module_app(_module_app: tuple[AppServer, Path], account: StubAccount, sshd: SSHServer) -> Iterator[AppServer]:
    server, template = _module_app
    environment, machine = dict(server.environment), sshd.process_id
    yield server
    account.kill()  # first, so that no process changes rows any more
    is_changed = server.environment != environment or not server.is_up or sshd.process_id != machine
    server.environment = environment
    server.headers.clear()
    if is_changed:  # so that it forgets the state of the machine in this test
        server.stop()
    server.restore(template)
    if is_changed:
        server.start()
