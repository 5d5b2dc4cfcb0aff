"""The TypeScript client of openapi-typescript and openapi-fetch: typed, and good for the main job."""

from __future__ import annotations

import pytest

from tests.conftest import need
from tests.sdk import clients
from tests.sdk.conftest import PROFILE, Service
from tests.sdk.expected import EXPECTED

pytestmark = pytest.mark.timeout(300)


def test_the_generated_typescript_client_does_the_main_job(service: Service) -> None:
    need(clients.NODE_PACKAGES.is_dir(), "TypeScript (tools/sdk/install)")
    folder = clients.typescript_client(service.document)
    argv = [clients.NODE, folder / "dist" / "driver.js", service.app.url, service.token, PROFILE]
    assert clients.run(argv, folder).splitlines() == EXPECTED["typescript"]
