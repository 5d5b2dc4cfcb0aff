"""Write docs/benchmarks.md: the machine, the versions, the command, and the table."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench.cases import Effort, Result
from bench.stage import PEOPLE, WORKERS
from tests.compat.reference import REFERENCE_VENV

HEAD = "<!-- Written by `make bench`; the text below the table is kept. -->"
KEEP = "## What limits what remains"
INTRODUCTION = """\
`make bench` starts this service (gunicorn, gthread) and the Autosubmit API 4.2.0 from PyPI (`autosubmit_api start`),
{workers} workers each, a real sshd on loopback (configured as Debian does, with PAM), and an `autosubmit` that does
nothing, so that the measurement contains only the time of the services. Both have the same profiles (`NO_MODULE`) for
the same account and get their requests in turns, in one run. Medians of {calls} calls each; requests per second by wrk,
median of {rounds} rounds of {seconds} s. SQLite, no rate limit. Both need credentials for every request
(PROTECTION_LEVEL=ALL): here tokens of {people} people, there its fixed token for scripts, the cheapest check it has.
Lmod is switched off for the account (`LMOD_ALLOW_ROOT_USE=no USER_IS_ROOT=1`): Debian's Lmod adds 200 ms to every login
shell, and this service uses a login shell, which the reference does not.
"""


def write(path: Path, results: list[Result], effort: Effort, seconds: float) -> None:
    """Replace everything above KEEP. The text below it is written by hand and kept."""
    kept = path.read_text().partition(KEEP)[2] if path.exists() else "\n"
    path.write_text(text(results, effort, seconds) + KEEP + kept)


def text(results: list[Result], effort: Effort, seconds: float) -> str:
    lines = [
        "# Benchmarks",
        "",
        HEAD,
        "",
        *INTRODUCTION.format(
            workers=WORKERS, calls=effort.calls, rounds=effort.rounds, seconds=effort.seconds, people=PEOPLE
        ).splitlines(),
        "",
        "| what | ours | reference | ratio | to reach | |",
        "|---|---|---|---|---|---|",
    ]
    verdicts = {True: "reached", False: "**missed**", None: ""}
    lines += [
        f"| {r.what} | {r.ours} | {r.reference} | {r.ratio} | {r.target} | {verdicts[r.reached]} |" for r in results
    ]
    lines += ["", *(f"- {note}" for result in results for note in result.notes), ""]
    lines += [
        f"Measured on {datetime.now(UTC):%Y-%m-%d} in {seconds / 60:.0f} minutes: {machine()}.",
        f"Versions: {versions()}.",
        "",
        "",
    ]
    return "\n".join(lines)


def machine() -> str:
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    gigabytes = round(int(memory[1]) / 1024**2) if memory else 0
    load = os.getloadavg()[2]
    return (
        f"{os.cpu_count()} cores, {gigabytes} GB, Linux {platform.release().partition('-')[0]} "
        f"(load over the last 15 minutes at the end: {load:.1f})"
    )


def versions() -> str:
    names = ("Django", "djangorestframework", "gunicorn", "paramiko")
    ours = [f"{name} {version(name)}" for name in names]
    sshd = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=False).stderr.split(",")[0].strip()
    argv = [str(REFERENCE_VENV / "bin" / "pip"), "list", "--disable-pip-version-check"]
    listed = dict(
        line.split()[:2]
        for line in subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    )
    reference = [f"{name} {listed[name]}" for name in ("autosubmit_api", "fastapi", "gunicorn", "uvicorn", "paramiko")]
    return f"Python {sys.version.split()[0]}, {', '.join(ours)}; reference: {', '.join(reference)}; {sshd}"
