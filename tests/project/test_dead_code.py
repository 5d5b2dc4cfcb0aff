"""Dead code: a function, class, constant or method of the service that nothing mentions but its definition."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from django.apps import AppConfig
from drf_spectacular.plumbing import OpenApiGeneratorExtension

from tests.support.servers import ROOT

PACKAGES = ("profiles", "runners", "runners_project")
# Frameworks look these names up in a module or a class without a base that declares them.
LOOKED_UP = re.compile(
    r"__\w+__|(clean|validate)_\w+|has_\w+_permission|process_view|urlpatterns|app_name|handler\d+|regex|to_python|to_url"
)
REGISTERED_BY_THEIR_BASE = (AppConfig, OpenApiGeneratorExtension)


def sources() -> list[Path]:
    """The modules with code of ours; each name of the settings is for a framework."""
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return [path for path in paths if "migrations" not in path.parts and path.name != "settings.py"]


def count_words() -> Counter[str]:
    """Count each word of all source files, templates and scripts. Tests do not count."""
    folders = [ROOT / name for name in (*PACKAGES, "templates")]
    files = [path for folder in folders for path in folder.rglob("*") if path.suffix in {".py", ".html", ".js", ".sh"}]
    return Counter(word for path in (*files, ROOT / "pyproject.toml") for word in re.findall(r"\w+", path.read_text()))


def names_of(body: list[ast.stmt]) -> Iterator[str]:
    """Yield what the statements define. A decorator may register what it decorates, and fields are used as a whole."""
    for node in body:
        match node:
            case ast.FunctionDef(name=name, decorator_list=[]) | ast.ClassDef(name=name, decorator_list=[]):
                yield name
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr()):
                yield name


def is_inherited(cls: type, name: str) -> bool:
    """Whether a base class has the name, so that its code uses it."""
    return any(hasattr(base, name) or name in inspect.get_annotations(base) for base in cls.__mro__[1:])


def unused(path: Path, count: Counter[str]) -> Iterator[str]:
    def is_single(name: str) -> bool:
        return count[name] == 1 and not LOOKED_UP.fullmatch(name)

    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    tree = ast.parse(path.read_text())
    names = {name for name in names_of(tree.body) if is_single(name)}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            members = {name for name in names_of(node.body) if is_single(name)}
            members -= {f"get_{name}" for name in names_of(node.body)}  # of a SerializerMethodField
            if node.name in names or members:
                cls = getattr(importlib.import_module(module), node.name)
                if issubclass(cls, REGISTERED_BY_THEIR_BASE):
                    names.discard(node.name)
                yield from (f"{module}.{node.name}.{name}" for name in members if not is_inherited(cls, name))
    yield from (f"{module}.{name}" for name in names)


def test_everything_is_used() -> None:
    count = count_words()
    assert [name for path in sources() for name in unused(path, count)] == []
