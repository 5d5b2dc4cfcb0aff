"""How the `.sh` files become the text that is sent: values are quoted once, only comments and blanks are left out."""

from __future__ import annotations

import gc
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runners.services.machines import scripts
from tests.support.processes import PATIENCE

FOLDER = Path(scripts.__file__).parent
FILES = sorted(FOLDER.glob("*.sh"))
HOSTILE = ["", "a b", "it's", "$HOME", "`id`", '"', "\n", "# no comment", "@key@", "-n", "ü"]


@pytest.mark.parametrize("value", HOSTILE)
def test_a_value_is_one_word_of_the_script(value: str) -> None:
    """`first_match` assigns the value to a variable, so bash itself tells what it understood."""
    script = f'{scripts.first_match(value)}\nprintf "<%s>" "$expid"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60 * PATIENCE, check=True)
    assert done.stdout.endswith(f"<{value}>")


def test_a_placeholder_within_a_value_stays_as_it_is() -> None:
    text = scripts.launch("k", "echo @READY@ @key@", timeout=5, prelude=["echo @BASE@"])
    assert "echo @READY@ @key@" in text
    assert "echo @BASE@" in text


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_leaving_out_comments_and_indentation_does_not_change_a_script(file: Path) -> None:
    """bash prints both texts in its own layout, without the comments. A comment behind a statement would be sent."""
    whole = file.read_text(encoding="utf-8")
    sent = "\n".join(scripts._lines(file.stem))
    included = "\n".join(
        "\n".join(scripts._lines(line.strip().removeprefix(". ").removesuffix(".sh")))
        if scripts._INCLUDE.fullmatch(line.strip())
        else line
        for line in whole.splitlines()
    )
    assert layout(sent) == layout(included)
    assert not [line for line in sent.splitlines() if "  # " in line]


def layout(script: str) -> str:
    """Return the script as `bash` prints the body of a function."""
    text = f"f() {{\n{script}\n}}\ndeclare -f f"
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, timeout=60 * PATIENCE, check=True)
    return "\n".join(line.strip() for line in done.stdout.splitlines())


def test_threads_may_make_the_first_python_script_at_once() -> None:
    """The garbage collector runs while Python parses, and its callbacks and finalizers let other threads run."""
    start = threading.Barrier(8)

    def make(_number: int) -> str:
        start.wait(30 * PATIENCE)
        return scripts.configuration_files({})[3]

    def let_others_run(_phase: str, _facts: object) -> None:
        time.sleep(0.001)

    scripts._python.cache_clear()
    gc.callbacks.append(let_others_run)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert len(set(pool.map(make, range(8)))) == 1
    finally:
        gc.callbacks.remove(let_others_run)


def test_every_script_is_used() -> None:
    source = Path(scripts.__file__).read_text(encoding="utf-8")
    included = {name for file in FILES for line in file.read_text().splitlines() for name in [line.strip()]}
    unused = [file.stem for file in FILES if f'"{file.stem}"' not in source and f". {file.name}" not in included]
    assert unused == []
