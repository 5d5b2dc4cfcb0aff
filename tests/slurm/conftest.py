"""Fixtures of the tests with a real Slurm. All are created once per session; each test has its own experiment.

    slurm     Slurm (cluster.py): the cluster, which can be inspected without our code
    account   SlurmAccount (account.py): the unprivileged account with Autosubmit
    site      Site: a user of the service, which reaches the account over SSH (profile CLUSTER)

They need root (slurmd, useradd) and the packages of tools/slurm-packages.txt: `make test-slurm` installs them. In a
run of the whole suite without them the tests are skipped. If CI is set and the packages are there, none is skipped.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.slurm.account import SlurmAccount
from tests.slurm.cluster import Slurm, find_slurm
from tests.slurm.site import Site
from tests.support.environments import AUTOSUBMIT_VENV
from tests.support.requirements import need
from tests.support.servers import AppServer, find_sshd
from tests.support.workflow import ENDPOINTS

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.slurm)


@pytest.fixture(scope="session")
def _folder() -> Iterator[Path]:
    """Yield a short path that every account may enter, unlike pytest's own."""
    if os.geteuid() != 0:
        pytest.skip("the Slurm tests need root")
    need(find_slurm(), "Slurm (tools/slurm-packages.txt)")
    need(find_sshd(), "sshd")
    need((AUTOSUBMIT_VENV / "bin" / "autosubmit").exists(), "Autosubmit")
    folder = Path(tempfile.mkdtemp(prefix="as-slurm-"))
    folder.chmod(0o755)
    account = folder / "account"
    account.mkdir()
    account.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def slurm(_folder: Path) -> Iterator[Slurm]:
    with Slurm(_folder) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def account(_folder: Path, slurm: Slurm) -> Iterator[SlurmAccount]:
    with SlurmAccount(_folder / "account", slurm) as account:
        yield account
        slurm.cancel_all(account.name)


@pytest.fixture(scope="session")
def _app(_folder: Path, account: SlurmAccount, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    folder = tmp_path_factory.mktemp("slurm-app")
    with AppServer(folder, env=account.login.environment) as app:
        profile = {
            "RUNNER_TYPE": "SSH",
            "MODULE_LOADER_TYPE": "VENV",
            "MODULES": str(account.venv),
            "SSH": {"HOST": "127.0.0.1", "PORT": account.login.port, "USER": account.name},
        }
        file = folder / "profiles.yml"
        found = {"PROFILES": {"CLUSTER": profile}, "ENDPOINTS": ENDPOINTS}
        file.write_text(yaml.safe_dump({"RUNNER_CONFIGURATION": found}))
        app.manage("import_profiles", str(file))
        yield app


@pytest.fixture
def site(_app: AppServer, account: SlurmAccount, slurm: Slurm) -> Iterator[Site]:
    site = Site(_app, account, slurm)
    yield site
    site.clean()
