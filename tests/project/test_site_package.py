"""A package of a site adds a loader, a runner and a command: each is found wherever the product's own are."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.environments import StubAccount
from tests.support.paths import ROOT
from tests.support.servers import AppServer

PREFIX = "/v4/runners/"
PROFILE = {
    "RUNNER_TYPE": "POD",
    "MODULE_LOADER_TYPE": "SPACK",
    "MODULES": "autosubmit@4.1",
    "POD": {"NAME": "login-1", "ZONE": 3},
}
CONFIGURATION = yaml.safe_dump({"RUNNER_CONFIGURATION": {"PROFILES": {"SITE": PROFILE, "OPEN": {}}}})
SPACK = 'spack() { [ "$1 $2" = "load autosubmit@4.1" ] && export SPACK_LOADED="$2"; }\n'
ARCHIVED = "Experiment a001 archived successfully"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder into which pip has installed the package."""
    folder = tmp_path_factory.mktemp("site")
    source = shutil.copytree(ROOT / "tests" / "site_package", folder / "source")  # the build writes into it
    target = folder / "installed"
    options = ["--quiet", "--no-index", "--no-build-isolation", "--no-deps", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(source)], check=True, timeout=100)
    return target


@pytest.fixture
def app(
    make_app: Callable[..., AppServer],
    account: StubAccount,
    at_login: Callable[[str], None],
    site: Path,
    tmp_path: Path,
) -> AppServer:
    at_login(SPACK)
    app = make_app(account=account, env={"PYTHONPATH": str(site)}, workers=1)
    file = tmp_path / "site.yml"
    file.write_text(CONFIGURATION)
    assert "SITE" in app.manage("import_profiles", str(file))
    return app


def document(app: AppServer) -> dict[str, Any]:
    """Return the OpenAPI document that the server's own environment generates."""
    found: dict[str, Any] = yaml.safe_load(app.manage("spectacular", "--validate", "--fail-on-warn"))
    return found


PROGRAM = """
import json
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client

settings.ALLOWED_HOSTS = ["*"]
user, _ = User.objects.get_or_create(username="root", is_superuser=True, is_staff=True)
client = Client()
client.force_login(user)
answers = [client.get(path) if data is None else client.post(path, data) for path, data in {requests!r}]
print("PAGES", json.dumps([answer.content.decode() for answer in answers]))
"""


def pages(app: AppServer, *requests: tuple[str, dict[str, str] | None]) -> list[str]:
    """Return pages as an admin sees them: path, and data of a POST. A program in the server's environment asks."""
    found: list[str] = json.loads(app.manage("shell", "-c", PROGRAM.format(requests=requests)).rpartition("PAGES")[2])
    return found


def test_the_service_documents_and_describes_them(app: AppServer) -> None:
    found = document(app)
    schemas = found["components"]["schemas"]
    assert f"{PREFIX}command/store-experiment" in found["paths"]
    assert schemas["ModuleLoaderType"]["enum"] == ["CONDA", "VENV", "LMOD", "NO_MODULE", "SPACK"]
    assert schemas["RunnerType"]["enum"] == ["LOCAL", "SSH", "POD"]
    assert schemas["ProfilePODParams"]["properties"]["ZONE"]["oneOf"][0] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 9,
    }
    profiles = app.get(f"{PREFIX}configuration/profiles").body
    assert profiles["SITE"] == PROFILE
    assert app.get(f"{PREFIX}configuration/endpoints").body["STORE_EXPERIMENT"] == {"ENABLED": True}
    asked = {item["parameter"]: item for item in app.get(f"{PREFIX}profiles/OPEN/requirements").body["requirements"]}
    assert asked["RUNNER_TYPE"]["choices"] == ["LOCAL", "SSH", "POD"]
    assert asked["MODULES"]["required_when"] == {"MODULE_LOADER_TYPE": ["CONDA", "VENV", "LMOD", "SPACK"]}
    assert asked["POD.ZONE"] == {
        "parameter": "POD.ZONE",
        "type": "integer",
        "required": False,
        "required_when": {"RUNNER_TYPE": ["POD"]},
        "minimum": 1,
        "maximum": 9,
        "help": "the zone of the cluster",
    }
    assert yaml.safe_load(app.manage("export_profiles"))["RUNNER_CONFIGURATION"]["PROFILES"]["SITE"] == PROFILE
    assert "store-experiment" in [command["name"] for command in app.get(f"{PREFIX}commands").body["commands"]]
    assert app.manage("makemigrations", "--check").strip() == "No changes detected"


def test_a_command_of_the_site_runs_with_its_loader_and_its_runner(app: AppServer, account: StubAccount) -> None:
    account.experiment("a001")
    account.control("archive", PRINT=ARCHIVED, LAST=1, EXIT=0)
    body = {"expid": "a001", "profile_name": "SITE", "profile_params": {}, "command_params": {"noclean": True}}
    planned = app.post(f"{PREFIX}command/store-experiment", {**body, "dry_run": True})
    assert planned.body["where"] == "pod@login-1.zone3"
    done = app.post(f"{PREFIX}command/store-experiment", body)
    assert (done.status, done.body["message"]) == (200, "Experiment a001 was archived.")
    assert account.calls("archive") == [["archive", "--noclean", "--", "a001"]]
    assert account.environments()[-1]["SPACK_LOADED"] == "autosubmit@4.1"
    argv = ["-S", "-m", "runners.cli", "--url", app.url, "store-experiment", "a001", "--profile", "SITE", "--dry-run"]
    client = subprocess.run([sys.executable, *argv], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert "autosubmit archive -- a001" in client.stdout, client.stderr
    refused = app.post(
        f"{PREFIX}command/store-experiment",
        {**body, "profile_name": "OPEN", "profile_params": {**PROFILE, "MODULES": "../x", "POD": {"NAME": "login-1"}}},
    )
    assert refused.status == 400
    assert refused.body["errors"] == {
        "profile_params.MODULES": ["'../x' is not a Spack package: give name or name@version."],
        "profile_params.POD.ZONE": ["The profile leaves open which zone: give POD.ZONE in profile_params."],
    }


def test_a_run_in_the_sites_runner(app: AppServer, account: StubAccount) -> None:
    account.experiment("a001")
    account.control("run", SLEEP=60)
    started = app.post(
        f"{PREFIX}command/run-experiment", {"expid": "a001", "profile_name": "SITE", "profile_params": {}}
    )
    assert (started.status, started.body["runner"], started.body["module_loader"]) == (200, "POD", "SPACK")
    assert app.get(f"{PREFIX}runs?runner=POD").body["results"][0]["expid"] == "a001"
    stopped = app.post(f"{PREFIX}command/stop-experiment", {"expid": "a001", "force": True})
    assert (stopped.status, stopped.body["status"]) == (200, "TERMINATED")


def test_pages_and_admin_offer_them(app: AppServer) -> None:
    form, add, change = pages(
        app,
        ("/experiments/store-experiment?profile_name=OPEN", None),
        ("/admin/profiles/runnerprofile/add/", None),
        ("/admin/profiles/runnerprofile/2/change/", None),
    )
    assert "Archive an experiment" in form
    assert "POD: a pod of the site&#x27;s cluster" in form
    assert "SPACK: packages of Spack, loaded in order" in form
    assert 'name="POD.NAME"' in add and "Zone of the pod" in add
    assert "SPACK: one or more Spack packages" in add
    assert 'value="login-1"' in change


def test_the_admin_checks_and_stores_parameters_of_the_sites_runner(app: AppServer) -> None:
    fields = {"name": "FORM", "enabled": "on", "runner_type": "POD", "module_loader_type": "NO_MODULE"}
    add = "/admin/profiles/runnerprofile/add/"
    refused, _ = pages(
        app,
        (add, {**fields, "POD.NAME": "Not a pod", "POD.ZONE": "many"}),
        (add, {**fields, "POD.NAME": "login-2", "POD.ZONE": "4"}),
    )
    assert "is not the name of a pod." in refused
    assert "&#x27;many&#x27; is no zone: give a number from 1 to 9." in refused
    assert app.get(f"{PREFIX}configuration/profiles").body["FORM"]["POD"] == {"NAME": "login-2", "ZONE": 4}
