"""Users and rows of the database for tests."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import Permission, User
from django.test import Client

from profiles.config import ModuleLoaderType, RunnerConfig, RunnerType
from runners.models import RunnerRun


def staff(*permissions: str) -> Client:
    """Return a client that is signed in as sam with these permissions (`app.codename`)."""
    user = User.objects.create_user("sam", is_staff=True)
    for each in permissions:
        app, _, codename = each.partition(".")
        user.user_permissions.add(Permission.objects.get(content_type__app_label=app, codename=codename))
    client = Client()
    client.force_login(user)
    return client


CONFIG = RunnerConfig(RunnerType.LOCAL, ModuleLoaderType.NO_MODULE).as_dict()


def run_of(expid: str = "a000", **fields: Any) -> RunnerRun:
    common = {"config": CONFIG, "runner": "LOCAL", "module_loader": "NO_MODULE", "host": "here", "user": "me"}
    return RunnerRun.objects.create(expid=expid, **{**common, **fields})
