"""A live server for generated clients: protected, with one LOCAL profile whose autosubmit is the stand-in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.sdk.clients import PROFILE, WITH_JOBS, Service
from tests.support import job_lists
from tests.support.environments import StubAccount
from tests.support.servers import AppServer

STATUSES = ("FAILED", "RUNNING", "COMPLETED")
ENDPOINTS = {"EDIT_CONFIGURATION": {"ENABLED": True}}


@pytest.fixture
def make_service(make_app: Callable[..., AppServer], account: StubAccount, tmp_path: Path) -> Callable[..., Service]:
    """make_service(PROTECTION_LEVEL="ALL", ...) -> Service: settings as environment variables."""

    def make(**settings: str) -> Service:
        app = make_app(account=account, env={"THROTTLE_COMMANDS": "off", "THROTTLE_FAILED_LOGINS": "off", **settings})
        profiles = tmp_path / "profiles.yml"
        profile = {"RUNNER_TYPE": "LOCAL", "MODULE_LOADER_TYPE": "NO_MODULE"}
        profiles.write_text(
            yaml.safe_dump({"RUNNER_CONFIGURATION": {"PROFILES": {PROFILE: profile}, "ENDPOINTS": ENDPOINTS}})
        )
        app.manage("import_profiles", str(profiles))
        account.experiment(WITH_JOBS)
        jobs = [
            job_lists.job(f"{WITH_JOBS}_{chunk}_SIM", status, chunk=chunk) for chunk, status in enumerate(STATUSES, 1)
        ]
        job_lists.write(account.home, WITH_JOBS, jobs)
        (account.home / "autosubmit" / WITH_JOBS / "conf" / f"expdef_{WITH_JOBS}.yml").write_text("CHUNKS: 1\n")
        return Service(app, app.manage("create_token", "sdk", "--create-user").strip())

    return make


@pytest.fixture
def service(make_service: Callable[..., Service], account: StubAccount) -> Service:
    account.control("run", "a001", SLEEP=120)  # the second experiment of a driver, which the driver stops
    return make_service(PROTECTION_LEVEL="ALL", RUNNERS_STATUS_FRESHNESS="0.1")
