"""Clients that are generated from the served OpenAPI document, checked together with a program that uses them.

Making and checking a client takes up to half a minute, so the result is cached. It is reused while the document, the
programs and the tools are the same. All files are in .tools/sdk, which tools/sdk/install makes.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.paths import ROOT
from tests.support.processes import PATIENCE
from tests.support.servers import AppServer

HERE = Path(__file__).parent
SOURCES = ROOT / "tools" / "sdk"
TOOLS = ROOT / ".tools" / "sdk"
PYTHON = TOOLS / "bin" / "python"
NODE = TOOLS / "bin" / "node"
NODE_PACKAGES = TOOLS / "node" / "node_modules"
GENERATOR = TOOLS / "bin" / "openapi-generator-cli"
DOCS = ROOT / "docs" / "sdk.md"


def python_client(document: bytes) -> Path:
    """Return the folder with the generated package.

    `mypy --strict` accepts driver.py and the sample of the docs with it.
    """

    def make(folder: Path) -> None:
        generate("python", folder)
        (folder / "sample.py").write_text(sample("python"))
        # openapi-generator makes typed code, but not as `--strict` requires, so only its users are checked.
        argv = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--config-file="]
        argv += [f"--python-executable={PYTHON}", f"--cache-dir={TOOLS / 'mypy'}", HERE / "driver.py", "sample.py"]
        run(argv, folder)

    return made(TOOLS / "python", document, [HERE / "driver.py"], make)


def java_client(document: bytes) -> Path:
    """Return the folder with the generated sources and classes/Driver.class, compiled by `javac`."""

    def make(folder: Path) -> None:
        generate("java", folder)
        sources = [*(folder / "src" / "main").rglob("*.java"), *(HERE / "java").rglob("*.java")]
        run(["javac", "-nowarn", "-d", "classes", "-cp", java_libraries(), *sources], folder)

    return made(TOOLS / "java", document, sorted((HERE / "java").rglob("*.java")), make)


def java_libraries() -> Path:
    """Return the generator's own file, which contains Jackson. The Java client needs Jackson."""
    (jar,) = TOOLS.glob("lib/python*/site-packages/openapi_generator_cli/openapi-generator.jar")
    return jar


def r_client(document: bytes) -> Path:
    """Return the folder with the generated package. R evaluates each of its files."""

    def make(folder: Path) -> None:
        generate("r", folder)
        run(["Rscript", "-e", 'for (file in list.files("R", full.names = TRUE)) source(file)'], folder)

    return made(TOOLS / "r", document, [], make)


def typescript_client(document: bytes) -> Path:
    """Return the folder with the generated types and dist/driver.js.

    `tsc --strict` makes dist/driver.js (tools/sdk/tsconfig.json).
    """

    def make(folder: Path) -> None:
        generate("typescript", folder)
        shutil.copy(HERE / "driver.ts", folder)
        (folder / "sample.ts").write_text(sample("typescript"))
        shutil.copy(SOURCES / "tsconfig.json", folder)
        run([NODE_PACKAGES / ".bin" / "tsc", "--project", "."], folder)

    # The folder is below node, so that the client finds node_modules.
    return made(TOOLS / "node" / "client", document, [HERE / "driver.ts"], make)


def sample(language: str) -> str:
    """Return the longer program that docs/sdk.md shows."""
    (text,) = re.findall(rf"^```{language}(?: run-by=\S+)?\n(.*?)^```$", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    return str(text)


def generate(language: str, folder: Path) -> None:
    run([SOURCES / "generate", language, folder / "openapi.json", folder], folder)


def run(argv: list[object], folder: Path) -> str:
    """Return what a program printed. Raise AssertionError with that output if the program fails."""
    words = [str(word) for word in argv]
    environment = {**os.environ, "PATH": f"{TOOLS / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300 * PATIENCE
    )
    assert done.returncode == 0, f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def made(folder: Path, document: bytes, programs: list[Path], make: Callable[[Path], None]) -> Path:
    """Return `folder`. Make it again unless it was made from the same document, programs and tools."""
    sources = [*programs, DOCS, Path(__file__), *sorted(path for path in SOURCES.iterdir() if path.is_file())]
    state = hashlib.sha256(document + b"".join(path.read_bytes() for path in sources)).hexdigest()
    stamp = folder / ".made-of"
    if not stamp.exists() or stamp.read_text() != state:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "openapi.json").write_bytes(document)
        make(folder)
        stamp.write_text(state)
    return folder


PROFILE = "LOCAL_STUB"
WITH_JOBS = "t000"  # an experiment with a job list and a configuration file


@dataclass(frozen=True)
class Service:
    app: AppServer
    token: str

    @property
    def document(self) -> bytes:
        """Return the OpenAPI document as it is served, byte for byte."""
        with urllib.request.urlopen(f"{self.app.url}/openapi.json", timeout=30 * PATIENCE) as answer:
            return bytes(answer.read())
