"""The Autosubmit API 4.2.0 as a server to compare with: `ReferenceServer`, a context manager.

It is started as its package recommends (`autosubmit_api start`: gunicorn with uvicorn workers). Its home has
Autosubmit's own database, and the YAML of `RUNNER_CONFIGURATION` configures it. Background tasks are off: they read
experiments, which these tests do not need.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.support.paths import ROOT
from tests.support.processes import PATIENCE, descendants, end, free_port, is_listening, start, wait_for

REFERENCE_VENV = ROOT / ".tools" / "autosubmit-api"  # made by tools/autosubmit-api-venv
JWT_SECRET = "of the test run, signs nothing of value; 32 bytes and more"
SCRIPT_TOKEN = "of-the-test-run-for-scripts-0123456789"


class ReferenceServer:
    """A server of the Autosubmit API. LOCAL commands run in `home`, its HOME. Its SSH key is `home/.ssh/id_ed25519`."""

    def __init__(
        self,
        folder: Path,
        *,
        home: Path,
        programs: Path,
        configuration: Mapping[str, Any],
        client_key: Path | None = None,
        workers: int = 2,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Take `programs`, the folder of the `autosubmit` that LOCAL commands find first, and `client_key`, for SSH."""
        self.port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "reference.log"
        self._configuration = folder / "autosubmit_api.yaml"
        self._workers = workers
        self._process: subprocess.Popen[bytes] | None = None
        self._bin = REFERENCE_VENV / "bin"
        self.environment = {
            "HOME": str(home),
            "PATH": os.pathsep.join((str(programs), str(self._bin), os.defpath, "/usr/local/bin")),
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            "PROTECTION_LEVEL": "NONE",
            "AS_API_CONFIG_FILE": str(self._configuration),
            "AS_API_SECRET_TOKEN": SCRIPT_TOKEN,
            "SECRET_KEY": JWT_SECRET,
            **(env or {}),
        }
        self.configure(configuration)
        if client_key:
            (home / ".ssh").mkdir(mode=0o700, exist_ok=True)
            shutil.copy(client_key, home / ".ssh" / "id_ed25519")
        if not (home / ".autosubmitrc").exists():
            for command in ("configure", "install"):
                self._prepare(command)

    def _prepare(self, command: str) -> None:
        """Create Autosubmit's own database with the Autosubmit that the API depends on.

        The API does not start without it.
        """
        argv = [str(self._bin / "autosubmit"), command]
        done = subprocess.run(
            argv, env=self.environment, cwd="/", capture_output=True, text=True, check=False, timeout=60 * PATIENCE
        )
        assert done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout}\n{done.stderr}"

    def configure(self, configuration: Mapping[str, Any]) -> None:
        """Write the server's configuration file. The server reads the file at every request."""
        self._configuration.write_text(yaml.safe_dump({"RUNNER_CONFIGURATION": dict(configuration)}))

    def __enter__(self) -> ReferenceServer:
        self.start()
        return self

    def start(self) -> None:
        argv = [str(self._bin / "autosubmit_api"), "start", "--disable-bg-tasks", "-b", f"127.0.0.1:{self.port}"]
        argv += ["-w", str(self._workers)]
        self._process = start(argv, log=self.log, env=self.environment, cwd=Path("/"))
        wait_for(self._answers, 60, what=f"the Autosubmit API on port {self.port}; its log is {self.log}")

    def _answers(self) -> bool:
        assert self._process
        assert self._process.poll() is None, f"the Autosubmit API did not start: {self.log.read_text()}"
        return is_listening(self.port)

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def worker_pids(self) -> list[int]:
        assert self._process
        return list(descendants(self._process.pid))

    def stop(self) -> None:
        if self._process:
            end(self._process, patience=15)
            self._process = None
