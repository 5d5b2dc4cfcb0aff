"""The environment of a measurement: an account, sshd, this service, and the Autosubmit API, all of them real."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.compat.client import Client
from tests.compat.reference import ReferenceServer
from tests.support.processes import is_alive, kill_all, wait_for, with_environment
from tests.support.servers import AppServer, SSHServer

PROGRAMS = Path(__file__).resolve().parent / "bin"
WORKERS = 2  # of both servers
SETTLING = 0.1  # seconds
COMMANDS = "/v4/runners/command/"
SSHD_OPTIONS = {"UsePAM": "yes"} if os.geteuid() == 0 else {}  # as Debian ships it; only root can use PAM
# Debian's Lmod adds 200 ms to each login shell, which would hide the measured time; no profile here needs it. Its
# /etc/profile.d/lmod.sh checks these variables; the second one also avoids its call of `id`.
NO_LMOD = {"LMOD_ALLOW_ROOT_USE": "no", "USER_IS_ROOT": "1"}


@dataclass
class Stage:
    """The running servers `ours` and `reference`. Both have the profiles SSH and LOCAL for the same account."""

    folder: Path
    home: Path
    sshd: SSHServer
    profiles: dict[str, Any]
    ours: AppServer
    reference: ReferenceServer

    def clients(self) -> tuple[Client, Client]:
        """Return a new connection to ours and one to the reference."""
        return Client(self.ours.port), Client(self.reference.port)

    def another(
        self,
        name: str,
        *,
        workers: int = WORKERS,
        more: dict[str, Any] | None = None,
        env: dict[str, str] | None = None,
    ) -> AppServer:
        """Return another server of ours with its own database, not started. `more`: additional profiles."""
        server = AppServer(self.folder / name, env=self.ours_environment() | (env or {}), workers=workers)
        self._import(server, more or {})
        return server

    def ours_environment(self) -> dict[str, str]:
        passed = ",".join((*NO_LMOD, "BENCH_RUN_SECONDS"))
        return {
            "HOME": str(self.home),
            "THROTTLE_COMMANDS": "off",
            "LOG_LEVEL": "WARNING",
            "RUNNERS_LOCAL_ENV_PASS": passed,
            **NO_LMOD,
            **self.sshd.environment,
        }

    def _import(self, server: AppServer, more: dict[str, Any]) -> None:
        file = self.folder / "profiles.yaml"
        file.write_text(yaml.safe_dump({"RUNNER_CONFIGURATION": {"PROFILES": {**self.profiles, **more}}}))
        server.manage("import_profiles", str(file))

    def run_seconds(self, seconds: float) -> None:
        """Set how long `autosubmit run` lasts from now on."""
        (self.home / "run-seconds").write_text(f"{seconds:g}\n")

    def processes(self) -> list[int]:
        """Return the processes of the account other than the servers: the commands of both servers."""
        return [pid for pid in with_environment("STUB_OF", str(self.home)) if is_alive(pid)]

    def end_runs(self) -> None:
        """End all commands of the account, and wait until the processes that supervise them have noticed."""

        def ended() -> bool:
            pids = self.processes()
            kill_all(pids)
            return not pids

        wait_for(ended, 10, what="end of the commands")
        time.sleep(SETTLING)


@contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """Start everything below `folder`, and end it afterwards."""
    home = folder / "home"
    home.mkdir(parents=True)
    (home / ".bash_profile").write_text(f'export PATH="{PROGRAMS}:$PATH"\n')
    with ExitStack() as stack:
        session = {"PATH": f"{PROGRAMS}:/usr/local/bin:/usr/bin:/bin", **NO_LMOD}
        sshd = stack.enter_context(SSHServer(folder / "sshd", home=home, env=session, options=SSHD_OPTIONS))
        local = {"RUNNER_TYPE": "LOCAL", "MODULE_LOADER_TYPE": "NO_MODULE"}
        ssh = {"HOST": "127.0.0.1", "PORT": sshd.port, "USERNAME": sshd.user}
        profiles = {"LOCAL": local, "SSH": {**local, "RUNNER_TYPE": "SSH", "SSH": ssh}}
        reference = ReferenceServer(
            folder / "reference",
            home=home,
            programs=PROGRAMS,
            configuration={"PROFILES": profiles},
            client_key=sshd.client_key,
            workers=WORKERS,
            env=NO_LMOD,
        )
        built = Stage(folder, home, sshd, profiles, ours=None, reference=reference)  # type: ignore[arg-type]
        built.run_seconds(1)
        built.ours = built.another("ours")
        stack.callback(built.end_runs)
        stack.enter_context(built.ours)
        stack.enter_context(reference)
        yield built
