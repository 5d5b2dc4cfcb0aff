"""Entry points: order, the product's own entries, and what an invalid site package causes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from profiles import extensions
from profiles.extensions import Registry
from runners.services.machines.registry import MODULE_LOADERS, RUNNERS
from tests.support.paths import ROOT

LOADERS = "autosubmit_runners.loaders"
GOOD = """
from runners.services.machines.loaders.base import ModuleLoader

class Spack(ModuleLoader):
    name = "SPACK"
    def prelude(self): return []

class Incomplete(ModuleLoader):
    name = "SPACK"
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a distribution on sys.path: its name, its entry points, and the text of its module `site_loaders`."""

    def put(name: str, points: dict[str, str], module: str = GOOD, group: str = LOADERS) -> None:
        folder = tmp_path / name
        info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        (folder / "site_loaders.py").write_text(module)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"{key} = {value}" for key, value in points.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))
        monkeypatch.syspath_prepend(folder)
        monkeypatch.delitem(sys.modules, "site_loaders", raising=False)

    return put


def loaders() -> Registry[type]:
    """Return a registry that has not loaded anything yet."""
    return Registry(LOADERS, MODULE_LOADERS.base, names=MODULE_LOADERS.names.pattern)


def refusal() -> str:
    with pytest.raises(ImproperlyConfigured) as refused:
        loaders().load()
    return str(refused.value)


def test_the_products_own_names_in_their_order() -> None:
    assert list(RUNNERS) == ["LOCAL", "SSH"]
    assert list(MODULE_LOADERS) == ["CONDA", "VENV", "LMOD", "NO_MODULE"]


def test_a_site_package_adds_a_loader_after_the_products(install: Install) -> None:
    install("site-b", {"SPACK": "site_loaders:Spack"})
    found = loaders()
    assert list(found) == [*MODULE_LOADERS, "SPACK"]
    assert found["SPACK"].__module__ == "site_loaders"
    assert found["CONDA"] is MODULE_LOADERS["CONDA"]


def test_nothing_is_imported_before_the_first_use(install: Install) -> None:
    install("site-a", {"SPACK": "site_loaders:Spack"})
    found = loaders()
    assert "site_loaders" not in sys.modules
    assert found["SPACK"] is found["SPACK"]


@pytest.mark.parametrize(
    ("points", "module", "problem"),
    [
        ({"SPACK": "no_such_module:Spack"}, "", "cannot be imported (ModuleNotFoundError: No module named"),
        ({"SPACK": "site_loaders:Absent"}, GOOD, "cannot be imported (AttributeError: module 'site_loaders' has no"),
        ({"SPACK": "site_loaders:Spack"}, "def (", "cannot be imported (SyntaxError: "),
        ({"SPACK": "site_loaders:Spack"}, "1 / 0 if 0 else {}['x']", "cannot be imported (KeyError: 'x')"),
        ({"SPACK": "json:dumps"}, "", "has to be a subclass of runners.services.machines.loaders.base.ModuleLoader"),
        ({"SPACK": "json:JSONDecoder"}, "", "has to be a subclass of runners.services.machines.loaders.base."),
        ({"SPACK": "site_loaders:Incomplete"}, GOOD, "the class lacks prelude"),
        ({"EASYBUILD": "site_loaders:Spack"}, GOOD, "its attribute `name` has to be 'EASYBUILD', not 'SPACK'"),
        ({"spack": "site_loaders:Spack"}, GOOD, "the name has to match [A-Z][A-Z0-9_]{0,15}"),
        ({"VENV": "site_loaders:Spack"}, GOOD, "the name is taken by autosubmit-runners"),
    ],
    ids=lambda value: next(iter(value.items()))[0] if isinstance(value, dict) else None,
)
def test_an_invalid_entry_stops_the_start_and_is_named(
    install: Install, points: dict[str, str], module: str, problem: str
) -> None:
    install("site-a", points, module)
    words = refusal()
    ((name, value),) = points.items()
    assert f"Cannot use the entry point {name} = '{value}' of the group {LOADERS} in site-a 1.0: " in words
    assert problem in words
    assert words.endswith(". Correct or uninstall the package.")


def test_all_invalid_entries_are_named_at_once(install: Install) -> None:
    install("site-a", {"SPACK": "no_such_module:Spack"})
    install("site-b", {"spack": "site_loaders:Spack"})
    words = refusal()
    assert "in site-a 1.0: " in words and "in site-b 1.0: " in words


def test_two_site_packages_with_one_name(install: Install) -> None:
    install("site-a", {"SPACK": "site_loaders:Spack"})
    install("site-b", {"SPACK": "site_loaders:Spack"})
    assert "in site-b 1.0: the name is taken by site-a 1.0." in refusal()


def test_a_package_with_the_products_name_changes_nothing(install: Install) -> None:
    install("Autosubmit_Runners", {"VENV": "site_loaders:Spack", "SPACK": "site_loaders:Spack"})
    assert list(loaders()) == list(MODULE_LOADERS)


def test_instances_instead_of_classes(install: Install) -> None:
    module = "from datetime import timedelta\nclass Named(timedelta):\n    name = 'day'\nday = Named(1)\nclass_ = Named"
    install("site-a", {"day": "site_loaders:day"}, module, "made_up.things")
    registry: Registry[object] = Registry("made_up.things", "datetime.timedelta", names="[a-z]+", holds_instances=True)
    objects, problems = registry._load(extensions.site_entries("made_up.things"))
    assert (list(objects), problems) == (["day"], [])
    install("site-b", {"night": "site_loaders:class_"}, module, "made_up.things")
    objects, (problem,) = registry._load(extensions.site_entries("made_up.things"))
    assert "it has to be an instance of datetime.timedelta" in problem


def installed(folder: Path, group: str = LOADERS) -> subprocess.CompletedProcess[str]:
    """Return what a process finds whose `profiles` is in `folder`, as in site-packages, and not in a checkout."""
    (folder / "profiles").mkdir(parents=True)
    for name in ("__init__.py", "extensions.py"):
        shutil.copy(ROOT / "profiles" / name, folder / "profiles")
    program = (
        "import json; from profiles import extensions; "
        f"print(json.dumps({{e.name: e.value for e in extensions.own_entries({group!r})}}))"
    )
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd="/", capture_output=True, text=True, timeout=60
    )


def test_an_installed_product_reads_its_own_metadata(install: Install, tmp_path: Path) -> None:
    install("autosubmit-runners", {"VENV": "one:Two", "LMOD": "three:Four"})
    result = installed(tmp_path / "autosubmit-runners")
    assert json.loads(result.stdout) == {"VENV": "one:Two", "LMOD": "three:Four"}


def test_metadata_of_another_place_are_not_the_products(install: Install, tmp_path: Path) -> None:
    install("autosubmit-runners", {"VENV": "one:Two"})
    result = installed(tmp_path / "elsewhere")
    assert "ImproperlyConfigured: The entry points autosubmit_runners.loaders of autosubmit-runners are not found" in (
        result.stderr
    )


def test_a_damaged_pyproject_is_named(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project")
    result = installed(tmp_path)
    assert f"ImproperlyConfigured: {tmp_path}/pyproject.toml cannot be read: " in result.stderr
