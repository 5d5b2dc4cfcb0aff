"""One of the two services, so that each case is written only once: `ours(...)` and `reference(...)`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from tests.compat.client import Client, Reply
from tests.compat.provider import Provider
from tests.compat.reference import JWT_SECRET, SCRIPT_TOKEN, ReferenceServer
from tests.support.environments import STUB, StubAccount
from tests.support.processes import wait_for
from tests.support.servers import AppServer, SSHServer

ENDPOINTS = ("SET_JOB_STATUS", "CREATE_EXPERIMENT", "RUNNER_RUN", "UPDATE_EXPERIMENT_DETAILS")
ORIGIN = "http://gui.example.org"


@dataclass
class Side:
    """One of the two services. `letter` is the first letter of the ids of this side's experiments.

    `configure` takes a RUNNER_CONFIGURATION, `protect` a PROTECTION_LEVEL. `login` takes the name of a user who signs
    in to the Autosubmit API, and returns the header that the GUI then sends to either side.
    """

    name: str
    letter: str
    port: int
    account: StubAccount
    sshd: SSHServer
    configure: Callable[[Mapping[str, Any]], None]
    protect: Callable[[str], None]
    login: Callable[[str], dict[str, str]]
    level: str = "NONE"
    _numbers: Iterator[int] = field(default_factory=lambda: count(100))
    _is_on: bool = True

    def __post_init__(self) -> None:
        self.client = Client(self.port)

    def experiment(self) -> str:
        """Create an experiment that the stand-in for Autosubmit knows, and return its expid."""
        return self.account.experiment(f"{self.letter}{next(self._numbers)}")

    def get(self, path: str, **headers: str) -> Reply:
        return self.client.request("GET", path, headers=headers)

    def post(self, path: str, body: Any, **headers: str) -> Reply:
        """Send a POST request. A path without a leading slash is a command's name."""
        full = path if path.startswith("/") else f"/v4/runners/command/{path}"
        return self.client.request("POST", full, body, headers)

    def run(self, expid: str, profile: str = "LOCAL", **headers: str) -> Reply:
        body = {"expid": expid, "profile_name": profile, "profile_params": {}}
        return self.post("run-experiment", body, **headers)

    def status(self, expid: str) -> Reply:
        return self.post("get-runner-run-status", {"expid": expid})

    def status_after(self, expid: str, deadline: float = 30) -> Reply:
        """Return the status once it is no longer ACTIVE. Raise AssertionError after `deadline` seconds."""

        def ended() -> Reply | None:
            reply = self.status(expid)
            return None if reply.body["status"] == "ACTIVE" else reply

        reply = wait_for(ended, deadline, what=f"end of {expid}")
        assert reply
        return reply

    def switch(self, *, on: bool) -> None:
        """Switch every endpoint toggle on or off, unless it is so already."""
        if on != self._is_on:
            toggles = {name: {"ENABLED": on} for name in ENDPOINTS}
            self.configure({"PROFILES": profiles(self.sshd), "ENDPOINTS": toggles})
            self._is_on = on

    def at_level(self, level: str) -> None:
        """Set this PROTECTION_LEVEL, unless it is set already, because a change requires a restart."""
        if level != self.level:
            self.protect(level)
            self.level = level


def profiles(sshd: SSHServer) -> dict[str, Any]:
    """Return the profiles of both services. The Autosubmit API accepts `USERNAME` only."""
    place = {"HOST": "127.0.0.1", "PORT": sshd.port, "USERNAME": sshd.user}
    return {
        "LOCAL": {"RUNNER_TYPE": "LOCAL", "MODULE_LOADER_TYPE": "NO_MODULE"},
        "SSH": {"RUNNER_TYPE": "SSH", "MODULE_LOADER_TYPE": "NO_MODULE", "SSH": place},
        "SSH_OPEN": {"RUNNER_TYPE": "SSH", "MODULE_LOADER_TYPE": "NO_MODULE", "SSH": {"HOST": "127.0.0.1"}},
        "VENV_OPEN": {"RUNNER_TYPE": "LOCAL", "MODULE_LOADER_TYPE": "VENV"},
        "OPEN": {},
    }


@contextmanager
def ours(folder: Path, account: StubAccount, sshd: SSHServer, login: Callable[[str], dict[str, str]]) -> Iterator[Side]:
    env = {
        "HOME": str(account.home),
        "AS_API_JWT_SECRET": JWT_SECRET,
        "AS_API_SECRET_TOKEN": SCRIPT_TOKEN,
        "CORS_ALLOWED_ORIGINS": ORIGIN,
        "RUNNERS_STATUS_FRESHNESS": "0.1",
        **sshd.environment,
    }
    server = AppServer(folder / "ours", env=env)
    file = folder / "ours.yaml"

    def configure(configuration: Mapping[str, Any]) -> None:
        file.write_text(yaml.safe_dump({"RUNNER_CONFIGURATION": dict(configuration)}))
        server.manage("import_profiles", str(file))

    configure({"PROFILES": profiles(sshd), "SSH_PUBLIC_KEYS": [public_key(sshd)]})
    with server:
        protect = partial(_protect, server)
        side = Side("ours", "a", server.port, account, sshd, configure, protect, login)
        yield side
        side.client.close()


@contextmanager
def reference(folder: Path, account: StubAccount, sshd: SSHServer) -> Iterator[Side]:
    """Start the Autosubmit API with one worker. With more workers, it is random whether it can stop a LOCAL run."""
    configuration = {"PROFILES": profiles(sshd), "SSH_PUBLIC_KEYS": [public_key(sshd)]}
    with Provider() as provider:
        server = ReferenceServer(
            folder / "reference",
            home=account.home,
            programs=STUB,
            configuration=configuration,
            client_key=sshd.client_key,
            workers=1,
            env=provider.environment,
        )

        def login(name: str) -> dict[str, str]:
            reply = side.get(f"/v4/auth/oidc/login?code={name}")
            assert reply.status == 200, reply
            return {"Authorization": reply.body["token"]}

        with server:
            protect = partial(_protect, server)
            side = Side("reference", "b", server.port, account, sshd, server.configure, protect, login)
            yield side
            side.client.close()


def _protect(server: AppServer | ReferenceServer, level: str) -> None:
    server.stop()
    server.environment["PROTECTION_LEVEL"] = level
    server.start()


def public_key(sshd: SSHServer) -> str:
    return sshd.client_key.with_suffix(".pub").read_text().strip()
