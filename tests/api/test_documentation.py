"""docs/api.md and docs/cli.md match the code."""

from __future__ import annotations

import re

from runners.cli.errors import BY_CODE, Exit
from runners.commands.registry import long_commands
from runners.models.operation import OperationStatus
from runners.web.problems import PROBLEM_TYPES, PROBLEM_TYPES_BY_CODE, SERVER_ERROR
from tests.support.servers import ROOT

API, CLI = ((ROOT / "docs" / name).read_text() for name in ("api.md", "cli.md"))


def test_every_error_is_in_the_table_with_its_status() -> None:
    rows = re.findall(r"^\| ([\d, ]+) \| (.*?) \|", API.partition("## Errors")[2], re.MULTILINE)
    told = {(int(status), code) for statuses, codes in rows for code in re.findall(r"`(\w+)`", codes)
            for status in statuses.split(", ")}  # fmt: skip
    kinds = set(PROBLEM_TYPES_BY_CODE.values())
    assert {(kind.status, kind.code) for kind in kinds} <= told
    assert {code for _, code in told} - {
        "exit_code",
        "output",
        "run",
        "run_id",
        "steps",
        "choices",
        "etag",
        "foreign",
        "maintenance",
    } <= {kind.code for kind in kinds}


def test_every_state_of_an_operation_and_every_long_command_is_told() -> None:
    assert all(f"| `{status}` |" in API for status in OperationStatus.values)
    assert all(f"`{kind}`" in API for kind in long_commands())


def test_every_exit_code_is_in_the_table() -> None:
    told = re.findall(r"^\| ([\d, ]+) \|", CLI.partition("## Exit codes")[2], re.MULTILINE)
    codes = {int(code) for cell in told for code in cell.split(", ")}
    assert codes == {*map(int, Exit), 141}
    assert BY_CODE.keys() <= {kind.code for kind in (*PROBLEM_TYPES.values(), SERVER_ERROR)}
