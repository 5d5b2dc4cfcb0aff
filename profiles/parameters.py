"""The parameters of a profile: parse tolerantly, validate strictly, complete to a RunnerConfig. No rows, no HTTP here.

`Values` maps the path of a parameter (`SSH.PORT`) to its value. Open parameters are absent. The same functions serve
the admin (`RunnerProfile.clean`), requests (`RunnerProfile.resolve`) and the YAML import.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypedDict

from django.core.exceptions import ValidationError
from django.db import models

from profiles import validators
from profiles.config import DEFAULT_SSH_PORT, ModuleLoaderType, RunnerConfig, RunnerType, SSHTarget
from profiles.exceptions import InvalidProfile
from profiles.validators import kind, shown
from runners.services.machines.ssh.config import lookup

RUNNER_TYPE, MODULE_LOADER_TYPE, MODULES = "RUNNER_TYPE", "MODULE_LOADER_TYPE", "MODULES"
SSH_HOST, SSH_PORT, SSH_USER = "SSH.HOST", "SSH.PORT", "SSH.USER"
PATHS = (RUNNER_TYPE, MODULE_LOADER_TYPE, MODULES, SSH_HOST, SSH_PORT, SSH_USER)
TOP_NAMES = ("RUNNER_TYPE", "MODULE_LOADER_TYPE", "MODULES", "SSH")
SSH_NAMES = ("HOST", "PORT", "USER", "USERNAME")
MAX_UNKNOWN = 10  # unknown names listed in an answer; close matches for 100,000 names would take minutes

Values = dict[str, Any]  # RunnerType, ModuleLoaderType, tuple[str, ...], str, int, str, by path
Errors = dict[str, list[str]]

MODULES_RULE = {
    ModuleLoaderType.CONDA: "the name or the absolute path of one conda environment",
    ModuleLoaderType.VENV: "the absolute path of one virtual environment",
    ModuleLoaderType.LMOD: "one or more modules, such as autosubmit/4.1",
}


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
    allowed_patterns: list[str]  # these and allowed_roots: see profiles.limits.describe
    allowed_roots: list[str]
    default: int | str
    help: str


# --- Reading: shapes and types ---------------------------------------------------------------------------------------


def read(mapping: object) -> tuple[Values, Errors]:
    """Parse parameters from JSON or YAML. Return values and errors by path.

    null, empty texts and empty lists mean "not given". Texts are trimmed. Values are not validated yet (see `judge`).
    """
    values: Values = {}
    errors: Errors = {}
    if mapping is None:
        return values, errors
    if not isinstance(mapping, Mapping):
        return values, {"": [f"Give an object, not {kind(mapping)}."]}
    ssh = mapping.get("SSH")
    if not isinstance(ssh, Mapping):
        if not _is_empty(ssh):
            errors["SSH"] = [f"Give an object with HOST, PORT, USER, not {kind(ssh)}."]
        ssh = {}
    readers: list[tuple[str, object, Callable[[object], Any]]] = [
        (RUNNER_TYPE, mapping.get("RUNNER_TYPE"), lambda raw: _choice(RunnerType, raw)),
        (MODULE_LOADER_TYPE, mapping.get("MODULE_LOADER_TYPE"), lambda raw: _choice(ModuleLoaderType, raw)),
        (MODULES, mapping.get("MODULES"), _items),
        (SSH_HOST, ssh.get("HOST"), _text),
        (SSH_PORT, ssh.get("PORT"), _integer),
        (SSH_USER, ssh.get("USER"), _text),
        ("SSH.USERNAME", ssh.get("USERNAME"), _text),
    ]
    for path, raw, reader in readers:
        if not _is_empty(raw):
            try:
                values[path] = reader(raw)
            except ValidationError as error:
                errors[path] = error.messages
    if "SSH.USERNAME" in values:
        username = values.pop("SSH.USERNAME")
        if values.setdefault(SSH_USER, username) != username:
            errors["SSH.USERNAME"] = [
                f"{shown(username)} contradicts SSH.USER {shown(values[SSH_USER])}: they mean the same, give one."
            ]
    errors.update(_unknown(mapping, TOP_NAMES, ""))
    errors.update(_unknown(ssh, SSH_NAMES, "SSH."))
    return values, errors


def _is_empty(raw: object) -> bool:
    if isinstance(raw, str):
        return not raw.strip()
    if isinstance(raw, list | tuple):
        return all(item is None or (isinstance(item, str) and not item.strip()) for item in raw)
    return raw is None


def _text(raw: object) -> str:
    if not isinstance(raw, str):
        raise ValidationError(f"Give a text, in quotes, not {kind(raw)}.")
    return raw.strip()


def _choice(choices: type[models.TextChoices], raw: object) -> models.TextChoices:
    text = _text(raw)
    # upper() turns some other letters into ASCII ones, such as U+017F into S.
    word = text.upper() if text.isascii() else ""
    if word not in choices.values:
        near = difflib.get_close_matches(word[:60], choices.values, n=1)
        remedy = f"Did you mean {near[0]}?" if near else f"Choose {', '.join(choices.values)}."
        raise ValidationError(f"{shown(text)} is not known. {remedy}")
    return choices(word)


def _items(raw: object) -> tuple[str, ...]:
    if isinstance(raw, str):
        return (raw.strip(),)
    if not isinstance(raw, list | tuple):
        raise ValidationError(f"Give a text or a list of texts, not {kind(raw)}.")
    items = [item for item in raw if not _is_empty(item)]
    for item in items:
        if not isinstance(item, str):
            raise ValidationError(f"Give a list of texts, in quotes: {shown(item)} is {kind(item)}.")
    return tuple(item.strip() for item in items)


def _integer(raw: object) -> int:
    if isinstance(raw, str):
        text = raw.strip()
        if not re.fullmatch(r"[0-9]{1,18}", text):
            raise ValidationError(f"{shown(text)} is no port: give a number from 1 to 65535.")
        return int(text)
    if not isinstance(raw, int) or isinstance(raw, bool):
        raise ValidationError(f"Give a whole number from 1 to 65535, not {shown(raw)}.")
    return raw


def _unknown(mapping: Mapping[Any, Any], names: tuple[str, ...], prefix: str) -> Errors:
    unknown = [name for name in mapping if name not in names]
    errors: Errors = {}
    for name in unknown[:MAX_UNKNOWN]:
        text = name if isinstance(name, str) else repr(name)
        label = text if len(text) <= 60 and text.isprintable() else shown(text)
        errors[f"{prefix}{label}"] = [f"This parameter is not known. {_nearest(text, prefix)}"]
    if len(unknown) > MAX_UNKNOWN:
        errors[f"{prefix}…"] = [f"{len(unknown) - MAX_UNKNOWN} more parameters are not known."]
    return errors


def _nearest(name: str, prefix: str) -> str:
    """Return a sentence that names the closest known parameter, inside or outside of SSH."""
    words = {known: known for known in TOP_NAMES}
    for known in SSH_NAMES:
        written = known if prefix else f'{known} inside SSH, as in "SSH": {{"{known}": ...}}'
        words |= {known: written, f"SSH_{known}": written}
    folded = re.sub(r"[-. ]", "_", name[:60].upper())
    near = difflib.get_close_matches(folded, words, n=1)
    if near:
        return f"Did you mean {words[near[0]]}?"
    return f"Known are {', '.join(TOP_NAMES[:3])} and SSH with HOST, PORT, USER."


# --- Judging: the rules ----------------------------------------------------------------------------------------------


def judge(values: Values) -> Errors:
    """Return the errors of a set of values. Parameters may still be open."""
    errors: Errors = {}
    if values.get(RUNNER_TYPE) == RunnerType.LOCAL:
        for path in (SSH_HOST, SSH_PORT, SSH_USER):
            if path in values:
                errors[path] = [f"RUNNER_TYPE LOCAL takes no SSH parameters: leave {path} out, or use RUNNER_TYPE SSH."]
    for path, validate in (
        (SSH_HOST, validators.validate_host),
        (SSH_PORT, validators.validate_port),
        (SSH_USER, validators.validate_user),
    ):
        if path in values and path not in errors:
            _collect(errors, path, validate, [values[path]])
    if MODULES in values:
        _judge_modules(errors, values.get(MODULE_LOADER_TYPE), values[MODULES])
    return errors


def _judge_modules(errors: Errors, loader: ModuleLoaderType | None, modules: tuple[str, ...]) -> None:
    items = separate(loader, modules)
    if loader == ModuleLoaderType.NO_MODULE:
        errors[MODULES] = ["MODULE_LOADER_TYPE NO_MODULE loads nothing: leave MODULES out, or choose another loader."]
    elif loader in (ModuleLoaderType.VENV, ModuleLoaderType.CONDA) and len(items) != 1:
        errors[MODULES] = [f"{loader.value} takes exactly one: give {MODULES_RULE[loader]}. These are {len(items)}."]
    elif len(items) > validators.MAX_MODULES:
        errors[MODULES] = [f"Give at most {validators.MAX_MODULES} modules. These are {len(items)}."]
    else:
        validate = {
            ModuleLoaderType.VENV: validators.validate_path,
            ModuleLoaderType.CONDA: validators.validate_conda,
            ModuleLoaderType.LMOD: validators.validate_lmod,
            None: validators.validate_module,
        }[loader]
        _collect(errors, MODULES, validate, items)


def _collect(errors: Errors, path: str, validate: Callable[[Any], None], items: Iterable[Any]) -> None:
    for item in items:
        try:
            validate(item)
        except ValidationError as error:
            errors.setdefault(path, []).extend(error.messages)


def separate(loader: ModuleLoaderType | None, modules: Iterable[str]) -> tuple[str, ...]:
    """Return the single modules. For LMOD, also split at blanks and commas: today's GUI can send only one text."""
    if loader != ModuleLoaderType.LMOD:
        return tuple(modules)
    return tuple(word for item in modules for word in re.split(r"[\s,]+", item) if word)


# --- Completing ------------------------------------------------------------------------------------------------------


def complete(profile_name: str, fixed: Values, params: object) -> RunnerConfig:
    """Merge a profile's values and a request's parameters into one configuration. Raises only InvalidProfile."""
    given, errors = read(params)
    if "" in errors:
        raise InvalidProfile({"profile_params": errors[""]})
    if given.get(MODULE_LOADER_TYPE, fixed.get(MODULE_LOADER_TYPE)) is ModuleLoaderType.LMOD:
        fixed, given = ({**v, MODULES: separate(ModuleLoaderType.LMOD, v.get(MODULES, ()))} for v in (fixed, given))
        fixed, given = ({k: item for k, item in v.items() if item != ()} for v in (fixed, given))
    for path, value in given.items():
        if path in fixed and fixed[path] != value:
            fact = f"The profile {profile_name} fixes {path} to {_as_text(fixed[path])}"
            errors.setdefault(path, []).append(f"{fact}: leave it out, or use another profile.")
    values = {**given, **fixed}
    if fixed_errors := judge(fixed):
        # The stored profile itself is invalid: it bypassed clean(). Say so, because the user cannot correct it and
        # should not search for the error in the request.
        for path, texts in fixed_errors.items():
            errors.setdefault(path, []).extend(
                f"The profile {profile_name} itself is wrong, ask an admin: {t}" for t in texts
            )
    for path, texts in judge(values).items():
        chooser = MODULE_LOADER_TYPE if path == MODULES else RUNNER_TYPE
        if path in fixed and path not in errors and chooser in given:  # blame what the request can change
            fact = f"{path} to {_as_text(fixed[path])}"
            texts = [f"{given[chooser].value} does not fit: the profile {profile_name} fixes {fact}. Choose another."]
            path = chooser
        if path not in errors:
            errors[path] = texts
    ssh = _complete_ssh(values, errors) if values.get(RUNNER_TYPE) == RunnerType.SSH else None
    _require(RUNNER_TYPE, f"Choose {' or '.join(RunnerType.values)}", values, errors)
    _require(MODULE_LOADER_TYPE, f"Choose one of {', '.join(ModuleLoaderType.values)}", values, errors)
    loader = values.get(MODULE_LOADER_TYPE)
    if loader in MODULES_RULE:
        _require(MODULES, f"{loader.value} needs {MODULES_RULE[loader]}", values, errors)
    if errors:
        raise InvalidProfile(errors)
    return RunnerConfig(
        runner_type=values[RUNNER_TYPE],
        module_loader_type=values[MODULE_LOADER_TYPE],
        modules=values.get(MODULES, ()),
        ssh=ssh,
    )


def _complete_ssh(values: Values, errors: Errors) -> SSHTarget | None:
    """Return the target, completed from `~/.ssh/config`. None if a value is missing or wrong."""
    _require(SSH_HOST, "The profile leaves open which machine to use", values, errors)
    port, user = values.get(SSH_PORT), values.get(SSH_USER)
    if SSH_HOST in values and SSH_HOST not in errors:
        options = lookup(values[SSH_HOST])
        if options.problem:
            errors[SSH_HOST] = [f"{options.problem} Ask an admin."]
        port = port or options.port or DEFAULT_SSH_PORT
        user = user or options.user
    if not user and "SSH.USERNAME" not in errors:
        _require(SSH_USER, "The profile leaves open as which user to connect", values, errors)
    return None if errors else SSHTarget(host=values[SSH_HOST], port=port or DEFAULT_SSH_PORT, user=user or "")


def _require(path: str, sentence: str, values: Values, errors: Errors) -> None:
    """Add an error for a missing parameter, unless it already has an error."""
    if path not in values and path not in errors:
        errors[path] = [f"{sentence}: give {path} in profile_params."]


def _as_text(value: object) -> str:
    return ", ".join(value)[:200] if isinstance(value, tuple) else str(value)


# --- Describing ------------------------------------------------------------------------------------------------------


def requirements(fixed: Values) -> list[Requirement]:
    """Return the parameters that a request may or must give, in the order of a form. Omit those without effect."""
    open_ones: list[Requirement] = []
    runner, loader = fixed.get(RUNNER_TYPE), fixed.get(MODULE_LOADER_TYPE)
    if not runner:
        open_ones.append({"parameter": RUNNER_TYPE, "type": "choice", "required": True, "choices": RunnerType.values})
    if not loader:
        open_ones.append(
            {"parameter": MODULE_LOADER_TYPE, "type": "choice", "required": True, "choices": ModuleLoaderType.values}
        )
    if MODULES not in fixed and loader != ModuleLoaderType.NO_MODULE:
        modules: Requirement = {
            "parameter": MODULES,
            "type": "strings" if loader in (None, ModuleLoaderType.LMOD) else "string",
            "required": loader is not None,
        }
        if loader:
            modules["help"] = MODULES_RULE[loader]
        else:
            modules["help"] = "; ".join(f"{word.value}: {rule}" for word, rule in MODULES_RULE.items())
            modules["required_when"] = {MODULE_LOADER_TYPE: [word.value for word in MODULES_RULE]}
        open_ones.append(modules)
    if runner != RunnerType.LOCAL:
        open_ones += [_ssh_requirement(item, fixed) for item in _open_ssh(fixed)]
    return open_ones


def _open_ssh(fixed: Values) -> list[Requirement]:
    options = lookup(fixed[SSH_HOST]) if SSH_HOST in fixed else None
    found: list[Requirement] = []
    if SSH_HOST not in fixed:
        found.append({"parameter": SSH_HOST, "type": "string", "required": True, "max_length": validators.MAX_HOST})
    if SSH_PORT not in fixed:
        default = (options and options.port) or DEFAULT_SSH_PORT
        port: Requirement = {"parameter": SSH_PORT, "type": "integer", "required": False, "default": default}
        found.append({**port, "minimum": 1, "maximum": 65535})
    if SSH_USER not in fixed:
        user: Requirement = {"parameter": SSH_USER, "type": "string", "required": True}
        user["max_length"] = validators.MAX_USER
        if options and options.user:
            user |= {"required": False, "default": options.user}
        found.append(user)
    return found


def _ssh_requirement(item: Requirement, fixed: Values) -> Requirement:
    """Return the requirement of an SSH parameter. If RUNNER_TYPE is open, only the choice SSH makes it required."""
    if RUNNER_TYPE in fixed or not item["required"]:
        return item
    return {**item, "required": False, "required_when": {RUNNER_TYPE: [RunnerType.SSH.value]}}
