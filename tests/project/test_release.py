"""The version of the service, and the package that `make install` installs."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from runners_project import __version__
from tests.support.processes import PATIENCE
from tests.support.servers import ROOT


def test_the_installed_package_has_the_version_of_the_code() -> None:
    assert metadata.version("autosubmit-runners") == __version__


def test_the_installed_script_is_the_command_line_client() -> None:
    script = Path(sys.executable).with_name("autosubmit-runners")
    done = subprocess.run([script, "--help"], capture_output=True, text=True, check=True, timeout=60 * PATIENCE)
    assert done.stdout.startswith("usage: autosubmit-runners ")


def test_the_newest_section_of_the_changelog_is_this_version() -> None:
    """A development version is "unreleased" in the changelog; a released one has a date."""
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    version, _, when = headings[0].partition(" - ")
    base, _, development = __version__.partition(".dev")
    assert version == base
    assert when == "unreleased" if development else re.fullmatch(r"20\d\d-\d\d-\d\d", when)
    for released in headings[1:]:
        assert re.fullmatch(r"\d+\.\d+\.\d+ - 20\d\d-\d\d-\d\d", released), released


def test_sections_of_the_changelog_have_the_usual_names() -> None:
    sections = re.findall(r"^### (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert set(sections) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
