"""The version of the service, and the package that `make install` installs."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

from runners_project import __version__


def test_the_installed_package_has_the_version_of_the_code() -> None:
    assert metadata.version("autosubmit-runners") == __version__


def test_the_installed_script_is_the_command_line_client() -> None:
    script = Path(sys.executable).with_name("autosubmit-runners")
    done = subprocess.run([script, "--help"], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("usage: autosubmit-runners ")
