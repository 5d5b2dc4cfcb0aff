"""Servers and workers exclude what they load at their start from garbage collections."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.paths import ROOT

# Nine of ten new objects are garbage in cycles. Print how many objects are frozen, and how many are made between the
# next two full collections.
PROGRAM = """
import gc, runners_project.wsgi

def made_until_full_collection():
    before = gc.get_stats()[2]["collections"]
    for number in range(1_000_000):
        cycle = []
        cycle.append(cycle)
        if number % 10 == 0:
            kept.append([])
            if gc.get_stats()[2]["collections"] > before:
                return number
    return number

kept = []
made_until_full_collection()
print(gc.get_freeze_count(), made_until_full_collection())
"""


def test_garbage_of_a_server_is_collected_soon() -> None:
    """Without the freeze, 320,000 objects are made between two full collections."""
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    printed = subprocess.check_output([sys.executable, "-c", PROGRAM], cwd=ROOT, env=env, text=True)
    frozen, made = map(int, printed.split())
    assert frozen > 50_000
    assert made < 150_000
