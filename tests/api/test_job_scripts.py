"""List and read the scripts that Autosubmit has generated: over LOCAL and SSH, with hostile files among them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.test import Client

from profiles.config import RunnerConfig
from profiles.models import RunnerProfile
from tests.support.api import Api
from tests.support.environments import StubAccount

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("open_to_all")]

PATH = "/v4/runners/experiments/{}/scripts{}?profile_name=HERE{}"


@pytest.fixture
def tmp(account: StubAccount, config_of: Callable[[str], RunnerConfig]) -> Path:
    """Return tmp/ of the experiment a001, on the machine of the profile HERE."""
    config = config_of("NO_MODULE")
    where: dict[str, Any] = {"runner_type": config.runner_type, "module_loader_type": "NO_MODULE"}
    if config.runner_type == "SSH":
        where |= {"ssh_host": config.target.host, "ssh_port": config.target.port, "ssh_user": config.target.user}
    RunnerProfile.objects.create(name="HERE", **where)
    account.experiment("a001")
    folder = account.home / "autosubmit" / "a001" / "tmp"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def api(client: Client) -> Api:
    return Api(client)


def listed(api: Api, query: str = "", expid: str = "a001") -> dict[str, Any]:
    found: dict[str, Any] = api.get(PATH.format(expid, "", query))
    return found


def test_scripts_are_listed_in_pages_and_read_in_parts(tmp: Path, api: Api) -> None:
    for number in range(7):
        (tmp / f"a001_{number}_SIM.cmd").write_text(f"#!/bin/bash\necho größe {number}\n")
    (tmp / "a001_0_SIM.cmd").write_text("x" * 100 + "é" + "y" * 100)
    first = listed(api, "&page_size=5")
    assert [each["name"] for each in first["results"]] == [f"a001_{n}_SIM.cmd" for n in range(5)]
    assert first["results"][1]["size"] == (tmp / "a001_1_SIM.cmd").stat().st_size
    second = api.get(f"/v4/runners/experiments/a001/scripts{first['next'].partition('scripts')[2]}")
    assert [each["name"] for each in second["results"]] == ["a001_5_SIM.cmd", "a001_6_SIM.cmd"]
    assert (second["total"], second["next_cursor"]) == (7, None)
    one = api.get(PATH.format("a001", "/a001_1_SIM.cmd", ""))
    assert (one["text"], one["ended"]) == ("#!/bin/bash\necho größe 1\n", True)
    part = api.get(PATH.format("a001", "/a001_0_SIM.cmd", "&limit=101"))
    assert (part["text"], part["next_offset"], part["size"], part["ended"]) == ("x" * 100, 100, 202, False)
    rest = api.get(PATH.format("a001", "/a001_0_SIM.cmd", "&offset=100"))
    assert rest["text"] == "é" + "y" * 100
    beyond = api.get(PATH.format("a001", "/a001_0_SIM.cmd", "&offset=9999"))
    assert (beyond["text"], beyond["ended"]) == ("", True)


def test_nothing_outside_of_tmp_is_listed_or_read(tmp: Path, api: Api) -> None:
    secret = tmp.parent / "conf" / "a001_SECRET.cmd"
    secret.parent.mkdir(exist_ok=True)
    secret.write_text("secret")
    (tmp / "a001_LINK.cmd").symlink_to(secret)
    (tmp / "a001_FOLDER.cmd").mkdir()
    os.mkfifo(tmp / "a001_PIPE.cmd")
    (tmp / "a001_LINE\nEND.cmd").write_text("x")
    (tmp / "a001_a b.cmd").write_text("x")
    (tmp / "a002_SIM.cmd").write_text("x")
    (tmp / "a001_SIM.txt").write_text("x")
    (tmp / "a001_GOOD.cmd").write_text("good")
    assert [each["name"] for each in listed(api)["results"]] == ["a001_GOOD.cmd"]
    names = ("a001_LINK.cmd", "a001_FOLDER.cmd", "a001_PIPE.cmd", "a001_NO.cmd", "a002_SIM.cmd", "a001_SIM.txt")
    for name in (*names, "a001_..%5C..cmd", "a001_%24(id).cmd", "a001_a%20b.cmd", "a001_" + "x" * 300 + ".cmd"):
        answer = api.get(PATH.format("a001", f"/{name}", ""), expect=404)
        assert answer["code"] == "script_not_found", answer
    tmp.rename(tmp.with_name("elsewhere"))
    tmp.symlink_to(tmp.with_name("elsewhere"))
    assert listed(api)["total"] == 0
    assert api.get(PATH.format("a001", "/a001_GOOD.cmd", ""), expect=404)["code"] == "script_not_found"


def test_an_experiment_that_does_not_exist(tmp: Path, account: StubAccount, api: Api) -> None:
    assert api.get(PATH.format("a999", "", ""), expect=404)["code"] == "experiment_not_found"
    archive = account.home / "autosubmit" / "2026" / "a998.tar.gz"
    archive.parent.mkdir(exist_ok=True)
    archive.touch()
    assert "archived in 2026/a998.tar.gz" in api.get(PATH.format("a998", "", ""), expect=404)["detail"]
    assert api.get(PATH.format("A001", "", ""), expect=400)["code"] == "invalid_request"


def test_only_who_may_use_the_profile_reads_its_scripts(account: StubAccount, api: Api) -> None:
    profile = RunnerProfile.objects.create(name="HERE", runner_type="LOCAL", module_loader_type="NO_MODULE")
    account.experiment("a001")
    assert listed(api)["total"] == 0
    profile.run_groups.add(Group.objects.create(name="modellers"))
    for name in ("", "/a001_SIM.cmd"):
        assert api.get(PATH.format("a001", name, ""), expect=403)["code"] == "profile_forbidden"
