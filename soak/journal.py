"""What the machines recorded: each start and end of a command of `soak/bin/autosubmit`.

The journal does not depend on the service. An observer also looks at each process, because a process that is ended by
KILL writes no end. All times are seconds since 1970 by this machine's clock.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

INTERVAL = 0.2  # seconds between two looks at the processes


@dataclass
class Process:
    """One execution of a command.

    `key`: its run directory, `-` if the command was executed within a request. `code`: its exit code; None if it wrote
    no end. `last_alive`, `first_gone`: between these two times it ended; `first_gone` is None while it lives.
    """

    home: Path
    pid: int
    ticks: str
    key: str
    command: str
    expid: str
    words: str
    started: float
    last_alive: float
    code: int | None = None
    first_gone: float | None = None

    def looks_alive(self) -> bool:
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text(errors="replace").rpartition(") ")[2].split()
        except OSError:
            return False
        return fields[0] not in "ZX" and fields[19] == self.ticks


class Journal:
    """The journals of all homes, read continuously in a thread."""

    def __init__(self, homes: list[Path]) -> None:
        self._homes = homes
        self._places = dict.fromkeys(homes, 0)
        self._by_process: dict[tuple[int, str], Process] = {}
        self._living: list[Process] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.thread = threading.Thread(target=self._observe, name="journal", daemon=True)
        self.thread.start()

    def close(self) -> None:
        self._stop.set()
        self.thread.join()

    def processes(self) -> list[Process]:
        """Return all processes so far, oldest first."""
        with self._lock:
            self._read()
            return sorted(self._by_process.values(), key=lambda process: process.started)

    def living(self) -> list[Process]:
        with self._lock:
            return list(self._living)

    def _observe(self) -> None:
        while not self._stop.wait(INTERVAL):
            with self._lock:
                self._read()

    def _read(self) -> None:
        for home in self._homes:
            with suppress(FileNotFoundError), (home / "journal").open("rb") as file:
                file.seek(self._places[home])
                for line in file:
                    if not line.endswith(b"\n"):  # it is just being written
                        break
                    self._places[home] += len(line)
                    self._take(home, line.decode(errors="replace").rstrip("\n").split("\t"))
        still = []
        for process in self._living:
            now = time.time()
            if process.looks_alive():
                process.last_alive = now
                still.append(process)
            else:
                process.first_gone = time.time()
        self._living = still

    def _take(self, home: Path, words: list[str]) -> None:
        if words[0] == "start":
            when, pid, ticks, key, command, expid, arguments = words[1:8]
            moment = float(when)
            process = Process(home, int(pid), ticks, key, command, expid, arguments, moment, moment)
            self._by_process[process.pid, ticks] = process
            self._living.append(process)
        elif words[0] == "end":
            when, pid, ticks, code = words[1:5]
            process = self._by_process[int(pid), ticks]
            process.code = int(code)
            process.last_alive = max(process.last_alive, float(when))
