"""Execute the command blocks of the documents as they stand: python -m tools.check_documents [DOCUMENT...]

The first line of each block of the languages in COMMANDS says what CI does with it. The site does not show these words:
    ```bash run                        this program executes it
    ```bash run-by="tests/x/test_y.py" this test, or step of CI, executes it
    ```bash not-run="it needs DNS"     nothing executes it, for this reason
Without arguments, all documents that have a block to execute are taken.

The blocks of a document are executed in order, in one shell, in a copy of the tracked files. The shell stops at the
first command that fails; an HTTP status of 400 or more is a failure, too. All documents share one server, which is
installed from the wheel. It has a new database, and Autosubmit has a new home, so the first experiment is a000. The
first document is the README. The blocks have these variables:
    BASE_URL  http://127.0.0.1:PORT    TOKEN  an API token    PROFILE  a profile (LOCAL, VENV)
    EXPID, RUN  an experiment and its run, which has ended; not for the README
The documents of MACHINE are executed as root on what looks like a new machine (tools/stand-in/machine), beside the
others and in this order: the first installs the service, and each finds what those before it have left.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools import demo

ROOT = demo.ROOT
DEADLINE = "600"  # seconds for the blocks of one document with a server
MACHINE_DEADLINE = "900"  # seconds for all documents of MACHINE
SDK = ROOT / ".tools" / "sdk"
MACHINE = tuple(
    ROOT / "docs" / f"{name}.md"
    for name in ("guides/admin", "operations/upgrade", "operations/secrets", "operations/backup", "operations/sizing")
)
README = ROOT / "README.md"
COMMANDS = ("bash", "sh", "shell", "console", "python")
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[a-z]+)(?P<words>[^\n]*)\n(?P<text>.*?)^ *```", re.MULTILINE | re.DOTALL
)
WORDS = re.compile(r' *(?:run|run-by="(?P<test>[\w/.]+)"|not-run="(?P<reason>[^"]{8,})")')
START = r"""
set -eEuo pipefail
curl() { command curl --silent --show-error --fail-with-body --max-time 300 "$@"; }
manage.py() { autosubmit-runners-server "$@"; }
trap 'echo "$document, line $block: a command of this block ended with $?" >&2' ERR
"""


@dataclass(frozen=True)
class Block:
    line: int
    language: str
    words: str
    text: str

    @property
    def is_executed(self) -> bool:
        return self.words == " run"

    @property
    def fault(self) -> str:
        """Return what is wrong with the words behind the language, or an empty string."""
        match = WORDS.fullmatch(self.words)
        if not match:
            return 'needs one of `run`, `run-by="tests/..."` and `not-run="REASON"` behind the language'
        if match["test"] and not (ROOT / match["test"]).is_file():
            return f"names a test that does not exist: {match['test']}"
        return ""

    @property
    def shell(self) -> str:
        """Return the commands for bash."""
        return f"python3 - <<'END_OF_BLOCK'\n{self.text}END_OF_BLOCK\n" if self.language == "python" else self.text


def documents() -> list[Path]:
    return [README, *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(text: str) -> list[Block]:
    """Return the blocks of commands of a document, in order."""
    return [
        Block(text.count("\n", 0, match.start()) + 1, match["language"], match["words"], match["text"])
        for match in FENCE.finditer(text)
        if match["language"] in COMMANDS
    ]


def script(document: Path) -> str:
    """Return the commands of all blocks to execute as one script; empty if there are none."""
    parts = [
        f"block={block.line}\necho; echo '==> {demo.shown(document)}, line {block.line}'\n{block.shell}\necho"
        for block in blocks(document.read_text())
        if block.is_executed
    ]
    return "\n".join([f"document={demo.shown(document)}", START, *parts]) if parts else ""


def end_runs(home: Path) -> None:
    """Kill the processes that the commands have left: all whose HOME is that temporary folder."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"HOME={home}".encode() in (process / "environ").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)


def copied(folder: Path) -> Path:
    """Copy the tracked files, so that the commands do not change them. Return the folder, with the wheel in dist/."""
    source = folder / "checkout"
    source.mkdir()
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    pack = ["tar", "--create", "--null", "--files-from=-"]
    packed = subprocess.run(pack, cwd=ROOT, input=listed, capture_output=True, check=True).stdout
    subprocess.run(["tar", "--extract"], cwd=source, input=packed, check=True)
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--wheel-dir", "dist"]
    subprocess.run([ROOT / ".venv/bin/python", "-m", "pip", "wheel", *options, "."], cwd=source, check=True)
    return source


def installed(source: Path, folder: Path) -> Path:
    """Install the wheel and the pinned requirements into a new virtual environment. Return its folder of programs."""
    (wheel,) = (source / "dist").glob("*.whl")
    subprocess.run([ROOT / ".venv/bin/python", "-m", "venv", folder / "venv"], check=True)
    programs = folder / "venv" / "bin"
    install = [programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "--require-hashes", "-r", source / "requirements.lock"], check=True)
    subprocess.run([*install, "--no-deps", f"{wheel}[server]"], check=True)
    return programs


def run_of_an_experiment(site: demo.Site, client: demo.Client) -> dict[str, str]:
    """Create an experiment with two short jobs and run it to its end. Return EXPID and RUN."""
    expid = demo.create_experiment(client, site)
    body = {"expid": expid, "profile_name": demo.PROFILE}
    client.call("POST", "/v4/runners/command/create-job-list", body)
    run: dict[str, Any] = client.call("POST", "/v4/runners/command/run-experiment", body)
    demo.watch(client, expid)
    return {"EXPID": expid, "RUN": str(run["runner_id"])}


def machine_argv(documents: list[Path], source: Path, folder: Path) -> list[str]:
    """Return the command that executes documents on a machine. It has no network: pip's files are downloaded."""
    wheels, machine = folder / "wheels", folder / "machine"
    machine.mkdir()
    download = [ROOT / ".venv/bin/python", "-m", "pip", "download", "--quiet", "--dest", wheels]
    subprocess.run([*download, "--require-hashes", "-r", source / "requirements.lock"], check=True)
    subprocess.run([*download, "--no-deps", "setuptools>=77"], check=True)
    commands = [f"export PIP_NO_INDEX=1 PIP_FIND_LINKS={wheels}", *map(in_its_own_shell, documents)]
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--ipc", "--net", "--kill-child"]
    return [*namespaces, "--", str(ROOT / "tools/stand-in/machine"), str(machine), "\n".join(commands)]


def in_its_own_shell(document: Path) -> str:
    """Return a command that executes a document, and tells how long it took."""
    quoted = shlex.quote(script(document))
    return f"SECONDS=0; bash -c {quoted} || exit; echo '==> {demo.shown(document)} took' $SECONDS s"


def execute_on_a_machine(chosen: list[Path], source: Path, folder: Path) -> list[str]:
    """Execute the documents of MACHINE up to the last one that was chosen. Return the names of those that failed."""
    last = max((MACHINE.index(document) for document in chosen if document in MACHINE), default=-1)
    if last < 0:
        return []
    log = folder / "machine.log"
    # The others print meanwhile, so this is printed at its end.
    with log.open("wb") as output:
        argv = machine_argv(list(MACHINE[: last + 1]), source, folder)
        done = subprocess.run(
            ["timeout", MACHINE_DEADLINE, *argv], cwd=source, stdout=output, stderr=output, check=False
        )
    demo.say(log.read_text(errors="replace"))
    return [] if done.returncode == 0 else ["a document for a machine (above)"]


def execute(chosen: list[Path], folder: Path) -> list[str]:
    """Execute the documents. Return the names of those that failed."""
    source = copied(folder)
    with ThreadPoolExecutor(1) as beside:
        on_a_machine = beside.submit(execute_on_a_machine, chosen, copy_of(source, folder / "machine-source"), folder)
        failed = execute_with_a_server([document for document in chosen if document not in MACHINE], source, folder)
        return [*failed, *on_a_machine.result()]


def copy_of(source: Path, target: Path) -> Path:
    """Copy a folder, because the documents of the two sides must not disturb each other."""
    return Path(shutil.copytree(source, target, symlinks=True))


def execute_with_a_server(chosen: list[Path], source: Path, folder: Path) -> list[str]:
    """Execute documents that use a server. Return the names of those that failed."""
    if not chosen:
        return []
    failed = []
    (source / "node_modules").symlink_to(SDK / "node" / "node_modules")
    programs = installed(source, folder)
    site = demo.Site(folder, python=programs / "python")
    try:
        site.prepare()
        token = site.token()
        with demo.Server(site, demo.free_port()) as server:
            # The generator of clients and its Python come first: docs/sdk.md works in such an environment.
            path = os.pathsep.join([str(SDK / "bin"), str(programs), os.environ["PATH"]])
            env = os.environ | site.environment() | {"PATH": path, "BASE_URL": server.url, "TOKEN": token}
            env |= {"PROFILE": demo.PROFILE}
            # The README is executed twice: on a new machine, and on a used one.
            for document in [*chosen, *([README] if README in chosen else [])]:
                if document != README and "RUN" not in env:
                    env |= run_of_an_experiment(site, demo.Client(server.url, token))
                if not executed(document, source, env):
                    demo.say(f"The end of the server's log:\n{server.log_end()}")
                    failed.append(demo.shown(document))
    finally:
        end_runs(site.home)
    return failed


def executed(document: Path, source: Path, env: dict[str, str]) -> bool:
    """Execute the commands of a document. Return True if they worked."""
    started = time.monotonic()
    done = subprocess.run(["timeout", DEADLINE, "bash", "-c", script(document)], cwd=source, env=env, check=False)
    demo.say(f"==> {demo.shown(document)} took {time.monotonic() - started:.0f} s")
    return done.returncode == 0


def main() -> int:
    started = time.monotonic()
    chosen = [Path(name).resolve() for name in sys.argv[1:]] or [each for each in documents() if script(each)]
    if empty := [str(document) for document in chosen if not script(document)]:
        print(f"No block is marked with `run` in: {', '.join(empty)}", file=sys.stderr)
        return 1
    folder = Path(tempfile.mkdtemp(prefix="check-documents-"))
    try:
        failed = execute(chosen, folder)
    except (demo.Failure, subprocess.CalledProcessError) as failure:
        print(failure, file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if failed:
        print(f"Failed: {', '.join(failed)}", file=sys.stderr)
        return 1
    print(f"All commands of {len(chosen)} documents work ({time.monotonic() - started:.0f} s).")
    return 0


if __name__ == "__main__":
    sys.exit(main())
