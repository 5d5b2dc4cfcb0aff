"""Fixtures: the real accounts and servers that tests use. The docstring of each module describes its objects.

    account          StubAccount (support/environments.py): a home with the stand-in autosubmit; cleaned after each test
    at_login         at_login(text): add lines at the beginning of `account`'s login profile, for this test
    sshd             SSHServer (support/servers.py) for logins to `account`; repaired after each test
    autosubmit       AutosubmitAccount: a home with real Autosubmit 4.1.17.1, for tests marked `real` (one per session)
    autosubmit_sshd  SSHServer for logins to `autosubmit`
    make_sshd        make_sshd(home, max_sessions=..., env=..., options=...) -> SSHServer of only this test
    runner_type      each of LOCAL, SSH          loader_type   each of the four ModuleLoaderTypes
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

import gc
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

from profiles.config import ModuleLoaderType, RunnerConfig, RunnerType
from runners.pages import run_lists
from runners.services import access, shared_log
from runners.services.machines.registry import get_runner
from runners.services.machines.runner import Runner
from runners.services.machines.ssh.pool import POOL
from tests.support.environments import AUTOSUBMIT_VENV, Account, AutosubmitAccount, StubAccount, find_lmod, loader_id
from tests.support.processes import PATIENCE, wait_for
from tests.support.servers import AppServer, SSHServer, find_sshd

REMEDY = "run tools/install-test-tools and tools/autosubmit-venv (`make test` does)"


def need(present: object, what: str) -> None:
    """Skip the test if a tool is missing; in CI, fail it."""
    if not present:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{what} is missing: {REMEDY}")


def pytest_configure() -> None:
    """Reset the signal handlers to those of a terminal.

    A background job and nohup ignore some signals, and all processes of the tests would inherit that.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Multiply each test's timeout by PATIENCE, and arrange the tests for several processes (pytest-xdist).

    A process gets one group at a time: all cases of one test function, or all tests of a file with module-scoped
    fixtures. Slow tests go first, so that all processes end at about the same time.
    """
    slow = set()
    for item in items:
        file, _, test = item.nodeid.partition("::")
        own = item.get_closest_marker("timeout")
        if own or item.get_closest_marker("real") or file.startswith(SLOW):
            slow.add(item.nodeid)
        seconds = own.args[0] if own else float(config.getini("timeout"))
        item.add_marker(pytest.mark.timeout(seconds * PATIENCE), append=False)
        if not item.get_closest_marker("xdist_group"):
            function = test.partition("[")[0]
            item.add_marker(pytest.mark.xdist_group(file if lives_long(item) else f"{file}::{function}"))
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: item.nodeid not in slow)


SLOW = ("tests/browser/", "tests/compat/", "tests/faults/", "tests/sdk/")  # and tests with their own timeout


def lives_long(item: pytest.Item) -> bool:
    """Return True if a fixture of the test has the scope "module". Fixtures from `getfixturevalue` are not found."""
    fixtures = item._fixtureinfo.name2fixturedefs  # type: ignore[attr-defined]  # no public name for it
    return any(definition.scope == "module" for each in fixtures.values() for definition in each)


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


def live_in(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make LOCAL commands of this process run in the account's home."""
    monkeypatch.setenv("HOME", str(account.home))
    monkeypatch.delenv("AUTOSUBMIT_CONFIGURATION", raising=False)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)  # do not use the developer's own keys


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


def use(server: SSHServer, settings: Any) -> None:
    """Change the settings so that the service in this process can reach `server`."""
    for name, value in server.settings.items():
        setattr(settings, name, value)


def heal(server: SSHServer) -> None:
    """Undo the changes of a test to the server."""
    server.authorized = True
    server.trust_host_key()
    if not server.is_up:
        server.restart()


# --- runners ----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=list(RunnerType), ids=str)
def runner_type(request: pytest.FixtureRequest) -> RunnerType:
    return RunnerType(request.param)


@pytest.fixture(params=list(ModuleLoaderType), ids=loader_id)
def loader_type(request: pytest.FixtureRequest) -> ModuleLoaderType:
    loader = ModuleLoaderType(request.param)
    if loader is ModuleLoaderType.LMOD:
        need(find_lmod(), "Lmod")
    return loader


@pytest.fixture
def config_of(
    runner_type: RunnerType, account: StubAccount, request: pytest.FixtureRequest
) -> Callable[[ModuleLoaderType], RunnerConfig]:
    """config_of(loader) -> RunnerConfig of the current runner_type for `account`."""
    if runner_type is RunnerType.LOCAL:
        return account.config
    server: SSHServer = request.getfixturevalue("sshd")
    return lambda loader: server.config(loader, account.modules(loader))


@pytest.fixture
def config(config_of: Callable[[ModuleLoaderType], RunnerConfig], loader_type: ModuleLoaderType) -> RunnerConfig:
    return config_of(loader_type)


@pytest.fixture
def runner(config_of: Callable[[ModuleLoaderType], RunnerConfig], db: None) -> Runner:
    # `db`: opening a connection queries the host keys that an admin has approved.
    return get_runner(config_of(ModuleLoaderType.NO_MODULE))


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


PROFILES = """
RUNNER_CONFIGURATION:
  PROFILES:
    HERE: {{RUNNER_TYPE: LOCAL, MODULE_LOADER_TYPE: NO_MODULE}}
    THERE: {{RUNNER_TYPE: SSH, MODULE_LOADER_TYPE: NO_MODULE, SSH: {{HOST: 127.0.0.1, PORT: {port}, USER: {user}}}}}
"""


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
    file.write_text(PROFILES.format(port=_sshd.port, user=_sshd.user))
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


@pytest.fixture(autouse=True)
def _nothing_of_another_test() -> None:
    """Clear the caches of view rules, lists of runs and logs. They live for a second; a test's rows are rolled back."""
    access.forget_view_rules()
    run_lists.forget()
    shared_log.forget()


def open_sockets() -> set[str]:
    """Return the sockets of this process, as the kernel names them: `socket:[INODE]`."""
    found = set()
    for entry in os.scandir("/proc/self/fd"):
        with suppress(OSError):  # closed after it was listed
            found.add(os.readlink(entry.path))
    return {name for name in found if name.startswith("socket:")}


@pytest.fixture(autouse=True)
def _no_lost_sockets() -> Iterator[None]:
    """Fail the test that left a socket open, not the one during which the garbage collector runs.

    pytest turns the ResourceWarning of a collected socket into an error of the current test. This fixture is set up
    first, so its teardown runs after those of all other fixtures of the test.
    """
    before = open_sockets()
    yield
    if open_sockets() - before:
        gc.collect()
        connections.close_all()  # a test may have opened this thread's connection to PostgreSQL
        wait_for(lambda: not open_sockets() - before, 10, what="closing of all sockets that the test has opened")


@pytest.fixture(scope="session", autouse=True)
def _sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Set HOME to a temporary folder, so that tests never read or write the developer's own home."""
    home = tmp_path_factory.mktemp("nobody-home")
    before = os.environ.get("HOME")
    os.environ["HOME"] = str(home)
    yield
    if before is not None:
        os.environ["HOME"] = before
    shutil.rmtree(home, ignore_errors=True)
