"""The parameters of a profile: one table, and what derives from it. No rows, no files and no HTTP here.

`Values` maps the path of a parameter (`SSH.PORT`) to its value. Open parameters are absent. The same functions serve
the admin (`RunnerProfile.clean`), requests (`RunnerProfile.resolve`) and the YAML import.

The table has the three parameters below and those of each runner (`RunnerRules.parameters`).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, TypedDict

from django.core.exceptions import ValidationError

from profiles.config import RunnerConfig
from profiles.exceptions import InvalidProfile
from profiles.parameter import Errors, Parameter, Values, is_empty, parse_choice, parse_items, require
from profiles.rules import MODULE_LOADERS, RUNNERS, LoaderRules
from profiles.validators import MAX_PATH, kind, shown, validate_path

RUNNER_TYPE, MODULE_LOADER_TYPE, MODULES = "RUNNER_TYPE", "MODULE_LOADER_TYPE", "MODULES"
RUN_DIRECTORY = "RUN_DIRECTORY"
TYPES = (RUNNER_TYPE, MODULE_LOADER_TYPE)  # the choices that decide which other parameters there are
HOSTS, USERS, VENV_ROOTS = "HOSTS", "USERS", "VENV_ROOTS"  # the limits of open parameters, by their names in YAML
MAX_UNKNOWN = 10  # unknown names listed in an answer; close matches for 100,000 names would take minutes


class Requirement(TypedDict, total=False):
    """A parameter that a profile leaves open. `required_when`: the values of other parameters that make it required."""

    parameter: str
    type: str  # choice, string, integer, strings
    required: bool
    required_when: dict[str, list[str]]
    choices: list[str]
    minimum: int
    maximum: int
    max_length: int
    allowed_patterns: list[str]  # these and allowed_roots: see profiles.limits.add_limits
    allowed_roots: list[str]
    default: int | str
    help: str


# --- Parsing: shapes and types ---------------------------------------------------------------------------------------


# --- The table -------------------------------------------------------------------------------------------------------


CORE = (
    Parameter(
        RUNNER_TYPE,
        "How to reach the machine",
        "choice",
        parse=parse_choice(lambda: list(RUNNERS)),
        choices=lambda: list(RUNNERS),
        column="runner_type",
    ),
    Parameter(
        MODULE_LOADER_TYPE,
        "How to prepare the environment",
        "choice",
        parse=parse_choice(lambda: list(MODULE_LOADERS)),
        choices=lambda: list(MODULE_LOADERS),
        column="module_loader_type",
    ),
    Parameter(MODULES, "Modules", "strings", parse=parse_items, column="modules", limit=VENV_ROOTS),
    Parameter(
        RUN_DIRECTORY,
        "Directory of runs",
        validate=validate_path,
        is_required=False,
        help="An absolute path on the machine, such as /scratch, in which each account gets a directory of its own for "
        "logs and exit codes, with mode 0700. It must exist, and be the same on all nodes of a login alias. Give all "
        "profiles of an account the same. Empty: the home directory.",
        max_length=MAX_PATH,
        is_open=False,
    ),
)


@cache
def table() -> dict[str, Parameter]:
    """Return all parameters by path: the core, then those of each runner."""
    rows = [*CORE, *(parameter for runner in RUNNERS.values() for parameter in runner.parameters)]
    return {parameter.path: parameter for parameter in rows}


def runners_with(parameter: Parameter) -> list[str]:
    """Return the names of the runners that take a parameter; of all runners for the core."""
    return [name for name, runner in RUNNERS.items() if parameter in CORE or parameter in runner.parameters]


def open_ones(fixed: Values) -> list[Parameter]:
    """Return the parameters that a request may give, and that a runner takes which is fixed, or may be chosen."""
    runner = fixed.get(RUNNER_TYPE)
    return [
        parameter
        for parameter in table().values()
        if parameter.is_open and parameter.path not in fixed and (not runner or runner in runners_with(parameter))
    ]


def sections() -> dict[str, list[str]]:
    """Return the members of each section, such as SSH, in their order, without aliases."""
    found: dict[str, list[str]] = {}
    for parameter in table().values():
        if parameter.section:
            found.setdefault(parameter.section, []).append(parameter.path.rpartition(".")[2])
    return found


def loader_of(values: Values) -> type[LoaderRules]:
    """Return the rules for MODULES: of the loader, or those that hold for every loader if it is open."""
    return MODULE_LOADERS.get(values.get(MODULE_LOADER_TYPE, ""), LoaderRules)


def parse(mapping: object) -> tuple[Values, Errors]:
    """Parse parameters from JSON or YAML. Return values and errors by path.

    null, empty texts and empty lists mean "not given". Texts are trimmed. Values are not validated yet (see
    `validate`).
    """
    values: Values = {}
    errors: Errors = {}
    if mapping is None:
        return values, errors
    if not isinstance(mapping, Mapping):
        return values, {"": [f"Give an object, not {kind(mapping)}."]}
    for section, names in sections().items():
        given = mapping.get(section)
        if not isinstance(given, Mapping) and not is_empty(given):
            errors[section] = [f"Give an object with {', '.join(names)}, not {kind(given)}."]
    for parameter in table().values():
        for path in filter(None, (parameter.path, parameter.alias)):
            raw = parameter.read(mapping, path)
            if is_empty(raw):
                continue
            try:
                value = parameter.parse(raw)
            except ValidationError as error:
                errors[path] = error.messages
                continue
            known = values.setdefault(parameter.path, value)
            if known != value:
                errors[path] = [
                    f"{shown(value)} contradicts {parameter.path} {shown(known)}: both mean the same parameter, give "
                    f"only one."
                ]
    errors.update(_unknown(mapping, ""))
    for section in sections():
        if isinstance(given := mapping.get(section), Mapping):
            errors.update(_unknown(given, section))
    return values, errors


def _names(section: str) -> list[str]:
    """Return the known names at the top (an empty section) or in a section, with aliases."""
    if not section:
        return [*(parameter.path for parameter in CORE), *sections()]
    aliases = [each.alias for each in table().values() if each.section == section and each.alias]
    return [*sections()[section], *(alias.rpartition(".")[2] for alias in aliases)]


def _unknown(mapping: Mapping[Any, Any], section: str) -> Errors:
    known = _names(section)
    unknown = [name for name in mapping if name not in known]
    prefix = f"{section}." if section else ""
    errors: Errors = {}
    for name in unknown[:MAX_UNKNOWN]:
        text = name if isinstance(name, str) else repr(name)
        label = text if len(text) <= 60 and text.isprintable() else shown(text)
        errors[f"{prefix}{label}"] = [f"Unknown parameter. {_nearest(text, section)}"]
    if len(unknown) > MAX_UNKNOWN:
        errors[f"{prefix}…"] = [f"{len(unknown) - MAX_UNKNOWN} more unknown parameters."]
    return errors


def _nearest(name: str, section: str) -> str:
    """Return a sentence that names the closest known parameter, inside or outside of a section."""
    words = {known: known for known in _names("")}
    for each in sections():
        for known in _names(each):
            written = known if each == section else f'{known} inside {each}, as in "{each}": {{"{known}": ...}}'
            words |= {known: written, f"{each}_{known}": written}
    folded = re.sub(r"[-. ]", "_", name[:60].upper())
    near = difflib.get_close_matches(folded, words, n=1)
    if near:
        return f"Did you mean {words[near[0]]}?"
    inner = [f"{each} with {', '.join(names)}" for each, names in sections().items()]
    return f"Known are {', '.join(parameter.path for parameter in CORE)} and {' and '.join(inner)}."


def nested(texts: Mapping[str, str]) -> dict[str, Any]:
    """Return the texts of form fields, by path, in the form of `profile_params`. MODULES has one module per line."""
    given: dict[str, Any] = {}
    for path, text in texts.items():
        section, _, name = path.rpartition(".")
        value = text.splitlines() if path == MODULES else text
        (given.setdefault(section, {}) if section else given)[name] = value
    return given


# --- Validating: the rules -------------------------------------------------------------------------------------------


def validate(values: Values) -> Errors:
    """Return the errors of a set of values. Parameters may still be open."""
    errors: Errors = {}
    runner = values.get(RUNNER_TYPE)
    rows = table()
    for parameter in [*(each for each in rows.values() if each.section or each.validate), rows[MODULES]]:
        path = parameter.path
        if path not in values:
            continue
        owners = runners_with(parameter)
        if runner and runner not in owners:
            errors[path] = [
                f"RUNNER_TYPE {runner} takes no {parameter.section} parameters: leave {path} out, or use RUNNER_TYPE "
                f"{' or '.join(owners)}."
            ]
        elif path == MODULES:
            if texts := loader_of(values).validate(values[path]):
                errors[path] = texts
        elif parameter.validate:
            try:
                parameter.validate(values[path])
            except ValidationError as error:
                errors[path] = error.messages
    return errors


# --- Resolving -------------------------------------------------------------------------------------------------------


def resolve(profile_name: str, fixed: Values, params: object) -> RunnerConfig:
    """Merge a profile's values and a request's parameters into one configuration. Raises only InvalidProfile."""
    given, errors = parse(params)
    if "" in errors:
        raise InvalidProfile({"profile_params": errors[""]})
    loader = loader_of({**given, **fixed})
    fixed, given = ({**each, MODULES: loader.split(each.get(MODULES, ()))} for each in (fixed, given))
    fixed, given = ({path: value for path, value in each.items() if value != ()} for each in (fixed, given))
    for path, value in given.items():
        if path not in fixed and not table()[path].is_open:
            errors.setdefault(path, []).append(
                f"Only a profile sets {path}, not a request: leave it out, or use another profile."
            )
        if path in fixed and fixed[path] != value:
            fact = f"The profile {profile_name} fixes {path} to {_as_text(fixed[path])}"
            errors.setdefault(path, []).append(f"{fact}: leave it out, or use another profile.")
    values = {**given, **fixed}
    if fixed_errors := validate(fixed):
        # The stored profile itself is invalid: it bypassed clean(). Say so, because the user cannot correct it and
        # should not search for the error in the request.
        for path, texts in fixed_errors.items():
            errors.setdefault(path, []).extend(
                f"The profile {profile_name} itself is not valid, ask an admin: {t}" for t in texts
            )
    for path, texts in validate(values).items():
        chooser = MODULE_LOADER_TYPE if path == MODULES else RUNNER_TYPE
        if path in fixed and path not in errors and chooser in given:  # blame what the request can change
            fact = f"{path} to {_as_text(fixed[path])}"
            problem = f"{given[chooser]} does not fit the profile {profile_name}, which fixes {fact}."
            texts = [f"{problem} Choose another {chooser}, or another profile."]
            path = chooser
        if path not in errors:
            errors[path] = texts
    runner = RUNNERS.get(values.get(RUNNER_TYPE, ""))
    target = runner.resolve(values, errors) if runner else None
    rows = table()
    require(rows[RUNNER_TYPE], f"Choose {' or '.join(RUNNERS)}", values, errors)
    require(rows[MODULE_LOADER_TYPE], f"Choose one of {', '.join(MODULE_LOADERS)}", values, errors)
    if MODULE_LOADER_TYPE in values and loader.takes != "none":
        require(rows[MODULES], f"{loader.name} needs {loader.what}", values, errors)
    if errors or target is None:
        raise InvalidProfile(errors)
    return RunnerConfig(
        values[RUNNER_TYPE],
        values[MODULE_LOADER_TYPE],
        values.get(MODULES, ()),
        target,
        run_directory=values.get(RUN_DIRECTORY, ""),
    )


def _as_text(value: object) -> str:
    return ", ".join(value)[:200] if isinstance(value, tuple) else str(value)


# --- Describing ------------------------------------------------------------------------------------------------------


def requirements(fixed: Values) -> list[Requirement]:
    """Return the parameters that a request may or must give, in the order of a form. Omit those without effect."""
    found: list[Requirement] = []
    runner, loader = fixed.get(RUNNER_TYPE), loader_of(fixed)
    for path, names in ((RUNNER_TYPE, RUNNERS), (MODULE_LOADER_TYPE, MODULE_LOADERS)):
        if path not in fixed:
            found.append({"parameter": path, "type": "choice", "required": True, "choices": list(names)})
    if MODULES not in fixed and loader.takes != "none":
        found.append(_modules_requirement(loader if MODULE_LOADER_TYPE in fixed else None))
    for parameter in open_ones(fixed):
        if parameter.section:
            owners = runners_with(parameter)
            item = _requirement(parameter, RUNNERS[runner or owners[0]].defaults(fixed, {}))
            if not runner and item["required"]:  # only the choice of such a runner makes it required
                item |= {"required": False, "required_when": {RUNNER_TYPE: owners}}
            found.append(item)
    return found


def _modules_requirement(loader: type[LoaderRules] | None) -> Requirement:
    """Return the requirement of MODULES. `loader`: None if it is open."""
    item: Requirement = {"parameter": MODULES, "type": "strings", "required": loader is not None}
    if loader:
        if loader.takes == "one":
            item["type"] = "string"
        item["help"] = loader.what
        return item
    taking = {name: each.what for name, each in MODULE_LOADERS.items() if each.takes != "none"}
    item["help"] = "; ".join(f"{name}: {what}" for name, what in taking.items())
    item["required_when"] = {MODULE_LOADER_TYPE: list(taking)}
    return item


def _requirement(parameter: Parameter, defaults: Values) -> Requirement:
    item: Requirement = {"parameter": parameter.path, "type": parameter.type, "required": parameter.is_required}
    if parameter.path in defaults:
        item |= {"required": False, "default": defaults[parameter.path]}
    if parameter.type == "integer":
        item |= {"minimum": parameter.minimum, "maximum": parameter.maximum}
    if parameter.max_length:
        item["max_length"] = parameter.max_length
    if parameter.help:
        item["help"] = parameter.help
    return item
