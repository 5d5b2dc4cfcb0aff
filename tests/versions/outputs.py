"""What each version of Autosubmit printed: real outputs, in `outputs/VERSION.txt`, made by `tests/versions/record.py`.

    load("4.1.15")["setstatus"]   -> Output(exit_code=0, stdout=..., stderr=...)

A file has one part per command: `=== NAME: exit code N`, `$ COMMAND LINE`, standard output, `--- stderr`, standard
error. The experiment is always `a001`. Paths and times are replaced. The colour codes are Autosubmit's own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from runners.services.machines.output import plain_text

FOLDER = Path(__file__).parent / "outputs"
# Newest first. See tools/autosubmit-venv.
VERSIONS = ("4.1.17.1", "4.1.16", "4.1.15", "4.1.12", "4.1.10", "4.1.8", "4.0.105", "3.14.1")
RECORDED = tuple(version for version in VERSIONS if (FOLDER / f"{version}.txt").is_file())
_PART = re.compile(r"^=== ([a-z0-9-]+): exit code (-?\d+)\n\$ (.*)\n", re.MULTILINE)
_STDERR = "--- stderr\n"


@dataclass(frozen=True)
class Output:
    exit_code: int
    command: str
    stdout: str
    stderr: str

    @property
    def text(self) -> str:
        """Return standard output as the service reads it."""
        return plain_text(self.stdout.encode())


def write(version: str, outputs: dict[str, Output]) -> None:
    parts = [
        f"=== {name}: exit code {output.exit_code}\n$ {output.command}\n{_ended(output.stdout)}{_STDERR}"
        f"{_ended(output.stderr)}"
        for name, output in outputs.items()
    ]
    (FOLDER / f"{version}.txt").write_text("".join(parts))


@cache
def load(version: str) -> dict[str, Output]:
    _, *parts = _PART.split((FOLDER / f"{version}.txt").read_text())
    found = {}
    for name, exit_code, command, text in zip(*(parts[start::4] for start in range(4)), strict=True):
        stdout, _, stderr = text.partition(_STDERR)
        found[name] = Output(int(exit_code), command, stdout, stderr)
    return found


def _ended(text: str) -> str:
    return text if not text or text.endswith("\n") else text + "\n"
