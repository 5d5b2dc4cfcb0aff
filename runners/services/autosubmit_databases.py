"""Which Autosubmit database an account uses, and whether the names of installations match the databases that were seen.

The answer of a machine is only shown and compared. It never decides which runs belong together: the names of
installations do.
"""

from __future__ import annotations

import configparser
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from django.conf import settings
from django.db.models import QuerySet

from profiles.config import DEFAULT_INSTALLATION, RunnerConfig
from profiles.installations import HOST, USER, installation_of
from profiles.models import RunnerProfile
from profiles.validators import MAX_PATH
from runners.exceptions import RunnerServiceError
from runners.models import SeenDatabase
from runners.services.machines import answers, scripts
from runners.services.machines.local import LocalTarget
from runners.services.machines.registry import get_module_loader
from runners.services.machines.runner import Runner
from runners.services.machines.ssh.target import SSHTarget
from runners_project import clock

MAX_FILE = 16_384  # bytes of Autosubmit's configuration file that are read
MAX_LINE = 2 * MAX_PATH  # characters; the time of configparser grows with the square of a line's blanks
SHOWN = 5  # conflicts that are reported one by one
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
_MARK = "autosubmit-runners-database"


@dataclass(frozen=True, slots=True)
class Database:
    """`host`: the machine's own name for itself. `location`: a real path on it, or the address of a database server."""

    host: str
    location: str

    @property
    def is_file(self) -> bool:
        return self.location.startswith("/")

    def __str__(self) -> str:
        return f"{self.location} on {self.host}" if self.is_file else self.location


def read(runner: Runner) -> Database | None:
    """Return the database in Autosubmit's configuration file of the runner's account; None if it cannot be told.

    Raises the errors of `Runner.execute`.
    """
    lines = [scripts.surroundings("/"), *get_module_loader(runner.config).prelude()]
    lines.append(scripts.autosubmitrc(marker=_MARK, limit=MAX_FILE + 1))
    result = runner.execute(" && ".join(lines), login=True, timeout=settings.RUNNERS_LAUNCH_TIMEOUT)
    _, found, rest = result.stdout.partition(f"\n{_MARK}\n".encode())
    name, _, content = rest.partition(b"\n")
    if not found or len(content) > MAX_FILE:
        return None
    try:
        host = answers.host_name(name.decode("ascii"))
        location = _location(content.decode("utf-8"), host)
    except (UnicodeDecodeError, answers.Unreadable, configparser.Error, ValueError):
        return None
    if location.startswith("/"):
        location = _real(runner, location)
    return Database(host, location) if location else None


def _location(text: str, host: str) -> str:
    """Return the location in the text of the configuration file; empty if there is none.

    Raises configparser.Error, and ValueError for a malformed address.
    """
    if any(len(line) > MAX_LINE for line in text.splitlines()):
        return ""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.read_string(text)
    if not parser.has_section("database"):
        return ""
    section = parser["database"]
    if section.get("backend", "sqlite").strip().lower() == "postgres":
        parts = urlsplit(section.get("connection_url", "").strip())
        server = host if parts.hostname in (None, *LOCAL_NAMES) else parts.hostname
        location = f"postgres://{server}:{parts.port or 5432}{parts.path}" if parts.path else ""
    else:
        path, name = section.get("path", "").strip(), section.get("filename", "autosubmit.db").strip()
        location = f"{path.rstrip('/')}/{name}" if path.startswith("/") and name else ""
    return location if len(location) <= MAX_PATH and location.isprintable() else ""


def _real(runner: Runner, path: str) -> str:
    """Return the path with all links followed; empty if the machine does not return one."""
    result = runner.execute(f"readlink -m -- {shlex.quote(path)}", timeout=settings.RUNNERS_PROBE_TIMEOUT)
    real = result.text.removesuffix("\n")
    return real if real.startswith("/") and len(real) <= MAX_PATH and real.isprintable() else ""


def note(config: RunnerConfig, database: Database) -> None:
    """Store the database that was seen last. Do nothing for a profile that is not saved."""
    if config.profile_id is None:
        return
    SeenDatabase.objects.exclude(profile_id__in=RunnerProfile.objects.values("pk")).delete()
    SeenDatabase.objects.update_or_create(
        profile_id=config.profile_id,
        user=config.target.user,
        ssh_host=config.target.host,
        defaults={"host": database.host, "location": database.location, "seen": clock.now()},
    )


def conflicts(config: RunnerConfig, database: Database, profiles: Iterable[RunnerProfile]) -> list[str]:
    """Return the conflicts between names of installations and databases, each with the line to set.

    Different paths on two machines count as different databases, although a file system may be mounted at both.
    `profiles`: those that may be named to the caller.
    """
    known = {profile.pk: profile for profile in profiles}
    own = RunnerProfile.objects.filter(pk=config.profile_id or 0).first()
    told = []
    for row in _others(config).filter(profile_id__in=known):
        other = known[row.profile_id]
        target = SSHTarget(row.ssh_host, 0, row.user) if row.ssh_host else LocalTarget(row.user)
        name = installation_of(other.installation, target)
        is_same = _is_same(database, Database(row.host, row.location))
        who = f"Profile {other.name} ({row.user} on {row.host})"
        if name == config.installation and is_same is False:
            if row.user != config.target.user or row.host != database.host:
                both = "it" if other.pk == config.profile_id else "both profiles"
                line = f'If each account has its own database, set INSTALLATION: "{USER}@{HOST}" in {both}.'
            else:
                line = f"Set INSTALLATION: {_name(own)} in this profile, or another name that no other profile has."
            told.append(
                f"{who}"
                f" also belongs to the installation '{name}', but uses another database, {row.location}: an active "
                f"run in one database blocks the same id in the other one. {line}"
            )
        elif name != config.installation and is_same:
            told.append(
                f"{who} uses the same database, but belongs to the installation '{name}', not "
                f"'{config.installation}': an experiment could be started twice. Set INSTALLATION: {name} in this "
                "profile."
            )
    more = f" And {len(told) - SHOWN} more such profiles." if len(told) > SHOWN else ""
    return [*told[: SHOWN - 1], told[SHOWN - 1] + more] if len(told) >= SHOWN else told


def _others(config: RunnerConfig) -> QuerySet[SeenDatabase]:
    """Return the databases that were seen for other profiles and accounts."""
    here = {"user": config.target.user, "ssh_host": config.target.host}
    return SeenDatabase.objects.exclude(profile_id=config.profile_id or 0, **here)


def _is_same(one: Database, other: Database) -> bool | None:
    """Return None if it cannot be told: the same path on two machines may be on a shared file system, or not."""
    if one.location != other.location:
        return False
    return True if one.host == other.host or not one.is_file else None


def _name(profile: RunnerProfile | None) -> str:
    return profile.name.lower() if profile else DEFAULT_INSTALLATION


def compare(runner: Runner, profiles: Iterable[RunnerProfile]) -> tuple[Database | None, list[str]]:
    """Read the database of the runner's account, store it, and compare it with the others."""
    try:
        database = read(runner)
    except RunnerServiceError:
        return None, []
    if database is None:
        return None, []
    note(runner.config, database)
    return database, conflicts(runner.config, database, profiles)
