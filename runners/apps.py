"""The application of runs. At the start it loads the extensions, and makes the service's own files private."""

from __future__ import annotations

import logging
from pathlib import Path

from django.apps import AppConfig
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS

from runners_project import private

logger = logging.getLogger(__name__)


class RunnersConfig(AppConfig):
    default_auto_field = "django.db.models.BigAutoField"
    name = "runners"
    verbose_name = "Runs"

    def ready(self) -> None:
        from profiles.rules import MODULE_LOADERS, RUNNERS
        from runners.models import Operation, RunnerRun
        from runners.services import (
            changes,
            db_connection,
            deactivation,  # noqa: F401  # its receiver
            host_keys,
            lifecycle,
            operations,
            profile_readiness,
            run_end,
        )

        RUNNERS.load()
        MODULE_LOADERS.load()
        changes.connect()
        db_connection.connect()
        host_keys.connect()
        profile_readiness.connect_finder()
        lifecycle.FINISH_FROM_PROBE |= {
            RunnerRun: run_end.finish_from_probe,
            Operation: operations.finish_from_probe,
        }
        keep_private()


def private_files() -> list[Path]:
    """Return the private files: an SQLite database with its WAL, the directory of runs, the SSH keys."""
    database = settings.DATABASES[DEFAULT_DB_ALIAS]
    is_sqlite = database["ENGINE"] == "django.db.backends.sqlite3"
    files = private.database_files(str(database["NAME"])) if is_sqlite else []
    files.append(Path("~/.autosubmit-runners").expanduser())
    return [*files, *private.files_in(Path(settings.RUNNERS_SSH_KEY_DIR).expanduser())]


def keep_private() -> list[str]:
    """Make the files above private, and log each change. Raises ImproperlyConfigured for files of other accounts."""
    try:
        files = private_files()
        if files[0].exists():
            private.require_safe_parent(files[0])
        changed = private.tighten_all(files)
    except private.ForeignFile as error:
        raise ImproperlyConfigured(str(error)) from None
    for words in changed:
        logger.warning("%s Other accounts may have read it before. Replace its secrets if necessary.", words)
    return changed
