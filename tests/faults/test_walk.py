"""On PostgreSQL, every address that reads answers from indexes: see bench/walk.py."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys

from tests.support.postgres import Postgres
from tests.support.processes import PATIENCE
from tests.support.servers import ROOT

RUNS = 4_000
# The lists that grow with the runs. `python -m bench.walk --plans` alone asks all addresses.
LISTS = (
    r"^root /(admin/runners/(runnerrun|auditrecord|operation|webhook|mail)|v4/runners/runs\?|runs\?|history|$)[^&]*$"
)


def test_no_address_reads_a_big_table_from_its_beginning_to_its_end(postgres: Postgres) -> None:
    database = f"walk_{secrets.token_hex(4)}"
    env = {**os.environ, "DATABASE_URL": postgres.create(database), "SECRET_KEY": secrets.token_urlsafe(50)}
    env["DJANGO_SETTINGS_MODULE"] = "runners_project.settings"

    def call(*argv: str) -> str:
        done = subprocess.run(
            [sys.executable, *argv], cwd=ROOT, env=env, capture_output=True, text=True, timeout=300 * PATIENCE
        )
        assert done.returncode == 0, f"{done.stdout[-5000:]}\n{done.stderr[-1000:]}"
        return done.stdout

    call("manage.py", "migrate", "-v", "0")
    call("-m", "bench.large_site", str(RUNS))
    last = call("-m", "bench.walk", "--plans", "--few", "--only", LISTS).splitlines()[-1]
    assert int(last.split()[0]) > 150, last
