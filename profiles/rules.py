"""What each module loader and runner class states: names, texts, and the rules for the parameters that it takes.

`runners.services.machines` implements them: each class there is a subclass of one here, and adds how it prepares an
environment or reaches a machine. The registries find the classes through entry points, so this module imports none.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

from django.core.exceptions import ValidationError

from profiles import validators
from profiles.extensions import Registry
from profiles.parameter import Errors, Parameter, Values, require
from profiles.target import Target

NAMES = "[A-Z][A-Z0-9_]{0,15}"  # they are stored in columns of 16 characters


class LoaderRules:
    """The rules of a module loader for MODULES. This class itself has the rules that hold for every loader.

    `takes`: how many modules a configuration gives it. `what`: what MODULES has to be, for messages and forms.
    """

    name: ClassVar[str]  # as in MODULE_LOADER_TYPE, and of the entry point
    label: ClassVar[str]  # of the choice in forms, such as "VENV: a Python virtual environment, by absolute path"
    takes: ClassVar[Literal["none", "one", "many"]] = "many"
    what: ClassVar[str] = ""  # such as "the absolute path of one virtual environment"; empty if it takes none
    remedy: ClassVar[str] = ""  # of the connection test, if the environment cannot be prepared
    field_label: ClassVar[str] = "Environment"  # of the form field for MODULES
    may_be_path: ClassVar[bool] = False  # an environment may be given by its path, so directories may be allowed

    @classmethod
    def split(cls, items: Iterable[str]) -> tuple[str, ...]:
        """Return the single modules of the given texts."""
        return tuple(items)

    @classmethod
    def validate(cls, items: Iterable[str]) -> list[str]:
        """Return the errors of MODULES, of which at least one is given."""
        modules = cls.split(items)
        if cls.takes == "none":
            return [f"MODULE_LOADER_TYPE {cls.name} loads nothing: leave MODULES out, or choose another loader."]
        if cls.takes == "one" and len(modules) != 1:
            return [f"{cls.name} takes exactly one value: {cls.what}. {len(modules)} were given."]
        if len(modules) > validators.MAX_MODULES:
            return [f"Give at most {validators.MAX_MODULES} modules. {len(modules)} were given."]
        errors: list[str] = []
        for module in modules:
            try:
                cls.validate_module(module)
            except ValidationError as error:
                errors += error.messages
        return errors

    @classmethod
    def validate_module(cls, module: str) -> None:
        """Validate a single module. Raises ValidationError."""
        validators.validate_module(module)

    @classmethod
    def is_path(cls, modules: tuple[str, ...]) -> bool:
        """Return True if the valid `modules` give the environment by its path."""
        return False


class RunnerRules:
    """The rules of a runner for the parameters that say where commands run."""

    name: ClassVar[str]  # as in RUNNER_TYPE, and of the entry point
    label: ClassVar[str]  # of the choice in forms, such as "SSH: another machine"
    is_local: ClassVar[bool] = False  # commands run as the account of this service (RUNNERS_ALLOW_LOCAL)
    target_class: ClassVar[type[Target]]
    parameters: ClassVar[tuple[Parameter, ...]] = ()  # one for each field of the target class

    @classmethod
    def defaults(cls, values: Values, errors: Errors) -> Values:
        """Return the values of parameters that are not given. May add errors of those that are given."""
        return {}

    @classmethod
    def resolve(cls, values: Values, errors: Errors) -> Target | None:
        """Return the target. None if there are errors; missing parameters are added to them."""
        known = {**cls.defaults(values, errors), **values}
        for parameter in cls.parameters:
            if parameter.is_required:
                require(parameter, parameter.missing, known, errors)
        if errors:
            return None
        return cls.target_class(**{parameter.member: known[parameter.path] for parameter in cls.parameters})

    @classmethod
    def requires_mapping(cls, values: Values) -> bool:
        """Return True if only a person with a mapping to the account may use a profile with these fixed values."""
        return False

    @classmethod
    def account(cls, values: Values) -> tuple[str, str]:
        """Return the account and the machine (as `Target.machine`) that fixed values determine; empty: not known."""
        return "", ""


MODULE_LOADERS: Registry[type[LoaderRules]] = Registry(
    "autosubmit_runners.loaders", "runners.services.machines.loaders.base.ModuleLoader", names=NAMES
)
RUNNERS: Registry[type[RunnerRules]] = Registry(
    "autosubmit_runners.runners", "runners.services.machines.runner.Runner", names=NAMES
)


def loader_choices() -> list[tuple[str, str]]:
    """Return the names and labels, for the choices of models and serializers."""
    return [(name, loader.label) for name, loader in MODULE_LOADERS.items()]


def runner_choices() -> list[tuple[str, str]]:
    """Return the names and labels, for the choices of models and serializers."""
    return [(name, runner.label) for name, runner in RUNNERS.items()]
