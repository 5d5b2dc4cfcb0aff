"""The Python client that openapi-python-client makes: typed, and good for the main job against a live server."""

from __future__ import annotations

import os

import pytest

from tests.conftest import need
from tests.sdk import clients
from tests.sdk.conftest import PROFILE, Service
from tests.sdk.expected import EXPECTED

pytestmark = pytest.mark.timeout(300)


def test_the_generated_python_client_does_the_main_job(service: Service) -> None:
    need(clients.PYTHON.exists(), "the generator of Python clients (tools/sdk/install)")
    folder = clients.python_client(service.document)
    environment = {"PATH": os.defpath, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    argv = ["env", "-i", *(f"{name}={value}" for name, value in environment.items())]
    argv += [clients.PYTHON, "-W", "error", clients.HERE / "driver.py", service.app.url, service.token, PROFILE]
    assert clients.run(argv, folder).splitlines() == EXPECTED["python"]
