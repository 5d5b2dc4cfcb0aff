"""Users and rows of the database for tests."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.contrib.auth.models import Group, Permission, User
from django.test import Client

from profiles.config import RunnerConfig
from profiles.models import RunnerProfile
from runners.models import ApiToken, RunnerRun, RunStatus
from tests.support.api import Api

CONFIG = RunnerConfig("LOCAL", "NO_MODULE").as_dict()
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CREATE = "create-experiment"


def creation_by(user: str) -> dict[str, Any]:
    """Return the body of a dry run of CREATE with the profile P, as the account `user`."""
    params = {"description": "by somebody", "git_repo": "https://git.example.org/evil.git"}
    return {
        "profile_name": "P",
        "profile_params": {"SSH": {"USER": user}},
        "command_params": params,
        "dry_run": True,
    }


def staff(*permissions: str) -> Client:
    """Return a client that is signed in as sam with these permissions (`app.codename`)."""
    user = User.objects.create_user("sam", is_staff=True)
    for each in permissions:
        app, _, codename = each.partition(".")
        user.user_permissions.add(Permission.objects.get(content_type__app_label=app, codename=codename))
    client = Client()
    client.force_login(user)
    return client


def saved_run(expid: str = "a000", **fields: Any) -> RunnerRun:
    common = {"config": CONFIG, "runner": "LOCAL", "module_loader": "NO_MODULE", "host": "here", "user": "me"}
    return RunnerRun.objects.create(expid=expid, **{**common, **fields})


def unsaved_run(**fields: Any) -> RunnerRun:
    values: dict[str, Any] = {"expid": "a001", "config": CONFIG, "runner": "LOCAL", "module_loader": "NO_MODULE"}
    return RunnerRun(**{**values, **fields})


def open_profile(name: str = "P", **fields: Any) -> RunnerProfile:
    values = {"runner_type": "SSH", "module_loader_type": "NO_MODULE", "ssh_host": "127.0.0.1", "ssh_port": 1}
    return RunnerProfile.objects.create(name=name, **{**values, **fields})


def api_of(client: Client, user: User) -> Api:
    _, token = ApiToken.issue(user=user, expiry=timedelta(days=1), scope="run")
    return Api(client, {"Authorization": f"Bearer {token}"})


@dataclass
class World:
    """Ana is an operator, Ben is not. Both have tokens that may run commands."""

    profile: RunnerProfile
    operators: Group
    ana: Api
    ben: Api
    root: Api

    def restrict(self, *actions: str) -> None:
        for action in actions:
            getattr(self.profile, f"{action}_groups").set([self.operators])


def ended_runs(count: int = 1, **values: Any) -> list[RunnerRun]:
    """Create runs that have ended. The first was created at NOW, each other one a minute after the one before."""
    first = RunnerRun.objects.count()
    rows = [
        RunnerRun(
            **{
                "expid": f"a{first + index:03}",
                "config": CONFIG,
                "runner": "LOCAL",
                "module_loader": "NO_MODULE",
                "status": RunStatus.COMPLETED,
                "exit_code": 0,
                "created": NOW + timedelta(minutes=first + index),
                **values,
            }
        )
        for index in range(count)
    ]
    return RunnerRun.objects.bulk_create(rows)


def run_with(api: Api, expect: int = 200, **more: Any) -> dict[str, Any]:
    return api.post("run-experiment", {"expid": "a001", "profile_name": "P", **more}, expect=expect)
