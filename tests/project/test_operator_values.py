"""Numbers and words that an operator gives: a wrong one is refused in one sentence that names it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from django.core.management import CommandError, call_command

from runners.models import ApiToken, AuditRecord
from tests.support.paths import ROOT


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("command", "option", "value", "said"),
    [
        *[("watch_runs", "--interval", value, "0.5 to 3600") for value in ("0", "-1", "0.4", "3601", "nan", "inf")],
        *[("clean_runs", "--days", value, "0 to 36500") for value in ("-1", "36501", "800000", "9" * 30)],
        *[("create_token", "--days", value, "0 to 36500") for value in ("-1", "36501", "800000", "9" * 30)],
        *[("find_runs", "--skip-numbers", value, "0 to 1000000") for value in ("-1", "1000001")],
        *[("sizing", "--nodes", value, "1 to 10000") for value in ("0", "10001")],
    ],
)
def test_a_number_out_of_range_is_refused(command: str, option: str, value: str, said: str) -> None:
    names = ["ana", "--create-user"] if command == "create_token" else []
    with pytest.raises(CommandError, match=f"^{option}: give {said}.$"):
        call_command(command, *names, f"{option}={value}")
    assert not ApiToken.objects.exists() and not AuditRecord.objects.exists()


@pytest.mark.parametrize(("name", "value"), [("LOG_LEVEL", "loud"), ("TOKEN_DAYS", "800000"), ("TOKEN_DAYS", "-1")])
def test_a_wrong_setting_is_named(name: str, value: str) -> None:
    code = "import runners_project.settings"
    env = {**os.environ, "SECRET_KEY": "s8Vq2LmZx0Rk5TnYw7Bc4HdJf9GpAeUi3Xo", name: value}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert f"ImproperlyConfigured: {name} is " in done.stderr


def test_the_level_of_the_log_may_be_in_small_letters() -> None:
    code = "import runners_project.settings as found; print(found.LOGGING['root']['level'])"
    env = {**os.environ, "SECRET_KEY": "s8Vq2LmZx0Rk5TnYw7Bc4HdJf9GpAeUi3Xo", "LOG_LEVEL": "debug"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "DEBUG\n"
