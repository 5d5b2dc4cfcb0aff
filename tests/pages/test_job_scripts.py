"""The pages that list and show the generated scripts of jobs."""

from __future__ import annotations

from django.test import Client

from profiles.models import RunnerProfile
from tests.support.environments import StubAccount


def test_scripts_are_listed_and_shown(account: StubAccount, browser: Client) -> None:
    RunnerProfile.objects.create(name="HERE", runner_type="LOCAL", module_loader_type="NO_MODULE")
    account.experiment("a001")
    empty = browser.get("/experiments/a001/scripts?profile_name=HERE")
    assert "No script was generated yet" in empty.content.decode()
    assert "/experiments/inspect?expid=a001" in empty.content.decode()
    folder = account.home / "autosubmit" / "a001" / "tmp"
    folder.mkdir(exist_ok=True)
    (folder / "a001_SIM.cmd").write_text("#!/bin/bash\necho '<script>alert(1)</script>'\n")
    shown = browser.get("/experiments/a001/scripts?profile_name=HERE&offset=abc").content.decode()
    assert "/experiments/a001/scripts/a001_SIM.cmd?profile_name=HERE" in shown
    text = browser.get("/experiments/a001/scripts/a001_SIM.cmd?profile_name=HERE").content.decode()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "/experiments/a001/scripts" in browser.get("/experiments/a001").content.decode()


def test_what_cannot_be_shown_says_why(account: StubAccount, browser: Client, client: Client) -> None:
    RunnerProfile.objects.create(name="HERE", runner_type="LOCAL", module_loader_type="NO_MODULE")
    account.experiment("a001")
    assert "HERE" in browser.get("/experiments/a001/scripts").content.decode()
    for path, status in (
        ("/experiments/a001/scripts/a001_SIM.cmd?profile_name=HERE", 404),
        ("/experiments/a999/scripts?profile_name=HERE", 404),
        ("/experiments/a001/scripts?profile_name=NO", 404),
    ):
        assert browser.get(path).status_code == status, path
    client.logout()
    assert client.get("/experiments/a001/scripts?profile_name=HERE").status_code == 302
