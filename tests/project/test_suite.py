"""The layout of the tests: where the tests of a package are, and what a test module may import."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.support.paths import ROOT

TESTS = ROOT / "tests"
# The table in docs/testing.md: source folder -> folders of tests.
FOLDERS = {
    source: re.findall(r"`(tests/\w+)/`", tests)
    for source, tests in re.findall(
        r"^\| `([\w/]+)/` \| (.+) \|$", (ROOT / "docs" / "testing.md").read_text(), re.MULTILINE
    )
}
PACKAGES = sorted(
    {
        module.parent.relative_to(ROOT).as_posix()
        for package in ("profiles", "runners", "runners_project")
        for module in (ROOT / package).rglob("*.py")
        if module.stat().st_size and module.parent.name != "migrations"
    }
)
MODULES = [path for path in TESTS.rglob("*.py") if path.name.startswith("test_") or path.name == "conftest.py"]


@pytest.mark.parametrize("package", PACKAGES)
def test_the_map_names_the_test_folder_of_every_package(package: str) -> None:
    sources = [source for source in FOLDERS if f"{package}/".startswith(f"{source}/")]
    assert sources, f"add {package}/ to the map in docs/testing.md"
    folders = FOLDERS[max(sources, key=len)]
    assert folders
    for folder in folders:
        assert list((ROOT / folder).glob("test_*.py")), f"{folder} has no tests"


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(TESTS).as_posix())
def test_no_test_module_imports_another_test_module(module: Path) -> None:
    for node in ast.walk(ast.parse(module.read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            shared = name.startswith("tests.") and name.rpartition(".")[2].startswith(("test_", "conftest"))
            assert not shared, f"line {node.lineno}: move what both need to tests/support"
