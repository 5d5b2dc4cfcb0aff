"""The command-line client as a script calls it.

cli = Cli(app.url)
cli("run", *HERE, "a001", expect=Exit.OK)     its standard output; `cli.told` is its standard error
"""

from __future__ import annotations

import os
import subprocess
import sys

from runners.cli.errors import Exit
from tests.support.processes import PATIENCE
from tests.support.servers import ROOT

HERE = ("--profile", "HERE")


class Cli:
    """The client as a script calls it, in a separate process."""

    def __init__(self, url: str, token: str = "") -> None:
        self.env = {
            "PATH": os.environ["PATH"],
            "AUTOSUBMIT_RUNNERS_URL": url,
            "AUTOSUBMIT_RUNNERS_TOKEN": token,
            "XDG_CONFIG_HOME": "/nonexistent",  # no settings and tokens of the person who runs the tests
        }

    def argv(self, *args: str) -> list[str]:
        return [sys.executable, "-S", "-m", "runners.cli", *args]  # -S: only the standard library

    def __call__(self, *args: str, expect: Exit = Exit.OK) -> str:
        done = subprocess.run(
            self.argv(*args),
            env=self.env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=100 * PATIENCE,
        )
        self.told = done.stderr
        assert done.returncode == expect, (done.returncode, done.stdout, done.stderr)
        return done.stdout

    def start(self, *args: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.argv(*args), env=self.env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
