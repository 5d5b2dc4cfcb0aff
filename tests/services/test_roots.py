"""Directories of virtual and conda environments are compared on the machine itself with the allowed roots."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from profiles.models import RunnerProfile
from runners.models import AuditRecord, RunnerRun
from tests.support.environments import StubAccount
from tests.support.rows import World, run_with

pytestmark = pytest.mark.django_db(transaction=True)

READY = {"job_names_list": ["a001_ONE"], "final_status": "READY"}


@pytest.fixture
def places(account: StubAccount, tmp_path: Path) -> Path:
    """Create `allowed/good`, `elsewhere/bad`, `allowed-too/bad`, and links: `allowed/link` to bad, `way` to allowed."""
    for name in ("allowed/good", "elsewhere/bad", "allowed-too/bad"):
        shutil.copytree(account.venv, tmp_path / name, symlinks=True)
        activate = tmp_path / name / "bin" / "activate"
        activate.write_text(f"touch {tmp_path}/activated-{Path(name).name}\n" + activate.read_text())
    (tmp_path / "allowed" / "link").symlink_to(tmp_path / "elsewhere" / "bad")
    (tmp_path / "way").symlink_to(tmp_path / "allowed")
    return tmp_path


@pytest.fixture
def venv_run(
    world: World, places: Path, runner_type: str, request: pytest.FixtureRequest
) -> Callable[..., dict[str, Any]]:
    """Run with a profile of each runner type that leaves MODULES open and allows only the root `allowed`."""
    fields: dict[str, Any] = {"venv_roots": str(places / "allowed")}
    if runner_type == "SSH":
        sshd = request.getfixturevalue("sshd")
        fields |= {"ssh_host": "127.0.0.1", "ssh_port": sshd.port, "ssh_user": sshd.user}
    RunnerProfile.objects.create(name="V", runner_type=runner_type, module_loader_type="VENV", **fields)

    def ask(path: str, command: str = "run-experiment", expect: int = 200, **more: Any) -> dict[str, Any]:
        body = {"expid": "a001", "profile_name": "V", "profile_params": {"MODULES": str(places / path)}, **more}
        return world.ben.post(command, body, expect=expect)

    return ask


@pytest.mark.parametrize("path", ["allowed/good", "way/good"])
def test_environment_within_the_roots_is_used(venv_run: Callable[..., dict[str, Any]], places: Path, path: str) -> None:
    assert venv_run(path)["status"] == "ACTIVE"
    assert (places / "activated-good").exists()
    assert RunnerRun.objects.get().runner_config.venv_roots == (str(places / "allowed"),)


@pytest.mark.parametrize(
    "path", ["elsewhere/bad", "allowed/link", "allowed-too/bad", "elsewhere/none", "allowed/link/x"]
)
def test_environment_elsewhere_is_refused_by_its_real_path(
    venv_run: Callable[..., dict[str, Any]], places: Path, account: StubAccount, path: str
) -> None:
    body = venv_run(path, expect=403)
    assert body["code"] == "profile_forbidden"
    (sentence,) = body["errors"]["profile_params.MODULES"]
    assert str(places / path) in sentence and str(places / "allowed") in sentence
    body = venv_run(path, "set-job-status", expect=403, command_params=READY)
    assert body["code"] == "profile_forbidden"
    assert not (places / "activated-bad").exists()
    assert account.calls() == []
    assert {record.outcome for record in AuditRecord.objects.all()} == {"profile_forbidden"}


def test_a_missing_environment_within_the_roots_is_reported_as_missing(venv_run: Callable[..., dict[str, Any]]) -> None:
    body = venv_run("allowed/none", expect=502)
    assert body["code"] == "command_failed"
    assert "no virtual environment at" in body["detail"]


def test_symbolic_links_as_roots_are_resolved(world: World, places: Path) -> None:
    profile = RunnerProfile(name="V", runner_type="LOCAL", module_loader_type="VENV", venv_roots=str(places / "way"))
    profile.save()
    for path in ("allowed/good", "way/good"):
        run_with(world.ben, profile_name="V", profile_params={"MODULES": str(places / path)})
        RunnerRun.objects.all().delete()


def test_no_profile_widens_the_roots_of_the_site(
    world: World, places: Path, account: StubAccount, settings: Any, runner_type: str, request: Any
) -> None:
    """RUNNERS_VENV_ROOTS also limits the modules that a profile fixes and the roots that a profile allows."""
    settings.RUNNERS_VENV_ROOTS = [str(places / "allowed")]
    fields: dict[str, Any] = {"runner_type": runner_type, "module_loader_type": "VENV"}
    if runner_type == "SSH":
        sshd = request.getfixturevalue("sshd")
        fields |= {"ssh_host": "127.0.0.1", "ssh_port": sshd.port, "ssh_user": sshd.user}
    paths = ("elsewhere/bad", "allowed/link")
    cases = [(path, fixed) for path in paths for fixed in ({"modules": str(places / path)}, {"venv_roots": "/"})]
    for number, (path, fixed) in enumerate(cases):
        RunnerProfile.objects.create(name=f"V{number}", **fields, **fixed)
        params = {} if "modules" in fixed else {"MODULES": str(places / path)}
        status = {"profile_name": f"V{number}", "profile_params": params, "command_params": READY, "expid": "a001"}
        refused = world.root.post("set-job-status", status, expect=403)
        assert refused["code"] == "profile_forbidden" and str(places / "allowed") in refused["detail"], path
        run_with(world.root, expect=403, profile_name=f"V{number}", profile_params=params)
    assert not (places / "activated-bad").exists()
    assert account.calls() == []
    profile = RunnerProfile.objects.create(name="GOOD", **fields, modules=str(places / "allowed/good"))
    run_with(world.root, profile_name=profile.name)
    assert (places / "activated-good").exists()


def test_a_conda_environment_by_path_is_limited_to_the_roots(world: World, account: StubAccount) -> None:
    root = account.conda_environment.parent
    other = account.home / "elsewhere"
    if not other.exists():
        shutil.copytree(root / "autosubmit", other, symlinks=True)
    RunnerProfile.objects.create(name="C", runner_type="LOCAL", module_loader_type="CONDA", venv_roots=str(root))

    def update(modules: str, expect: int = 200) -> dict[str, Any]:
        body = {"expid": "a001", "profile_name": "C", "profile_params": {"MODULES": modules}, "description": "x"}
        return world.ben.post("update-experiment-description", body, expect=expect)

    update("autosubmit")
    update(str(root / "autosubmit"))
    assert update(str(other), expect=403)["code"] == "profile_forbidden"


def test_a_fixed_environment_of_a_profile_may_be_anywhere(places: Path) -> None:
    profile = RunnerProfile(
        name="F",
        runner_type="LOCAL",
        module_loader_type="VENV",
        modules=str(places / "elsewhere" / "bad"),
        venv_roots=str(places / "allowed"),
    )
    assert profile.resolve({}).venv_roots == ()
