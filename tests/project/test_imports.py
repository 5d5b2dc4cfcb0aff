"""What import-linter's contracts (pyproject.toml) cannot state: no cycle, and machines below the use cases."""

from __future__ import annotations

from collections.abc import Iterator

import grimp
import pytest

MACHINES = "runners.services.machines"


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("profiles", "runners", "runners_project", cache_dir=None)


def imports_of(graph: grimp.ImportGraph) -> dict[str, set[str]]:
    return {module: set(graph.find_modules_directly_imported_by(module)) for module in graph.modules}


def in_cycles(imports: dict[str, set[str]]) -> set[str]:
    """Return the modules that remain when those that import no remaining module are removed again and again, and those
    that no remaining module imports."""
    left = set(imports)
    while True:
        imported = {target for module in left for target in imports[module] & left}
        ends = {module for module in left if not imports[module] & left or module not in imported}
        if not ends:
            return left
        left -= ends


def test_no_modules_import_each_other_in_a_cycle(graph: grimp.ImportGraph) -> None:
    assert in_cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == {"b", "c"}
    assert in_cycles(imports_of(graph)) == set()


def use_cases_imported_by_machines(graph: grimp.ImportGraph) -> Iterator[tuple[str, str]]:
    for module, imported in imports_of(graph).items():
        if module == MACHINES or module.startswith(f"{MACHINES}."):
            for target in imported:
                if target.startswith("runners.services.") and not target.startswith(f"{MACHINES}."):
                    yield module, target


def test_the_machines_layer_imports_no_use_case(graph: grimp.ImportGraph) -> None:
    assert list(use_cases_imported_by_machines(graph)) == []
