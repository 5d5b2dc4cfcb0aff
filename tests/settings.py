"""The project's own settings with what a test run needs. Servers under test use the project's settings as they are."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path

os.environ.setdefault("SECRET_KEY", "of the test run, signs nothing of value")

if "PYTEST_XDIST_WORKER" in os.environ:
    os.umask(0o022)  # pytest's own process has set that of the service (077), and the workers inherit it

from runners_project.settings import *  # noqa: F403

# Each hash of the default hasher takes 0.2 s on purpose.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

# Rows that tests make by themselves leave no audit records; those of tests/services/test_changes.py do.
RUNNERS_AUDIT_WITHOUT_REQUEST = False

# A file, as in production: an in-memory database is shared between threads with locks that nobody waits for.
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":  # noqa: F405
    # Random: each worker has a process namespace of its own, so workers of two test runs may have the same process id.
    _NAME = f"autosubmit-runners-tests-{secrets.token_hex(8)}.sqlite3"
    DATABASES["default"]["TEST"] = {"NAME": str(Path(tempfile.gettempdir()) / _NAME)}  # noqa: F405

# Tests break a machine and mend it within milliseconds. The tests of the breaker have a pause.
RUNNERS_RETRY_PAUSE = 0

# It reads the database, which not every test may use. tests/project/test_health.py adds it.
MIDDLEWARE.remove("runners_project.health.MigrationsMiddleware")  # noqa: F405
