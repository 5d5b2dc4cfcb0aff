"""`python -m bench.linear`: measure how the time of each path grows when its input doubles, up to its limit.

Each path reads a text that a client or machine can choose. The ratio of a doubling is about 2 for linear work and 4 for
quadratic work. tests/project/test_linear.py requires linear paths. Times are those of one core, the best of two.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import django

DOUBLINGS = 3
BEST_OF = 2
WORTH_A_RATIO = 0.004  # seconds; below, the clock and the interpreter dominate


@dataclass(frozen=True)
class Path:
    """A path to measure. `text(n)`: the worst known input of about `n` characters. `limit`: its most characters."""

    name: str
    limit: int
    text: Callable[[int], str]
    read: Callable[[str], object]


@dataclass(frozen=True)
class Step:
    size: int
    seconds: float
    ratio: float | None


def paths() -> list[Path]:
    from django.core.exceptions import ValidationError
    from rest_framework.exceptions import ValidationError as Refused

    from profiles import validators
    from profiles.yaml.format import MAX_CHARACTERS, InvalidConfiguration
    from profiles.yaml.reader import parse
    from runners.commands import output, run_log
    from runners.commands.create_experiment import CREATE_EXPERIMENT
    from runners.commands.parameters import Words
    from runners.commands.set_job_status import SET_JOB_STATUS, read_changes
    from runners.pages import ansi
    from runners.services.machines.loaders.lmod import LmodModuleLoader
    from runners.services.machines.output import plain_text as plain
    from runners.services.machines.ssh.known_hosts import _is_for
    from runners.web import fields
    from runners.web.requests import RunStatusRequest, request_of

    def refused(read: Callable[[str], object]) -> Callable[[str], object]:
        def call(text: str) -> None:
            with suppress(Refused, ValidationError, InvalidConfiguration):
                read(text)

        return call

    params = request_of(SET_JOB_STATUS)().fields["command_params"]
    filters, words = params.fields["filter_chunks"], fields.WordsField(Words(name="", pattern="[A-Z]+", rule="-"))
    repository = request_of(CREATE_EXPERIMENT)().fields["command_params"].fields["git_repo"]
    header = "RUNNER_CONFIGURATION:\n  PROFILES:\n"
    profile = "    P{}: {{RUNNER_TYPE: SSH, MODULE_LOADER_TYPE: NO_MODULE, SSH: {{HOST: h, PORT: 22}}}}\n"
    body, chunk, line = 1024 * 1024, 256 * 1024, 64 * 1024

    def plain_text(text: str) -> str:
        return plain(text.encode())

    def lines_of(unit: str) -> Callable[[int], str]:
        return lambda n: unit * (n // len(unit))

    def names_of(unit: str) -> Callable[[int], str]:
        return lambda n: " ".join(f"{unit}{i}" for i in range(n // (len(unit) + 7)))

    def members(serializer: Any) -> Callable[[str], object]:
        return lambda text: serializer(data=dict.fromkeys(text.split(), 1)).is_valid()

    def read(function: Callable[[bytes], object]) -> Callable[[str], object]:
        return lambda text: function(text.encode())

    def yaml_of(unit: str) -> Callable[[int], str]:
        return lambda n: header + "".join(unit.format(i) for i in range(n // len(unit)))

    return [
        Path("git_repo, colons", body, lambda n: "a://" + ":" * n, refused(repository.run_validation)),
        Path("git_repo, colons and @", body, lambda n: "a://" + ":@" * (n // 2), refused(repository.run_validation)),
        Path("git_repo, letters", body, lambda n: "a+" * (n // 2), refused(repository.run_validation)),
        Path("filter, brackets", body, lambda n: "[" * n, refused(filters.run_validation)),
        Path("filter, blanks", body, lambda n: " " * n, refused(filters.run_validation)),
        Path("list of words", body, lambda n: "A " * (n // 2), refused(words.run_validation)),
        Path("host", body, lambda n: "a." * (n // 2), refused(validators.validate_host)),
        Path("module", body, lambda n: "a/" * (n // 2), refused(LmodModuleLoader.validate_module)),
        Path("log viewer, one line", chunk, lambda n: "x" * n, ansi.to_html),
        Path("log viewer, one line overwritten", chunk, lambda n: "xxxxxxx\r" * (n // 8), ansi.to_html),
        Path("log viewer, colours", chunk, lambda n: "\x1b[31mx" * (n // 6), ansi.to_html),
        Path("log viewer, one endless colour", chunk, lambda n: "\x1b[" + "1;" * (n // 2) + "m", ansi.to_html),
        Path("log viewer, one endless number", chunk, lambda n: "\x1b[" + "1" * n + "m", ansi.to_html),
        Path("log viewer, titles without end", chunk, lambda n: "\x1b]0;x" * (n // 6), ansi.to_html),
        Path("log viewer, escapes", chunk, lambda n: "\x1b" * n, ansi.to_html),
        Path("body, unknown members", body, names_of("exp"), members(RunStatusRequest)),
        Path("body, unknown parameters", body, names_of("final_"), members(type(params))),
        Path("output, titles without end", body, lines_of("\x1b]0;x"), plain_text),
        Path("output, one line overwritten", body, lines_of("xxxxxxx\r"), plain_text),
        Path("output, credentials in addresses", body, lines_of("://a://b:c@d "), plain_text),
        Path("output, errors", body, lines_of("[ERROR] 2020-01-01 00:00:00,000 x\n"), read(output.complaint)),
        Path("output, one endless error", body, lines_of("[ERROR] "), read(output.complaint)),
        Path("output, tracebacks", body, lines_of('  File "a", line 1, in x\na.b: '), read(output.complaint)),
        Path("output, warnings", body, lines_of("[WARNING] 2020-01-01 00:00:00,000 x\n"), read(output.warnings)),
        Path("output, changed jobs", body, lines_of("CHANGED: job: a status to: READY\n"), read(read_changes)),
        Path("log of a run, jobs", body, lines_of("Job a001_X changed from READY to FAILED\n"), read(run_log.jobs)),
        Path("known_hosts, stars", line, lambda n: "*a" * (n // 2) + "b", lambda text: _is_for(text, "a" * 255)),
        Path("known_hosts, patterns", line, lambda n: "*a*b," * (n // 5), lambda text: _is_for(text, "a" * 255)),
        Path("YAML, profiles", MAX_CHARACTERS, yaml_of(profile), refused(parse)),
        Path("YAML, unknown names", MAX_CHARACTERS, yaml_of("    P: {{RUNNER_TYP{}: 1}}\n"), refused(parse)),
        Path("YAML, names twice", MAX_CHARACTERS, yaml_of("    P: 1{}\n"), refused(parse)),
        Path("YAML, nested", MAX_CHARACTERS, lambda n: "[" * n, refused(parse)),
        Path("YAML, aliases", MAX_CHARACTERS, lambda n: "a: &a [1]\nb: [" + "*a," * (n // 3) + "]", refused(parse)),
    ]


def measure(path: Path) -> list[Step]:
    """Measure the sizes from the limit divided by 2**DOUBLINGS to the limit."""
    steps: list[Step] = []
    for power in range(DOUBLINGS, -1, -1):
        size = path.limit // 2**power
        text = path.text(size)[: path.limit]
        times = []
        for _ in range(BEST_OF):
            start = time.process_time()
            path.read(text)
            times.append(time.process_time() - start)
        seconds = min(times)
        worth = steps and steps[-1].seconds > WORTH_A_RATIO
        steps.append(Step(size, seconds, seconds / steps[-1].seconds if worth else None))
    return steps


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    write = sys.stdout.write
    write("| path | characters | seconds | ratios of the doublings |\n|---|---|---|---|\n")
    for path in paths():
        steps = measure(path)
        ratios = " ".join("-" if step.ratio is None else f"{step.ratio:.1f}" for step in steps[1:])
        write(f"| {path.name} | {steps[-1].size:,} | {steps[-1].seconds:.3f} | {ratios} |\n")


if __name__ == "__main__":
    main()
