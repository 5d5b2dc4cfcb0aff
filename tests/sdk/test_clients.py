"""Generated clients: each is generated from the document of a live server, checked, and used to run experiments."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from tests.sdk import clients
from tests.sdk.clients import PROFILE, WITH_JOBS, Service
from tests.sdk.expected import EXPECTED
from tests.support.requirements import need

pytestmark = pytest.mark.timeout(300)


def test_the_generated_python_client_does_the_main_job(service: Service) -> None:
    need(clients.GENERATOR.exists(), "openapi-generator (tools/sdk/install)")
    folder = clients.python_client(service.document)
    environment = {"PATH": os.defpath, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    argv = ["env", "-i", *(f"{name}={value}" for name, value in environment.items())]
    argv += [clients.PYTHON, "-W", "error", clients.HERE / "driver.py", service.app.url, service.token, PROFILE]
    argv.append(WITH_JOBS)
    assert clients.run(argv, folder).splitlines() == EXPECTED["python"]


def test_the_generated_java_client_does_the_main_job(service: Service) -> None:
    need(clients.GENERATOR.exists(), "openapi-generator (tools/sdk/install)")
    need(shutil.which("javac"), "javac (tools/install-test-tools)")
    folder = clients.java_client(service.document)
    argv = ["java", "-cp", f"{folder / 'classes'}{os.pathsep}{clients.java_libraries()}"]
    argv += ["Driver", service.app.url, service.token, PROFILE]
    assert clients.run(argv, folder).splitlines() == EXPECTED["java"]


def test_r_accepts_the_generated_r_client(service: Service) -> None:
    need(clients.GENERATOR.exists(), "openapi-generator (tools/sdk/install)")
    need(shutil.which("Rscript"), "R (tools/install-test-tools)")
    document = service.document
    tags = [tag["name"].replace(" ", "_") for tag in json.loads(document)["tags"]]
    files = (clients.r_client(document) / "R").glob("*_api.R")
    assert sorted(file.name for file in files) == sorted(f"{tag}_api.R" for tag in tags)


def test_the_generated_typescript_client_does_the_main_job(service: Service) -> None:
    need(clients.NODE_PACKAGES.is_dir(), "TypeScript (tools/sdk/install)")
    folder = clients.typescript_client(service.document)
    argv = [clients.NODE, folder / "dist" / "driver.js", service.app.url, service.token, PROFILE, WITH_JOBS]
    assert clients.run(argv, folder).splitlines() == EXPECTED["typescript"]
