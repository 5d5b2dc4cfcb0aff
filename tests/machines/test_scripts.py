"""How the `.sh` files become the text that is sent: values are quoted once, only comments and blanks are left out."""

from __future__ import annotations

import ast
import gc
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runners.services.machines import scripts
from tests.support.processes import PATIENCE

FOLDER = Path(scripts.__file__).parent
FILES = sorted(FOLDER.glob("*.sh"))
HOSTILE = ["", "a b", "it's", "$HOME", "`id`", '"', "\n", "# no comment", "@key@", "-n", "ü"]


# What bash has learned after 4.2, the oldest supported version, with the version that had it first. Source: its NEWS.
NEWER = {
    r"\b(mapfile|readarray)\b.* -\w*d": "4.4",
    r"\$\{[^}\s]+@[A-Za-z]\}": "4.4",
    r"\blocal -(\s|$)": "4.4",
    r"\binherit_errexit\b|\bPS0\b|\bEXECIGNORE\b": "4.4",
    r"\b(local|declare|typeset) -\w*n|\bunset -\w*n|\s-R \w": "4.3",
    r"\bwait\b[^;|&]* -\w*[nfp]": "4.3 (-n), 5.0 (-f), 5.1 (-p)",
    r"\[-\d+\]\+?=": "4.3",
    r"\[\[? [^]]*-v \w+\[": "4.3",
    r"\bEPOCH(REALTIME|SECONDS)\b|\bBASH_ARGV0\b|\blocalvar_|\bassoc_expand_once\b": "5.0",
    r"\bSRANDOM\b": "5.1",
    r"\bread\b.* -\w*E|\$\{[ |]|\bGLOBSORT\b|\bBASH_MONOSECONDS\b|\bBASH_TRAPSIG\b": "5.3",
}


def test_no_script_needs_a_bash_newer_than_4_2() -> None:
    """An older bash only prints an error, which a script may redirect, and goes on with an empty result."""
    lines = [
        (name, line)
        for name in (file.stem for file in FILES)
        for line in scripts._lines(name)
        if "$BASH_VERSINFO" not in line  # it asks for the version itself
    ]
    newer = [(name, line, version) for name, line in lines for what, version in NEWER.items() if re.search(what, line)]
    assert newer == []
    examples = ["mapfile -d '' -t a", "x=${a@Q}", "wait -n -p pid", "local -n a=b", "$EPOCHREALTIME", "a[-1]=b"]
    assert all(any(re.search(what, line) for what in NEWER) for line in examples)


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


def test_every_script_is_used_and_every_placeholder_has_a_value() -> None:
    """A placeholder without a value is a KeyError when somebody first uses the script."""
    calls = list(_calls_of_filled())
    assert {name for name, _ in calls} | _included() == {file.stem for file in FILES}
    wanted: set[str] = set()
    for name, given in calls:
        placeholders = set(scripts._PLACEHOLDER.findall("\n".join(scripts._lines(name))))
        assert placeholders <= given | set(scripts._CONSTANTS), name
        wanted |= placeholders
    assert set(scripts._CONSTANTS) <= wanted


def _calls_of_filled() -> Iterator[tuple[str, set[str]]]:
    """Yield the script and the names of the values of each call of `_filled`."""
    tree = ast.parse(Path(scripts.__file__).read_text(encoding="utf-8"))
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        dicts = {  # for `**values`
            node.target.id: {str(ast.literal_eval(key)) for key in node.value.keys if key}
            for node in ast.walk(function)
            if isinstance(node, ast.AnnAssign)
            and isinstance(node.value, ast.Dict)
            and isinstance(node.target, ast.Name)
        }
        for call in ast.walk(function):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "_filled":
                given = {keyword.arg for keyword in call.keywords if keyword.arg}
                for keyword in call.keywords:
                    if keyword.arg is None:
                        assert isinstance(keyword.value, ast.Name)
                        given |= dicts[keyword.value.id]
                yield ast.literal_eval(call.args[0]), given


def _included() -> set[str]:
    lines = (line.strip() for file in FILES for line in file.read_text(encoding="utf-8").splitlines())
    return {found[1] for line in lines if (found := scripts._INCLUDE.fullmatch(line))}
