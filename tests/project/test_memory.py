"""Servers and workers exclude what they load at their start from garbage collections."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.paths import ROOT

PROGRAM = "import gc, runners_project.wsgi; print(gc.get_freeze_count())"


def test_a_server_freezes_its_modules() -> None:
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    printed = subprocess.check_output([sys.executable, "-c", PROGRAM], cwd=ROOT, env=env, text=True)
    assert int(printed) > 50_000
