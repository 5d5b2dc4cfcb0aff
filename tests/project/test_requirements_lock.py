"""requirements.lock, which deployments install: it matches requirements.txt, is complete, and has hashes."""

from __future__ import annotations

import re
from importlib.metadata import requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.support.paths import ROOT

REMEDY = "run `make lock`"
PINNED = re.compile(
    r"^(?P<name>[a-z0-9-]+)==(?P<version>\S+)(?: ; [^\\]+)?(?P<hashes>(?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", re.M
)


def locked() -> dict[str, Version]:
    text = (ROOT / "requirements.lock").read_text()
    found = {match["name"]: Version(match["version"]) for match in PINNED.finditer(text)}
    entries = re.findall(r"^[^\s#].*$", text, re.M)
    assert len(entries) == len(found), "every entry has a version and hashes"
    return found


def required() -> list[Requirement]:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def test_the_lock_matches_the_requirements() -> None:
    versions = locked()
    for requirement in required():
        version = versions.get(canonicalize_name(requirement.name))
        assert version, f"{requirement.name} is not in requirements.lock: {REMEDY}"
        assert version in requirement.specifier, f"{requirement} is not {version}: {REMEDY}"


def test_the_lock_has_the_dependencies_of_the_requirements() -> None:
    """pip with --require-hashes rejects a package without a hash, so one missing entry would break every deployment."""
    versions = locked()
    waiting = [(requirement.name, tuple(requirement.extras)) for requirement in required()]
    seen: set[tuple[str, tuple[str, ...]]] = set()
    while waiting:
        name, extras = waiting.pop()
        assert canonicalize_name(name) in versions, f"{name} is not in requirements.lock: {REMEDY}"
        for text in requires(name) or ():
            needed = Requirement(text)
            if needed.marker and not any(needed.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                continue
            if (following := (needed.name, tuple(needed.extras))) not in seen:
                seen.add(following)
                waiting.append(following)
    assert len(seen) > 15
