"""RunnerConfig: a complete, validated answer to "where, as whom and in what environment does a command run"."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

from profiles.rules import MODULE_LOADERS, RUNNERS
from profiles.target import Target

DEFAULT_INSTALLATION = "default"  # shared by all profiles that name none, so that no experiment runs twice


@dataclass(frozen=True, slots=True)
class RunnerConfig:
    """A complete configuration, from `RunnerProfile.resolve` or a stored snapshot.

    `runner_type` and `module_loader_type`: names of `profiles.rules.RUNNERS` and `MODULE_LOADERS`.
    `target`: None stands for the only target of a runner that has no parameters, such as LOCAL.
    `venv_roots`: an environment given as a path in `modules` must lie within one of these directories. Its real path on
    the machine counts. Empty: anywhere.
    `installation`: the name of the Autosubmit database that the commands use (`profiles.installations`).
    `silent_after`: seconds without output after which a run is marked as silent. 0: never.
    `run_directory`: the directory on the machine that has the account's directory of runs; empty: its home. It says
    only where a run's files are, so configurations that differ in it are equal.
    `profile_id`: the primary key of the profile. The snapshot omits it, because each row has a column for it.
    """

    runner_type: str
    module_loader_type: str
    modules: tuple[str, ...] = ()
    target: Target = None  # type: ignore[assignment]  # __post_init__ sets it
    venv_roots: tuple[str, ...] = ()
    installation: str = DEFAULT_INSTALLATION
    silent_after: int = 0
    run_directory: str = field(default="", compare=False)
    profile_id: int | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if cast("Target | None", self.target) is None:
            object.__setattr__(self, "target", RUNNERS[self.runner_type].target_class())

    def as_dict(self) -> dict[str, Any]:
        """Return the wire form (`RUNNER_TYPE`, `MODULE_LOADER_TYPE`, `MODULES` as list, `SSH`), to store it as JSON."""
        data: dict[str, Any] = {
            "RUNNER_TYPE": self.runner_type,
            "MODULE_LOADER_TYPE": self.module_loader_type,
            "MODULES": list(self.modules),
            **self.target.as_dict(),
        }
        if self.venv_roots:
            data["VENV_ROOTS"] = list(self.venv_roots)
        if self.installation != DEFAULT_INSTALLATION:
            data["INSTALLATION"] = self.installation
        if self.silent_after:
            data["SILENT_AFTER"] = self.silent_after
        if self.run_directory:
            data["RUN_DIRECTORY"] = self.run_directory
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RunnerConfig:
        """Return the configuration of a snapshot that `as_dict` made. The values are not validated.

        Raises AttributeError, KeyError, TypeError or ValueError for other data, and for a runner or loader that is no
        longer installed.
        """
        target_class = RUNNERS[data["RUNNER_TYPE"]].target_class
        others = {runner.target_class.section for runner in RUNNERS.values()} - {target_class.section}
        if not isinstance(data["MODULES"], list) or any(data.get(section) for section in others):
            raise ValueError("MODULES is no list, or the target does not fit RUNNER_TYPE")
        if not isinstance(run_directory := data.get("RUN_DIRECTORY", ""), str):
            raise ValueError("RUN_DIRECTORY is no text")
        return cls(
            runner_type=data["RUNNER_TYPE"],
            module_loader_type=MODULE_LOADERS[data["MODULE_LOADER_TYPE"]].name,
            modules=tuple(data["MODULES"]),
            target=target_class.from_dict(data),
            venv_roots=tuple(data.get("VENV_ROOTS", ())),
            installation=data.get("INSTALLATION", DEFAULT_INSTALLATION),
            silent_after=data.get("SILENT_AFTER", 0),
            run_directory=run_directory,
        )
