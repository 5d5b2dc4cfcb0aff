"""Read the YAML format: text to settings. No rows and no files here; `importer.py` applies the settings."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import yaml
from django.core.exceptions import ValidationError

from profiles import parameters, validators
from profiles.installations import validate_installation
from profiles.limits import validate_accounts
from profiles.toggles import toggles
from profiles.validators import canonical, kind, shown
from profiles.yaml.format import (
    ACCESS,
    ACCOUNTS,
    DESCRIPTION,
    ENABLED,
    ENDPOINTS,
    GROUPS,
    INSTALLATION,
    LIMIT_RULES,
    LIMITS,
    MAX_CHARACTERS,
    MAX_DEPTH,
    MAX_GROUP_NAME,
    MAX_MEMBERS,
    MAX_MISTAKES,
    MAX_PERSON,
    PROFILES,
    ROOT,
    SILENT_AFTER,
    SSH_PUBLIC_KEYS,
    TOO_DEEP,
    Configuration,
    InvalidConfiguration,
    Mistake,
    ProfileSettings,
)


def parse(text: str) -> Configuration:
    """Return the configuration of a text. Raises InvalidConfiguration with all mistakes.

    Other top-level sections belong to other programs and are not validated.
    """
    if len(text) > MAX_CHARACTERS:
        raise InvalidConfiguration([Mistake("", f"The text has more than {MAX_CHARACTERS} characters.")])
    section, lines, mistakes = _load(text)
    reader = _Reader(lines, mistakes)
    configuration = reader.configuration(section)
    if reader.mistakes:
        raise InvalidConfiguration(sorted(reader.mistakes, key=lambda m: m.line or 0)[:MAX_MISTAKES])
    return configuration


# libyaml's parser takes a tenth of the time of PyYAML's own. The wheels of PyYAML have libyaml; else use the fallback.
_BaseLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_BaseLoader):
    """A loader that adds the line to Python errors that PyYAML does not catch, as for 2024-99-99, no valid date."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            problem = f"a value does not match its type ({error}); put texts in quotes"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None


def _require_shallow(text: str) -> None:
    """Raise RecursionError for a text that is nested deeper than MAX_DEPTH, before any recursive code reads it.

    Reading events needs no recursion. Building nodes from them is recursive; libyaml's binding does it in C.
    """
    depth = 0
    for event in yaml.parse(text, Loader=_BaseLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise RecursionError


def _load(text: str) -> tuple[object, dict[str, int], list[Mistake]]:
    """Return the section as plain values, the line of each path in it, and a mistake for each duplicate key.

    Only this section is converted to values: others may need tags that only their programs know.
    """
    lines: dict[str, int] = {}
    mistakes: list[Mistake] = []
    try:
        _require_shallow(text)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            pairs = node.value if isinstance(node, yaml.MappingNode) else []
            named = {key.value: value for key, value in pairs if isinstance(key, yaml.ScalarNode)}
            if node is None or ROOT not in named:
                raise InvalidConfiguration([_no_root(list(named))])
            _walk(node, "", lines, mistakes, set())
            return loader.construct_document(named[ROOT]), lines, mistakes
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        if "nesting depth" in (error.problem or ""):  # libyaml's own limit; it reads ahead
            raise InvalidConfiguration([Mistake("", TOO_DEEP)]) from None
        mark = error.problem_mark or error.context_mark
        words = "; ".join(filter(None, [error.context, error.problem])) or "this is not YAML"
        last = text.count("\n") + 1  # libyaml may report the line after the last one
        mistake = Mistake("", f"Not valid YAML: {words}.", min(mark.line + 1, last) if mark else None)
    except yaml.reader.ReaderError as error:
        line = text.encode()[: error.position].count(b"\n") + 1  # libyaml counts bytes
        mistake = Mistake("", f"Not valid YAML: {error.reason}.", line)
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        mistake = Mistake("", "Not valid YAML: unpaired surrogate.", line)
    except RecursionError:
        mistake = Mistake("", TOO_DEEP)
    raise InvalidConfiguration([mistake])


def _no_root(names: list[str]) -> Mistake:
    near = difflib.get_close_matches(ROOT, [name[:60] for name in names[:100]], n=1)
    return Mistake("", f"The section {ROOT} is missing." + (f" Did you mean {near[0]}?" if near else ""))


def _walk(node: yaml.Node, path: str, lines: dict[str, int], mistakes: list[Mistake], seen: set[int]) -> None:
    """Record the line of every path in the section, and duplicate keys: YAML parsers silently use the last one.

    `seen` holds the visited nodes. Without it, nested aliases could keep a small text busy without end.
    """
    lines.setdefault(path, node.start_mark.line + 1)
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[f"{path}[{index}]"] = item.start_mark.line + 1
    if not isinstance(node, yaml.MappingNode):
        return
    first: dict[str, int] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode) or (not path and key.value != ROOT):
            continue
        here, line = f"{path}.{key.value}" if path else key.value, key.start_mark.line + 1
        if key.value in first:
            mistakes.append(
                Mistake(here, f"Duplicate key, it is also in line {first[key.value]}. Remove one of them.", line)
            )
            continue
        first[key.value] = lines[here] = line
        _walk(value, here, lines, mistakes, seen)


class _Reader:
    """A reader of the section that collects all mistakes instead of stopping at the first one."""

    def __init__(self, lines: Mapping[str, int], mistakes: list[Mistake]) -> None:
        self.lines = lines
        self.mistakes = mistakes

    def wrong(self, path: str, message: str) -> None:
        """Add a mistake, with the line of its path or of the closest known parent."""
        place = path
        while place and place not in self.lines:
            place = place.rpartition(".")[0]
        self.mistakes.append(Mistake(path, message, self.lines.get(place)))

    def configuration(self, section: object) -> Configuration:
        parts = self.mapping(section, ROOT, (PROFILES, SSH_PUBLIC_KEYS, ENDPOINTS, ACCOUNTS))
        profiles = endpoints = keys = accounts = None
        if parts.get(PROFILES) is not None:
            path = f"{ROOT}.{PROFILES}"
            found = self.few(self.mapping(parts[PROFILES], path), path)
            profiles = {name: self.profile(f"{path}.{name}", name, value) for name, value in found.items()}
        if parts.get(SSH_PUBLIC_KEYS) is not None:
            keys = self.keys(parts[SSH_PUBLIC_KEYS], f"{ROOT}.{SSH_PUBLIC_KEYS}")
        if parts.get(ENDPOINTS) is not None:
            path = f"{ROOT}.{ENDPOINTS}"
            found = self.mapping(parts[ENDPOINTS], path, list(toggles()))
            endpoints = {name: self.endpoint(f"{path}.{name}", value) for name, value in found.items()}
        if parts.get(ACCOUNTS) is not None:
            path = f"{ROOT}.{ACCOUNTS}"
            found = self.few(self.mapping(parts[ACCOUNTS], path), path)
            accounts = {name: self.accounts_of(f"{path}.{name}", name, value) for name, value in found.items()}
            names: dict[str, str] = {}
            for name in found:
                like = names.setdefault(canonical(name), name)
                if like != name:
                    self.wrong(
                        f"{path}.{name}"[:MAX_PERSON],
                        f"This looks like {shown(like)}: both names belong to one person.",
                    )
        return Configuration(profiles=profiles, ssh_public_keys=keys, endpoints=endpoints, accounts=accounts)

    def few(self, members: dict[str, Any], path: str) -> dict[str, Any]:
        """Return the members. If there are too many, add a mistake and return none."""
        if len(members) <= MAX_MEMBERS:
            return members
        self.wrong(path, f"Give at most {MAX_MEMBERS} members. {len(members)} were given.")
        return {}

    def accounts_of(self, path: str, person: str, value: object) -> tuple[str, ...]:
        """Return the accounts of one person, in their order, without duplicates."""
        accounts = tuple(dict.fromkeys(self.texts(value, path)))
        try:
            if not person.strip() or len(person) > MAX_PERSON or not person.isprintable():
                raise ValidationError("Give the name that the person signs in with.")
            validate_accounts(accounts)
        except ValidationError as error:
            self.wrong(path if len(person) <= MAX_PERSON else path.removesuffix(f".{person}"), " ".join(error.messages))
        return accounts

    def mapping(self, value: object, path: str, names: Iterable[str] | None = None) -> dict[str, Any]:
        """Return the members with a text as key, and a known one if `names` is given. The others are mistakes."""
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.wrong(path, f"Give a mapping (NAME: ...), not {kind(value)}.")
            return {}
        members = {}
        for name, member in value.items():
            label = f"{path}.{name if isinstance(name, str) and len(name) <= 100 else shown(name)}"
            if not isinstance(name, str):
                self.wrong(label, "Put the name in quotes.")
            elif names is not None and name not in names and len(self.mistakes) >= MAX_MISTAKES:
                self.wrong(label, "Unknown name.")  # close matches for thousands would take minutes
            elif names is not None and name not in names:
                near = difflib.get_close_matches(name[:60].upper(), list(names), n=1)
                remedy = f"Did you mean {near[0]}?" if near else f"Known are {', '.join(names)}."
                self.wrong(label, f"Unknown name. {remedy}")
            else:
                members[name] = member
        return members

    def profile(self, path: str, name: str, value: object) -> ProfileSettings:
        try:
            validators.validate_name(name)
        except ValidationError as error:
            self.wrong(path if len(name) <= 100 else path.removesuffix(f".{name}"), " ".join(error.messages))
        if value is not None and not isinstance(value, dict):
            self.wrong(path, f"Give a mapping with RUNNER_TYPE, MODULE_LOADER_TYPE and so on, not {kind(value)}.")
            return ProfileSettings({})
        members = dict(value or {})
        enabled, description = members.pop(ENABLED, None), members.pop(DESCRIPTION, None)
        access, limits = self.access(members, path), self.limits(members, path)
        installation, silent_after = self.installation(members, path), self.silent_after(members, path)
        if enabled is not None and not isinstance(enabled, bool):
            self.wrong(f"{path}.{ENABLED}", f"Give true or false, not {shown(enabled)}.")
        if description is not None and not isinstance(description, str):
            self.wrong(f"{path}.{DESCRIPTION}", f"Give a text, in quotes, not {kind(description)}.")
        values, errors = parameters.parse(members)
        if parameters.MODULES in values:
            values[parameters.MODULES] = parameters.loader_of(values).split(values[parameters.MODULES])
        for part, texts in {**parameters.validate(values), **errors}.items():
            self.wrong(f"{path}.{part}", " ".join(texts))
        return ProfileSettings(values, enabled, description, access, limits, installation, silent_after)

    def installation(self, members: dict[str, Any], path: str) -> str | None:
        """Remove INSTALLATION from the profile's members and return its value."""
        given = members.pop(INSTALLATION, None)
        if given is None:
            return None
        try:
            if not isinstance(given, str):
                raise ValidationError(f"Give a text, in quotes, not {kind(given)}.")
            if given.strip():
                validate_installation(given.strip())
        except ValidationError as error:
            self.wrong(f"{path}.{INSTALLATION}", " ".join(error.messages))
            return None
        return given.strip()

    def silent_after(self, members: dict[str, Any], path: str) -> int | None:
        """Remove SILENT_AFTER from the profile's members and return its value."""
        given = members.pop(SILENT_AFTER, None)
        most = validators.MAX_SILENT_AFTER
        if given is None or (isinstance(given, int) and not isinstance(given, bool) and 0 <= given <= most):
            return given
        self.wrong(f"{path}.{SILENT_AFTER}", f"Give whole seconds from 0 (off) to {most}, not {shown(given)}.")
        return None

    def access(self, members: dict[str, Any], path: str) -> dict[str, tuple[str, ...]] | None:
        """Remove ACCESS from the profile's members and return its value."""
        given = members.pop(ACCESS, None)
        if given is None:
            return None
        path = f"{path}.{ACCESS}"
        found = self.mapping(given, path, GROUPS)
        groups = {name: sorted(set(self.texts(found.get(name), f"{path}.{name}"))) for name in GROUPS}
        for name, names in groups.items():
            for group in names:
                if len(group) > MAX_GROUP_NAME or not group.isprintable():
                    self.wrong(f"{path}.{name}", f"{shown(group)} is not a valid group name.")
        return {name: tuple(names) for name, names in groups.items()}

    def limits(self, members: dict[str, Any], path: str) -> dict[str, tuple[str, ...]] | None:
        """Remove LIMITS from the profile's members and return its value."""
        given = members.pop(LIMITS, None)
        if given is None:
            return None
        path = f"{path}.{LIMITS}"
        found = self.mapping(given, path, LIMIT_RULES)
        limits = {name: self.texts(found.get(name), f"{path}.{name}") for name in LIMIT_RULES}
        for name, validate in LIMIT_RULES.items():
            try:
                validate(limits[name])
            except ValidationError as error:
                self.wrong(f"{path}.{name}", " ".join(error.messages))
        return limits

    def texts(self, value: object, path: str) -> tuple[str, ...]:
        """Return the items of a list of texts, or of one text."""
        items = [value] if isinstance(value, str) else value
        if items is None:
            return ()
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            self.wrong(path, f"Give a list of texts, in quotes, not {kind(value)}.")
            return ()
        return tuple(item.strip() for item in items if item.strip())

    def keys(self, value: object, path: str) -> tuple[str, ...]:
        if not isinstance(value, list):
            self.wrong(path, f"Give a list of public keys, not {kind(value)}.")
            return ()
        if len(value) > MAX_MEMBERS:
            self.wrong(path, f"Give at most {MAX_MEMBERS} keys. {len(value)} were given.")
            return ()
        keys: dict[str, None] = {}  # an ordered set: a duplicate key is published once
        for index, line in enumerate(value):
            try:
                if not isinstance(line, str):
                    raise ValidationError(f"Give a text, in quotes, not {kind(line)}.")
                validators.validate_public_key(line.strip())
                keys[line.strip()] = None
            except ValidationError as error:
                self.wrong(f"{path}[{index}]", " ".join(error.messages))
        return tuple(keys)

    def endpoint(self, path: str, value: object) -> bool:
        members = self.mapping(value, path, (ENABLED,))
        enabled = members.get(ENABLED)
        if not isinstance(enabled, bool):
            given = f", not {shown(enabled)}" if ENABLED in members else ""
            self.wrong(f"{path}.{ENABLED}", f"Give true or false{given}.")
            return True
        return enabled
