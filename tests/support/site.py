"""A site of several machines, on which the blocks of documents are executed as they are written.

Each machine has namespaces of its own (tools/stand-in/site-machine) and an address in a network that only they share:
db1, db2, node1, node2, proxy, login (a machine with an account `ana`), client. The first line of a block names its
machine: `# on node1`. `# on node1 and node2` executes it on both.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.paths import ROOT
from tests.support.processes import PATIENCE, die_with_parent, wait_for
from tools.check_documents import blocks

ADDRESSES = {"db1": 11, "db2": 12, "node1": 21, "node2": 22, "proxy": 31, "login": 41, "client": 51}
NAMESPACES = ["--mount", "--pid", "--net", "--uts", "--ipc"]
PATH = f"{ROOT}/tools/stand-in:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
ON = re.compile(r"^# on ([a-z0-9 ]+?)(?::.*)?$", re.MULTILINE)


class Machine:
    """One machine. It is off until `start`, and loses everything at `kill`."""

    def __init__(self, name: str, folder: Path, switch: int) -> None:
        self.name, self._switch = name, switch
        self._folder = folder / name
        self._process: subprocess.Popen[bytes] | None = None
        self._init = 0  # the first process of its namespace

    def start(self) -> None:
        venv = Path(sys.prefix).resolve()
        argv = ["unshare", *NAMESPACES, "--fork", "--mount-proc", "--kill-child"]
        argv += [str(ROOT / "tools/stand-in/site-machine"), self.name, str(self._folder), str(ROOT), str(venv)]
        self.log = self._folder.with_suffix(".log")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=die_with_parent, env={"PATH": PATH}
            )
        wait_for(self._is_ready, 30, what=f"the machine {self.name}: {self.log}", interval=0.1)
        number = ADDRESSES[self.name]
        at_switch = ["nsenter", f"--target={self._switch}", "--net", "ip", "link"]
        subprocess.run(
            [*at_switch, "add", f"v{number}", "type", "veth", "peer", "name", "eth0", "netns", str(self._init)],
            check=True,
        )
        subprocess.run([*at_switch, "set", f"v{number}", "master", "lan", "up"], check=True)
        self(f"ip address add 10.20.0.{number}/24 dev eth0; ip link set eth0 up")

    def _is_ready(self) -> bool:
        assert self._process
        assert self._process.poll() is None, self.log.read_text()
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        self._init = int(children[0]) if children else 0
        return bool(self._init) and Path(f"/proc/{self._init}/root/run/machine-is-ready").exists()

    def command(self, script: str) -> subprocess.CompletedProcess[str]:
        """Execute a script as root. Return its exit code and output."""
        assert self._process
        argv = ["nsenter", f"--target={self._init}", *NAMESPACES, "--wdns=/root", "bash", "-c", f"umask 022\n{script}"]
        env = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8"}
        # A file and not a pipe: a service that the script starts would keep the pipe open.
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=env, check=False,
                timeout=200 * PATIENCE,
            )  # fmt: skip
            output.seek(0)
            return subprocess.CompletedProcess(argv, done.returncode, output.read())

    def __call__(self, script: str) -> str:
        """Execute a script as root. Return its output. AssertionError if a command fails."""
        done = self.command(f"set -eEuo pipefail\n{script}")
        assert done.returncode == 0, f"{self.name}: {script}\n{done.stdout}\n{self.logs()}"
        return done.stdout

    def logs(self) -> str:
        return self.command("tail -n 15 /var/log/autosubmit-runners*.log /var/log/postgresql/*.log").stdout

    def kill(self) -> None:
        """End all its processes at once and take it off the network."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None
            wait_for(lambda: not Path(f"/proc/{self._init}").exists(), 20, what=f"end of {self.name}")

    def fill_disk(self) -> None:
        """Leave no space on its disk."""
        self(
            "used=$(df --output=used --block-size=1K /opt/disk | tail -n 1)\n"
            "mount -o remount,size=$((used + 64))k /opt/disk\n"
            "dd if=/dev/zero of=/var/filler bs=1k 2>/dev/null || true"
        )

    def grow_disk(self) -> None:
        self("mount -o remount,size=2g /opt/disk; rm -f /var/filler")

    def unplug(self) -> None:
        """Take it off the network: nothing that is sent to it is answered."""
        self._link("down")

    def plug(self) -> None:
        self._link("up")

    def _link(self, state: str) -> None:
        argv = ["nsenter", f"--target={self._switch}", "--net", "ip", "link", "set", f"v{ADDRESSES[self.name]}", state]
        subprocess.run(argv, check=True)


class Site:
    def __init__(self, folder: Path, switch: int) -> None:
        self.machines = {name: Machine(name, folder, switch) for name in ADDRESSES}
        self.variables: dict[str, str] = {}  # of the shell that executes the blocks

    def __getitem__(self, name: str) -> Machine:
        return self.machines[name]

    def follow(
        self,
        document: Path,
        section: str,
        *,
        exchange: tuple[str, str] | None = None,
        between: Mapping[int, Callable[[], object]] | None = None,
    ) -> str:
        """Execute the blocks of a section of a document, each on the machine that it names. Return their output.

        `exchange`: two names of machines that are exchanged in all blocks. `between`: what to call before a block, by
        its number from 1 on.
        """
        output = []
        found = sections(document)[section]
        if exchange:
            one, other = exchange
            found = found.replace(one, "@@").replace(other, one).replace("@@", other)
        executed = [block for block in blocks(found) if "run-by=" in block.words]
        assert executed, f"{document.name}: no block of '{section}' is executed"
        for number, block in enumerate(executed, 1):
            if between and number in between:
                between[number]()
            named = ON.search(block.text.partition("\n")[0])
            assert named, f"{document.name}, {section}: the first line of a block names its machine: # on node1"
            for name in named[1].split(" and "):
                where = "cd /opt/checkout\n" if "repository" in block.text.partition("\n")[0] else ""
                variables = "".join(f"export {key}={value}\n" for key, value in self.variables.items())
                output.append(self[name](CURL + variables + where + block.text))
        return "\n".join(output)


CURL = 'curl() { command curl --silent --show-error --fail-with-body --max-time 60 "$@"; }\n'


def sections(document: Path) -> dict[str, str]:
    """Return the text below each heading of the second level."""
    parts = HEADING.split(document.read_text())
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@contextmanager
def site(*names: str) -> Iterator[Site]:
    """Yield a site whose machines of these names are on."""
    folder = Path(tempfile.mkdtemp(prefix="autosubmit-runners-site-"))
    argv = ["unshare", "--net", "--kill-child", "--pid", "--fork", "sleep", "infinity"]
    switch = subprocess.Popen(argv, preexec_fn=die_with_parent)
    network = Path(f"/proc/{switch.pid}/ns/net")
    wait_for(lambda: os.readlink(network) != os.readlink("/proc/self/ns/net"), 10, what="the network")
    enter = ["nsenter", f"--target={switch.pid}", "--net", "ip", "link"]
    subprocess.run([*enter, "add", "lan", "type", "bridge"], check=True)
    subprocess.run([*enter, "set", "lan", "up"], check=True)
    made = Site(folder, switch.pid)
    try:
        for name in names:
            made[name].start()
        yield made
    finally:
        for machine in made.machines.values():
            machine.kill()
        switch.kill()
        switch.wait()
        shutil.rmtree(folder, ignore_errors=True)
