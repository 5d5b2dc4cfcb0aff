"""The environment of a measurement: an account, sshd, this service, and the Autosubmit API, all of them real."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.compat.client import Client
from tests.compat.reference import SCRIPT_TOKEN, ReferenceServer
from tests.support.processes import is_alive, kill_all, wait_for, with_environment
from tests.support.servers import AppServer, SSHServer

PROGRAMS = Path(__file__).resolve().parent / "bin"
WORKERS = 2  # of both servers
SETTLING = 0.1  # seconds
PEOPLE = 50  # each has an account and a token
COMMANDS = "/v4/runners/command/"
SSHD_OPTIONS = {"UsePAM": "yes"} if os.geteuid() == 0 else {}  # as Debian ships it; only root can use PAM
# Debian's Lmod adds 200 ms to each login shell, which would hide the measured time; no profile here needs it. Its
# /etc/profile.d/lmod.sh checks these variables; the second one also avoids its call of `id`.
NO_LMOD = {"LMOD_ALLOW_ROOT_USE": "no", "USER_IS_ROOT": "1"}
# Create people and a token for each of them. Print the tokens.
TOKENS = """
import json
from django.contrib.auth.models import User
from runners.models import ApiToken
people = [User.objects.create(username=f"scientist{number}") for number in range(%d)]
print(json.dumps([ApiToken.issue(user=person)[1] for person in people]))
"""


class Constant(AppServer):
    """A server whose application does nothing for the path /bench/constant."""

    application = "bench.servers_app"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@dataclass
class Stage:
    """The running servers `ours` and `reference`. Both have the profiles SSH and LOCAL for the same account.

    Both require credentials for every request (PROTECTION_LEVEL=ALL). All servers of ours accept the same `tokens`.
    """

    folder: Path
    home: Path
    sshd: SSHServer
    profiles: dict[str, Any]
    ours: AppServer
    reference: ReferenceServer
    tokens: list[str]

    def clients(self) -> tuple[Client, Client]:
        """Return a new connection to ours and one to the reference."""
        return self.client(self.ours), Client(self.reference.port, headers=self.reference_headers)

    def client(self, server: AppServer, person: int = 0) -> Client:
        """Return a new connection to a server of ours, with the token of a person."""
        return Client(server.port, headers=self.headers(person))

    def headers(self, person: int = 0) -> dict[str, str]:
        """Return the credentials of a person for our servers."""
        return bearer(self.tokens[person % PEOPLE])

    # Its fixed token for scripts: it compares the text, which is the cheapest check that it has.
    reference_headers = bearer(SCRIPT_TOKEN)

    def another(
        self,
        name: str,
        *,
        workers: int = WORKERS,
        more: dict[str, Any] | None = None,
        env: dict[str, str] | None = None,
    ) -> AppServer:
        """Return another server of ours with its own database, not started. `more`: additional profiles."""
        environment = self.ours_environment() | (env or {})
        server = AppServer(self.folder / name, env=environment, workers=workers, template_db=self._template)
        if more:
            self._import(server, more)
        return server

    def constant(self) -> AppServer:
        """Return a server whose path /bench/constant sends a constant, not started."""
        return Constant(self.folder / "constant", env=self.ours_environment(), template_db=self._template)

    @property
    def _template(self) -> Path:
        return self.folder / "template.sqlite3"

    def make_template(self) -> None:
        """Make the database that all servers of ours start with: the profiles, and people with tokens."""
        server = AppServer(self.folder / "template", env=self.ours_environment())
        self._import(server, {})
        self.tokens = json.loads(server.manage("shell", "-v0", "-c", TOKENS % PEOPLE))
        shutil.copy(server.database, self._template)

    def ours_environment(self) -> dict[str, str]:
        passed = ",".join((*NO_LMOD, "BENCH_RUN_SECONDS"))
        return {
            "HOME": str(self.home),
            "PROTECTION_LEVEL": "ALL",
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
            env={"PROTECTION_LEVEL": "ALL", **NO_LMOD},
        )
        built = Stage(folder, home, sshd, profiles, ours=None, reference=reference, tokens=[])  # type: ignore[arg-type]
        built.run_seconds(1)
        built.make_template()
        built.ours = built.another("ours")
        stack.callback(built.end_runs)
        stack.enter_context(built.ours)
        stack.enter_context(reference)
        yield built
