"""The configuration files of an experiment, in its folder `conf` on its machine: list, read, replace, restore.

The files are read and replaced by the account of the profile, with one program that the machine executes
(machines/scripts/configuration_files.py). It follows no link and never leaves `conf`. A replacement names the digest of
the content that it replaces, and the machine compares it again right before the replacement. So a replacement whose
outcome is unknown can be repeated.

The functions take keyword arguments only and raise `runners.exceptions`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.conf import settings

from profiles.config import RunnerConfig
from runners.exceptions import (
    AlreadyRunning,
    CommandFailed,
    CommandTimedOut,
    ExperimentNotFound,
    FileNotFound,
    FileRejected,
    InvalidRequest,
    OutcomeUnknown,
    PreconditionFailed,
)
from runners.models import AuditRecord
from runners.services import configuration_check, configuration_diff, maintenance, probing
from runners.services.active_runs import in_use, run_in_the_way
from runners.services.audit import DETAIL_LIMIT, begin
from runners.services.machines import scripts
from runners.services.machines.registry import get_module_loader, get_runner

MOST_BYTES = 256 * 1024  # of a file
KEPT_VERSIONS = 20  # of each file
PATH_LIMIT = 150  # characters
_COMPONENT = r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}"
PATH_PATTERN = rf"(?:{_COMPONENT}/){{0,3}}{_COMPONENT}\.(?:yml|yaml|conf)"
PATH_RULE = (
    "give the path of a .yml, .yaml or .conf file below conf, such as jobs_a000.yml: at most four components of "
    "letters, digits and . _ + -, none of which begins with a dot."
)
VERSION_PATTERN = r"[0-9]{8}T[0-9]{6}\.[0-9]{6}Z-[0-9a-f]{16}"
DIGEST_PATTERN = r"[0-9a-f]{64}"
_LINE_LIMIT = 2 * 1024 * 1024  # characters of the answer


@dataclass(frozen=True, slots=True)
class FileFacts:
    """`size` in bytes. `mode`: the permission bits, as in 0o644. `modified`: None if the machine's clock is wrong."""

    path: str
    size: int
    mode: int
    modified: datetime | None


@dataclass(frozen=True, slots=True)
class Listing:
    """`others`: how many links, folders too deep, and files of other names there are."""

    files: list[FileFacts]
    others: int


@dataclass(frozen=True, slots=True)
class File:
    """A file with its content. `digest`: SHA-256 of the content, in hex."""

    facts: FileFacts
    content: str
    digest: str


@dataclass(frozen=True, slots=True)
class Version:
    """A former content of a file. `replaced`: when it was replaced, by the clock of the machine."""

    version: str
    replaced: datetime
    size: int


@dataclass(frozen=True, slots=True)
class Change:
    """What a replacement has done or would do. `difference`: a unified diff, with secrets masked.

    `version`: the version that holds the former content; empty if nothing was replaced.
    """

    path: str
    digest: str
    version: str
    difference: str
    is_changed: bool


def list_files(*, config: RunnerConfig, expid: str) -> Listing:
    """Return the files of an experiment. Raises ExperimentNotFound and the errors of `Runner.execute`."""
    answer = _ask(config, expid, "list")
    files, others = answer.get("files"), answer.get("others")
    if not isinstance(files, list) or not isinstance(others, int):
        raise _not_valid(config)
    return Listing([_facts(config, each) for each in files], others)


def read_file(*, config: RunnerConfig, expid: str, path: str, version: str = "") -> File:
    """Return a file, or a former version of it.

    Raises FileNotFound, FileRejected, ExperimentNotFound and the errors of `Runner.execute`.
    """
    answer = _ask(config, expid, "read", path=path, version=version)
    data = _bytes(config, answer.get("content"))
    return File(_facts(config, answer), _text(data), _digest(data))


def versions(*, config: RunnerConfig, expid: str, path: str) -> list[Version]:
    """Return the former versions of a file, the newest first. Raises ExperimentNotFound and those of `execute`."""
    found = []
    rows = _ask(config, expid, "versions", path=path, kept=KEPT_VERSIONS).get("versions")
    for row in rows if isinstance(rows, list) else [None]:
        match row:
            case {"version": str(name), "size": int(size)} if re.fullmatch(VERSION_PATTERN, name) and size >= 0:
                try:
                    when = datetime.strptime(name.partition("-")[0], "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC)
                except ValueError:
                    raise _not_valid(config) from None
                found.append(Version(name, when, size))
            case _:
                raise _not_valid(config)
    return found


def preview(*, config: RunnerConfig, expid: str, path: str, content: str, expected: str, audit: AuditRecord) -> Change:
    """Return what `write_file` would change. Nothing is written. Raises its errors, but not AlreadyRunning."""
    data = _checked(path, content)
    audit.outcome = "dry_run"
    present = read_file(config=config, expid=expid, path=path)
    if present.digest != expected:
        raise _changed(path, present.digest)
    audit.detail = f"conf/{path}"
    difference = configuration_diff.masked(present.content, content, path)
    return Change(path, _digest(data), "", difference, content != present.content)


def write_file(
    *, config: RunnerConfig, expid: str, path: str, content: str, expected: str, audit: AuditRecord
) -> Change:
    """Replace the content of a file. `expected`: the digest of the content that is replaced.

    The bytes are written as given. The file keeps its mode, and its former content becomes a version. Raises
    InvalidRequest (the content is not valid YAML; nothing was sent), AlreadyRunning, PreconditionFailed, FileNotFound,
    FileRejected, ExperimentNotFound, OutcomeUnknown and the other errors of `Runner.execute`.
    """
    data = _checked(path, content)
    _begin(config, expid, path, audit)
    try:
        answer = _ask(
            config, expid, "write", stdin=data, path=path, expected=expected, digest=_digest(data), kept=KEPT_VERSIONS
        )
    except (OutcomeUnknown, CommandTimedOut) as error:
        raise OutcomeUnknown(
            f"It is not known whether conf/{path} was replaced: {error.detail} Read the file: its ETag tells. The same "
            "request can be repeated, because it replaces only the content that its If-Match names.",
            digest=_digest(data),
        ) from error
    former, version, is_changed = answer.get("former"), answer.get("version"), answer.get("is_changed")
    if not isinstance(version, str) or not re.fullmatch(VERSION_PATTERN + "|", version):
        raise _not_valid(config)
    difference = configuration_diff.masked(_text(_bytes(config, former)), content, path)
    audit.detail = f"conf/{path}\n{difference}"[:DETAIL_LIMIT]
    return Change(path, _digest(data), version, difference, is_changed is True)


def restore(
    *,
    config: RunnerConfig,
    expid: str,
    path: str,
    version: str,
    expected: str,
    audit: AuditRecord,
    is_dry: bool = False,
) -> Change:
    """Replace a file by a former version of it. The present content becomes a version, too. Raises as `write_file`."""
    if not is_dry:
        _begin(config, expid, path, audit)
    content = read_file(config=config, expid=expid, path=path, version=version).content
    how = preview if is_dry else write_file
    return how(config=config, expid=expid, path=path, content=content, expected=expected, audit=audit)


def _begin(config: RunnerConfig, expid: str, path: str, audit: AuditRecord) -> None:
    """Store the audit record of a change, if the machine has room for it and no run holds the experiment."""
    maintenance.require_none(config)
    get_runner(config).admit()
    audit.detail = f"conf/{path}"
    begin(audit)
    _require_idle(config, expid)


def _checked(path: str, content: str) -> bytes:
    """Return the bytes of a new content. Raises InvalidRequest."""
    try:
        data = content.encode()
    except UnicodeEncodeError as error:
        line = content.count("\n", 0, error.start) + 1
        raise _invalid("unpaired surrogate", line, None) from None
    if len(data) > MOST_BYTES:
        raise _invalid(f"{len(data)} bytes; at most {MOST_BYTES} are accepted", None, None)
    if "\0" in content:
        raise _invalid("a NUL character", content.count("\n", 0, content.index("\0")) + 1, None)
    if found := configuration_check.mistake_in(path, content):
        raise _invalid(found.words, found.line, found.column)
    return data


def _invalid(words: str, line: int | None, column: int | None) -> InvalidRequest:
    place = f"line {line}" + (f", column {column}" if column else "") if line else ""
    sentence = f"{place}: {words}." if place else f"{words}."
    return InvalidRequest(
        f"content: {sentence} Nothing was written.", {"content": [sentence]}, line=line, column=column
    )


def _changed(path: str, digest: str) -> PreconditionFailed:
    return PreconditionFailed(
        f"conf/{path} has changed since it was read, so nothing was written. Read it again, and repeat your change.",
        etag=f'"{digest}"',
    )


def _require_idle(config: RunnerConfig, expid: str) -> None:
    """Raise AlreadyRunning unless the machine confirms that no run of this service holds the experiment.

    A run reads its configuration again and again, several files at a time. The machine also refuses if another process
    holds Autosubmit's lock of the experiment.
    """
    run = run_in_the_way(expid, config)
    if run is None:
        return
    probing.probe([run])
    if run.is_active:
        raise AlreadyRunning(in_use(run), run=run)


def _ask(config: RunnerConfig, expid: str, question: str, *, stdin: bytes = b"", **more: object) -> dict[str, Any]:
    """Return the valid answer of the machine. Raises the errors for its problems."""
    mark = f"configuration-{secrets.token_hex(8)}"
    request = {"mark": mark, "ask": question, "expid": expid, "most": MOST_BYTES, **more}
    runner, loader = get_runner(config), get_module_loader(config)
    script = loader.wrap(scripts.configuration_files(request))
    result = runner.execute(script, login=True, timeout=settings.RUNNERS_LAUNCH_TIMEOUT, stdin=stdin)
    _, found, rest = result.stdout.rpartition(f"\n{mark} ".encode())
    if not found or len(rest) > _LINE_LIMIT:
        if result.exit_code == 0:
            raise _not_valid(config)
        words = result.last_words or "no output"
        raise loader.explain(
            CommandFailed(
                f"The configuration files on {runner.where} cannot be reached (exit code {result.exit_code}): {words} "
                "They need python3 in the environment of the profile.",
                exit_code=result.exit_code,
                output=result.last_words,
            )
        )
    try:
        answer = json.loads(rest)
    except (ValueError, RecursionError):
        raise _not_valid(config) from None
    if not isinstance(answer, dict):
        raise _not_valid(config)
    if "problem" in answer:
        _raise_problem(config, expid, str(more.get("path", "")), answer)
    return answer


def _raise_problem(config: RunnerConfig, expid: str, path: str, answer: dict[str, Any]) -> None:
    where, words = get_runner(config).where, str(answer.get("detail", ""))
    match answer["problem"]:
        case "no_experiment":
            raise ExperimentNotFound(f"The experiment {expid} is not on {where}: {words}")
        case "no_file":
            raise FileNotFound(f"conf/{path} of {expid} on {where}: {words}")
        case "rejected":
            raise FileRejected(f"conf/{path} of {expid} on {where}: {words}")
        case "locked":
            raise AlreadyRunning(
                f"Another Autosubmit process on {where} has locked experiment {expid}, such as a run that was started "
                "by hand. Nothing was written. Wait for its end, or stop it there."
            )
        case "changed" if re.fullmatch(DIGEST_PATTERN, str(answer.get("digest"))):
            raise _changed(path, answer["digest"])
    raise CommandFailed(f"conf/{path} of {expid} on {where}: {words} Nothing was replaced.", exit_code=None, output="")


def _not_valid(config: RunnerConfig) -> CommandFailed:
    where = get_runner(config).where
    return CommandFailed(f"The answer of {where} about configuration files is not valid.", exit_code=None, output="")


def _facts(config: RunnerConfig, row: object) -> FileFacts:
    match row:
        case {"path": str(path), "size": int(size), "modified": int(seconds), "mode": int(mode)} if (
            len(path) <= 500 and size >= 0 and 0 <= mode <= 0o7777
        ):
            is_time = 0 <= seconds <= 4_102_444_800
            return FileFacts(path, size, mode, datetime.fromtimestamp(seconds, UTC) if is_time else None)
    raise _not_valid(config)


def _bytes(config: RunnerConfig, encoded: object) -> bytes:
    try:
        data = base64.b64decode(encoded, validate=True) if isinstance(encoded, str) else None
    except (binascii.Error, ValueError):
        data = None
    if data is None or len(data) > MOST_BYTES:
        raise _not_valid(config)
    return data


def _text(data: bytes) -> str:
    """Return the text of a file. Raises FileRejected if it is none."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise FileRejected(f"The file is not UTF-8 text (byte {error.start}).") from None
    if "\0" in text:
        raise FileRejected("The file contains NUL characters, so it is not text.")
    return text


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
