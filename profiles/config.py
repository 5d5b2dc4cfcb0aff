"""RunnerConfig: a complete, validated answer to "where, as whom and in what environment does a command run"."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from django.db import models


class RunnerType(models.TextChoices):
    """How a command reaches a machine."""

    LOCAL = "LOCAL", "LOCAL: the machine this service lives on"
    SSH = "SSH", "SSH: another machine"


class ModuleLoaderType(models.TextChoices):
    """What prepares the environment of a command."""

    CONDA = "CONDA", "CONDA: a conda environment, by name or absolute path"
    VENV = "VENV", "VENV: a Python virtual environment, by absolute path"
    LMOD = "LMOD", "LMOD: environment modules, loaded in order"
    NO_MODULE = "NO_MODULE", "NO_MODULE: the login environment as it is"


class Endpoint(models.TextChoices):
    """The command families that an admin can switch off."""

    SET_JOB_STATUS = "SET_JOB_STATUS", "set-job-status"
    CREATE_EXPERIMENT = "CREATE_EXPERIMENT", "create-experiment"
    RUNNER_RUN = "RUNNER_RUN", "runner-run"
    UPDATE_EXPERIMENT_DETAILS = "UPDATE_EXPERIMENT_DETAILS", "update-experiment-description"


DEFAULT_SSH_PORT = 22
DEFAULT_INSTALLATION = "default"  # shared by all profiles that name none, so that no experiment runs twice


@dataclass(frozen=True, slots=True)
class SSHTarget:
    """Where an SSH runner connects. `host` may be an alias of `~/.ssh/config`."""

    host: str
    port: int
    user: str


@dataclass(frozen=True, slots=True)
class RunnerConfig:
    """A complete configuration, from `RunnerProfile.resolve` or a stored snapshot. `ssh` is None only for LOCAL.

    `venv_roots`: an environment given as a path in `modules` must lie within one of these directories. Its real path on
    the machine counts. Empty: anywhere.
    `installation`: the name of the Autosubmit database that the commands use (`profiles.installations`).
    `profile_id`: the primary key of the profile. The snapshot omits it, because each row has a column for it.
    """

    runner_type: RunnerType
    module_loader_type: ModuleLoaderType
    modules: tuple[str, ...] = ()
    ssh: SSHTarget | None = None
    venv_roots: tuple[str, ...] = ()
    installation: str = DEFAULT_INSTALLATION
    profile_id: int | None = field(default=None, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Return the wire form (`RUNNER_TYPE`, `MODULE_LOADER_TYPE`, `MODULES` as list, `SSH`), to store it as JSON."""
        data: dict[str, Any] = {
            "RUNNER_TYPE": str(self.runner_type),
            "MODULE_LOADER_TYPE": str(self.module_loader_type),
            "MODULES": list(self.modules),
        }
        if self.ssh:
            data["SSH"] = {"HOST": self.ssh.host, "PORT": self.ssh.port, "USER": self.ssh.user}
        if self.venv_roots:
            data["VENV_ROOTS"] = list(self.venv_roots)
        if self.installation != DEFAULT_INSTALLATION:
            data["INSTALLATION"] = self.installation
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RunnerConfig:
        """Return the configuration of a snapshot that `as_dict` made. The values are not validated."""
        ssh = data.get("SSH")
        if not isinstance(data["MODULES"], list) or bool(ssh) != (data["RUNNER_TYPE"] == RunnerType.SSH):
            raise ValueError("MODULES is no list, or SSH does not fit RUNNER_TYPE")
        return cls(
            runner_type=RunnerType(data["RUNNER_TYPE"]),
            module_loader_type=ModuleLoaderType(data["MODULE_LOADER_TYPE"]),
            modules=tuple(data["MODULES"]),
            ssh=SSHTarget(host=ssh["HOST"], port=ssh["PORT"], user=ssh["USER"]) if ssh else None,
            venv_roots=tuple(data.get("VENV_ROOTS", ())),
            installation=data.get("INSTALLATION", DEFAULT_INSTALLATION),
        )
