"""`python -m bench [--only run-ssh,status] [--quick] [--output FILE]`. Exit code 1 if a target is missed."""

from __future__ import annotations

import argparse
import http.client
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.cases import CASES, Effort, Result
from bench.measure import find_wrk
from bench.report import text, write
from bench.stage import stage

QUICK = Effort(
    calls=10,
    seconds=2,
    rounds=1,
    past=20_000,
    active=40,
    commands=500,
    megabytes=100,
    targets=20,
    idle=2,
    shown=20,
    watching=5,
    messages=100,
    slow_messages=8,
    machines=12,
    accounts=20,
    watched=200,
)


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure this service and the Autosubmit API 4.2.0 side by side.")
    parser.add_argument("--only", default=",".join(CASES), help=f"some of {', '.join(CASES)}")
    parser.add_argument("--quick", action="store_true", help="few calls: shows that it works, measures nothing")
    parser.add_argument("--output", type=Path, help="write the report to this file (default: print it)")
    options = parser.parse_args()
    find_wrk()
    effort = QUICK if options.quick else Effort()
    started = time.monotonic()
    results = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, stage(Path(folder)) as built:
        for name in options.only.split(","):
            begin = time.monotonic()
            try:
                result = CASES[name](built, effort)
            except (AssertionError, OSError, http.client.HTTPException, subprocess.SubprocessError) as error:
                built.end_runs()  # the other measurements do not need this one
                words = re.sub(r"[\s|]+", " ", f"{type(error).__name__}: {error}")[:300]
                result = Result(name, words, "", "", "to be measured", reached=False)
            results.append(result)
            sys.stderr.write(f"[{time.monotonic() - begin:.0f} s] ")
            sys.stderr.write(f"{result.what}: {result.ours}; reference {result.reference}; {result.ratio}\n")
    seconds = time.monotonic() - started
    if options.output:
        write(options.output, results, effort, seconds)
    else:
        sys.stdout.write(text(results, effort, seconds))
    return int(any(result.reached is False for result in results))


if __name__ == "__main__":
    sys.exit(main())
