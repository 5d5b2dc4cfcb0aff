"""Schemathesis generates valid and invalid requests from the OpenAPI document and must find no fault in the responses.

The requests are the same each time, because the seed is fixed. `schemathesis.toml` contains the few exceptions,
`hooks.py` the names that exist.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sdk import clients
from tests.sdk.clients import Service
from tests.support.environments import StubAccount
from tests.support.processes import PATIENCE
from tests.support.requirements import need

pytestmark = pytest.mark.timeout(400)
PROGRAM = clients.TOOLS / "bin" / "schemathesis"
SEED = int(os.environ.get("SDK_SEED", "1"))
PHASES = os.environ.get("SDK_PHASES", "examples,coverage,fuzzing")


def schemathesis(service: Service, folder: Path, *options: str, **variables: str) -> None:
    """Run Schemathesis. Fail with its report unless it has tested every operation and found nothing."""
    need(PROGRAM.exists(), "Schemathesis (tools/sdk/install)")
    argv = [str(PROGRAM), f"--config-file={clients.HERE / 'schemathesis.toml'}", "run"]
    argv += [
        f"{service.app.url}/openapi.json",
        f"--seed={SEED}",
        f"--phases={PHASES}",
        "--continue-on-failure",
        *options,
    ]
    environment = {"PATH": os.defpath, "HOME": str(folder), "PYTHONPATH": str(clients.HERE), **variables}
    done = subprocess.run(
        argv, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=350 * PATIENCE
    )
    count = service.document.count(b'"operationId"')
    if done.returncode or f"Tested: {count}\n" not in done.stdout:
        pytest.fail(f"{done.stdout}\n{done.stderr}", pytrace=False)
    assert "Traceback" not in service.app.log_text()


def test_schemathesis_finds_nothing_in_an_open_service(
    make_service: Callable[..., Service], account: StubAccount, tmp_path: Path
) -> None:
    account.experiment("a001")
    account.experiment("a002")
    service = make_service(PROTECTION_LEVEL="NONE")
    # No authentication is required here.
    schemathesis(service, tmp_path, "--exclude-checks=ignored_auth", "--max-examples=15")


def test_schemathesis_finds_nothing_in_a_protected_service(
    make_service: Callable[..., Service], account: StubAccount, tmp_path: Path
) -> None:
    account.experiment("a001")
    account.experiment("a002")
    service = make_service(PROTECTION_LEVEL="ALL")
    token = f"--header=Authorization:Bearer {service.token}"
    checks = "--exclude-checks=positive_data_acceptance"  # profile_params are generated, too: see hooks.py
    schemathesis(service, tmp_path, token, checks, "--max-examples=8", WITH_PROFILE_PARAMS="1")
