"""Clients that generators make of the served OpenAPI document, type-checked together with a program that uses them.

Making and checking takes half a minute, so both are remembered: as long as document, programs and tools are the same,
the last result is used. What is here stands in .tools/sdk, which tools/sdk/install makes.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
HERE = Path(__file__).parent
SOURCES = ROOT / "tools" / "sdk"
TOOLS = ROOT / ".tools" / "sdk"
PYTHON = TOOLS / "bin" / "python"
NODE = TOOLS / "bin" / "node"
NODE_PACKAGES = TOOLS / "node" / "node_modules"
DOCS = ROOT / "docs" / "sdk.md"
PYTHON_CLIENT = TOOLS / "python"
TYPESCRIPT_CLIENT = TOOLS / "node" / "client"  # below node, so that it finds node_modules


def python_client(document: bytes) -> Path:
    """The folder with the generated package, which `mypy --strict` accepts with driver.py and the docs' sample."""

    def make(folder: Path) -> None:
        generate("python", folder)
        (folder / "sample.py").write_text(sample("python"))
        argv = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--python-executable={PYTHON}"]
        argv += [f"--cache-dir={TOOLS / 'mypy'}", "autosubmit_runners_client", HERE / "driver.py", "sample.py"]
        run(argv, folder)

    return made(PYTHON_CLIENT, document, HERE / "driver.py", make)


def typescript_client(document: bytes) -> Path:
    """The folder with the generated types and dist/driver.js, made by `tsc --strict` (tools/sdk/tsconfig.json)."""

    def make(folder: Path) -> None:
        generate("typescript", folder)
        shutil.copy(HERE / "driver.ts", folder)
        (folder / "sample.ts").write_text(sample("typescript"))
        shutil.copy(SOURCES / "tsconfig.json", folder)
        run([NODE_PACKAGES / ".bin" / "tsc", "--project", "."], folder)

    return made(TYPESCRIPT_CLIENT, document, HERE / "driver.ts", make)


def sample(language: str) -> str:
    """The program that docs/sdk.md shows."""
    (text,) = re.findall(rf"^```{language}\n(.*?)^```$", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    return str(text)


def generate(language: str, folder: Path) -> None:
    run([SOURCES / "generate", language, folder / "openapi.json", folder], folder)


def run(argv: list[object], folder: Path) -> str:
    """What a program printed. AssertionError, with that, when it fails."""
    words = [str(word) for word in argv]
    environment = {**os.environ, "PATH": f"{TOOLS / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def made(folder: Path, document: bytes, driver: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, made anew unless it was made of the same things."""
    sources = [driver, DOCS, Path(__file__), *sorted(path for path in SOURCES.iterdir() if path.is_file())]
    state = hashlib.sha256(document + b"".join(path.read_bytes() for path in sources)).hexdigest()
    stamp = folder / ".made-of"
    if not stamp.exists() or stamp.read_text() != state:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "openapi.json").write_bytes(document)
        make(folder)
        stamp.write_text(state)
    return folder
