"""The pages of configuration files: choose a profile, edit with the difference first, restore."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils.html import escape

from profiles.models import EndpointToggle, RunnerProfile
from runners.models import AuditRecord
from tests.support.environments import StubAccount

pytestmark = pytest.mark.django_db(transaction=True)

LIST = "/experiments/a001/config"
FILE = f"{LIST}/file?profile_name=HERE&path=jobs_a001.yml"
TEXT = "\nA: 1  # <b>&amp;\n"


@pytest.fixture
def file(account: StubAccount) -> Path:
    EndpointToggle.objects.create(name="EDIT_CONFIGURATION", enabled=True)
    RunnerProfile.objects.create(name="HERE", runner_type="LOCAL", module_loader_type="NO_MODULE")
    account.experiment("a001")
    path = account.home / "autosubmit" / "a001" / "conf" / "jobs_a001.yml"
    path.write_text(TEXT)
    return path


def field(page: str, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', page)
    assert found, page
    return found[1]


def test_the_files_are_listed_after_a_profile_was_chosen(browser: Client, file: Path) -> None:
    page = browser.get(LIST).content.decode()
    assert "HERE" in page and "jobs_a001.yml" not in page
    page = browser.get(f"{LIST}?profile_name=HERE").content.decode()
    assert f'href="{escape(FILE)}"' in page
    assert browser.get(f"{LIST}?profile_name=NONE").status_code == 422
    assert "Configuration files" in browser.get("/experiments/a001").content.decode()


def test_a_change_is_previewed_saved_and_restored(browser: Client, file: Path) -> None:
    page = browser.get(FILE).content.decode()
    assert f">\n{escape(TEXT)}</textarea>" in page
    digest = field(page, "digest")
    form = {"content": "A: 2\r\n\r\nB: 3\r\n", "digest": digest}
    page = browser.post(FILE, {**form, "action": "preview"}).content.decode()
    assert "+A: 2" in page and file.read_text() == TEXT
    assert "B: 3\n</textarea>" in page
    response = browser.post(FILE, {**form, "action": "save"}, follow=True)
    assert file.read_text() == "A: 2\n\nB: 3\n"
    page = response.content.decode()
    assert "conf/jobs_a001.yml was written." in page
    link = re.search(r'href="([^"]*version=[^"]*)"', page)
    assert link
    former = link[1].replace("&amp;", "&")
    page = browser.get(former).content.decode()
    assert escape(TEXT) in page and "readonly" in page
    sent = {"action": "restore", "digest": field(page, "digest"), "version": field(page, "version")}
    browser.post(former, sent)
    assert file.read_text() == TEXT
    outcomes = AuditRecord.objects.order_by("id").values_list("endpoint", "outcome", "actor")
    assert list(outcomes) == [
        ("write-configuration", "dry_run", "ada"),
        ("write-configuration", "ok", "ada"),
        ("restore-configuration", "ok", "ada"),
    ]


def test_an_error_is_shown_at_its_line_and_the_text_is_kept(browser: Client, file: Path) -> None:
    digest = field(browser.get(FILE).content.decode(), "digest")
    response = browser.post(FILE, {"content": "A: 1\r\nB: [\r\n", "digest": digest, "action": "save"})
    assert response.status_code == 400
    page = response.content.decode()
    assert 'data-line="3"' in page and "B: [" in page
    assert file.read_text() == TEXT
    file.write_text("B: 1\n")
    response = browser.post(FILE, {"content": "A: 5\n", "digest": digest, "action": "save"})
    assert response.status_code == 412
    assert "A: 5" in response.content.decode()
    assert file.read_text() == "B: 1\n"


def test_a_file_with_cr_lf_keeps_its_line_ends(browser: Client, file: Path) -> None:
    file.write_bytes(b"A: 1\r\nB: 2\r\n")
    page = browser.get(FILE).content.decode()
    form = {"content": "A: 1\r\nB: 3\r\n", "digest": field(page, "digest"), "is_crlf": field(page, "is_crlf")}
    browser.post(FILE, {**form, "action": "save"})
    assert file.read_bytes() == b"A: 1\r\nB: 3\r\n"


def test_without_the_toggle_files_can_only_be_read(browser: Client, file: Path) -> None:
    EndpointToggle.objects.all().delete()
    page = browser.get(FILE).content.decode()
    assert "readonly" in page and 'value="save"' not in page
    response = browser.post(FILE, {"content": "A: 5\n", "digest": "0" * 64, "action": "save"})
    assert response.status_code == 403
    assert file.read_text() == TEXT


@pytest.mark.parametrize("query", ["path=../x.yml", "path=missing.yml", "path=jobs_a001.yml&version=1", ""])
def test_a_file_that_is_not_there_is_an_error_page(browser: Client, file: Path, query: str) -> None:
    assert browser.get(f"{LIST}/file?profile_name=HERE&{query}").status_code == 404
    response = browser.post(
        f"{LIST}/file?profile_name=HERE&{query}", {"content": "A: 1", "digest": "0" * 64, "action": "restore"}
    )
    assert response.status_code == 404


def test_the_pages_need_a_sign_in(client: Client, file: Path) -> None:
    assert client.get(FILE).status_code == 302
    assert client.get(LIST).status_code == 302
    assert User.objects.count() == 0
