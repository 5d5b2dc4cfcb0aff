"""Login with a browser and with a token, the stored tokens, and where the client's settings come from."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from runners.cli import credentials, settings
from runners.cli.__main__ import Client
from runners.cli.errors import Exit, Problem
from tests.support.cli import Cli
from tests.support.processes import PATIENCE
from tests.support.servers import AppServer

URL = "https://runners.example.org"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the settings of this test."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("URL", "TOKEN", "CONFIG", "PROFILE"):
        monkeypatch.delenv(f"AUTOSUBMIT_RUNNERS_{name}", raising=False)
    return tmp_path / "autosubmit-runners"


def client(folder: Path, url: str = "") -> Cli:
    cli = Cli(url)
    cli.env["XDG_CONFIG_HOME"] = str(folder)
    if not url:
        del cli.env["AUTOSUBMIT_RUNNERS_URL"]
    return cli


def approve(app: AppServer, code: str) -> None:
    """Approve a login as its person does, with the session of the page."""
    app.manage(
        "shell",
        "-c",
        "from django.test import Client; from django.contrib.auth.models import User; "
        "c = Client(HTTP_HOST='localhost'); c.force_login(User.objects.get(username='ada')); "
        f"r = c.post('/device', {{'code': '{code}', 'decision': 'approve'}}); assert r.status_code == 200, r.content",
    )


def test_a_login_with_a_browser_stores_a_token_that_logout_revokes(
    make_app: Callable[..., AppServer], tmp_path: Path
) -> None:
    app = make_app(env={"PROTECTION_LEVEL": "ALL"})
    app.manage("create_token", "ada", "--create-user")
    cli = client(tmp_path)
    process = cli.start("login", "--url", app.url, "--name", "login1")
    assert process.stderr
    said = ""
    while "and approve" not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    assert f"{app.url}/device?code=" in said
    found = re.search(r"shows the code ([A-Z-]{9})", said)
    assert found
    approve(app, found[1])
    _, rest = process.communicate(timeout=60 * PATIENCE)
    assert process.returncode == Exit.OK, rest
    assert f"Logged in to {app.url} as ada, until 20" in rest
    file = tmp_path / "autosubmit-runners/tokens.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    token = json.loads(file.read_text())["tokens"][app.url]["token"]
    assert token not in said + rest
    assert cli("whoami") == "ada\n"  # the address of the last login
    assert "asr on login1, run, until 20" in cli.told
    assert json.loads(cli("whoami", "--json"))["username"] == "ada"
    cli("runs")
    cli("logout")
    assert "The token was revoked." in cli.told
    assert json.loads(file.read_text())["tokens"] == {}
    cli("whoami", expect=Exit.REFUSED)
    assert "asr login" in cli.told
    revoked = client(tmp_path, app.url)
    revoked.env["AUTOSUBMIT_RUNNERS_TOKEN"] = token
    revoked("whoami", expect=Exit.REFUSED)
    assert "The token is from AUTOSUBMIT_RUNNERS_TOKEN" in revoked.told
    assert token not in revoked.told

    # with a token from standard input
    typed = app.manage("create_token", "ada").strip()
    done = subprocess.run(
        cli.argv("login", "--url", app.url, "--with-token", "--json"),
        input=typed + "\n",
        env=cli.env,
        capture_output=True,
        text=True,
        timeout=60 * PATIENCE,
    )
    assert done.returncode == Exit.OK, done.stderr
    assert json.loads(done.stdout)["username"] == "ada"
    assert typed not in done.stdout + done.stderr
    wrong = subprocess.run(
        cli.argv("login", "--url", app.url, "--with-token"),
        input="asr_wrong\n",
        env=cli.env,
        capture_output=True,
        text=True,
        timeout=60 * PATIENCE,
    )
    assert wrong.returncode == Exit.REFUSED
    assert cli("whoami") == "ada\n"  # the good token was kept


# --- The stored tokens ------------------------------------------------------------------------------------------------


def entry(token: str) -> dict[str, str]:
    return {"token": token, "username": "ada", "expires": ""}


def test_two_logins_at_once_lose_no_token(home: Path) -> None:
    urls = [f"{URL}/{number}" for number in range(8)]
    threads = [threading.Thread(target=credentials.store, args=(url, entry(url))) for url in urls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {url: each["token"] for url, each in credentials.load()["tokens"].items()} == {url: url for url in urls}
    assert sorted(each.name for each in home.iterdir()) == [".lock", "tokens.json"]


def test_a_file_that_others_can_read_or_that_is_a_link_is_not_used(home: Path) -> None:
    credentials.store(URL, entry("asr_1"))
    file = home / "tokens.json"
    file.chmod(0o640)
    with pytest.raises(Problem, match="chmod 600"):
        credentials.load()
    file.chmod(0o600)
    other = home / "other.json"
    file.rename(other)
    before = other.read_text()
    file.symlink_to(other)
    for action in (credentials.load, lambda: credentials.store(URL, entry("asr_2"))):
        with pytest.raises(Problem, match="symbolic link"):
            action()
    assert other.read_text() == before
    file.unlink()
    home.chmod(0o777)
    with pytest.raises(Problem, match="nobody else can write"):
        credentials.store(URL, entry("asr_2"))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"last": 1, "tokens": {}}', '{"last": "", "tokens": {"u": 1}}'])
def test_a_damaged_file_is_an_error_with_a_remedy(home: Path, content: str) -> None:
    home.mkdir(mode=0o700)
    (home / "tokens.json").write_text(content)
    (home / "tokens.json").chmod(0o600)
    with pytest.raises(Problem, match="Remove it, and log in again"):
        credentials.load()


def test_a_pipe_in_the_place_of_the_file_does_not_block(home: Path) -> None:
    home.mkdir(mode=0o700)
    os.mkfifo(home / "tokens.json", 0o600)
    with pytest.raises(Problem, match="not a file of yours"):
        credentials.load()


# --- Settings ---------------------------------------------------------------------------------------------------------


def test_an_option_precedes_the_environment_the_file_and_the_last_login(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings.Settings("https://last.example.org").get("url") == "https://last.example.org"
    home.mkdir()
    (home / "config.ini").write_text("# a comment\n[asr]\nurl = https://file.example.org\nprofile = 100%\n")
    found = settings.Settings("https://last.example.org")
    assert (found.get("url"), found.get("profile")) == ("https://file.example.org", "100%")
    assert found.source("url") == str(home / "config.ini")
    monkeypatch.setenv("AUTOSUBMIT_RUNNERS_URL", "https://environment.example.org")
    assert found.get("url") == "https://environment.example.org"
    assert found.get("url", "https://option.example.org") == "https://option.example.org"
    assert (found.number("patience"), found.source("patience")) == (60, "the default")
    monkeypatch.setenv("AUTOSUBMIT_RUNNERS_PATIENCE", "soon")
    with pytest.raises(Problem, match="from AUTOSUBMIT_RUNNERS_PATIENCE"):
        found.number("patience")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[asr]\ntoken = asr_secret\n", "does not belong into this file"),
        ("[asr]\nprofil = A\n", "unknown setting 'profil'. Known: url, profile"),
        ("[other]\nurl = x\n", "unknown section"),
        ("url = x\n", "not a valid configuration file"),
        ("[asr]\nurl = a\nurl = b\n", "not a valid configuration file"),
        ("\udcff", "not a text in UTF-8"),
        ("x" * 70_000, "longer than 65536 bytes"),
    ],
)
def test_an_invalid_file_is_an_error_that_names_it(home: Path, content: str, words: str) -> None:
    home.mkdir()
    (home / "config.ini").write_text(content, errors="surrogateescape")
    with pytest.raises(Problem, match=re.escape(words)) as found:
        settings.Settings()
    assert str(home / "config.ini") in str(found.value)
    assert "asr_secret" not in str(found.value)


@pytest.mark.parametrize(
    "url", ["ftp://a", "https://", "a b", "https://a/?x=1", "https://user:x@a", "https://a:b", "http://[", "http://é"]
)
def test_an_address_that_is_none_is_a_usage_error(url: str) -> None:
    with pytest.raises(Problem) as found:
        settings.checked_url(url, "--url")
    assert found.value.code == Exit.USAGE


def test_the_token_of_one_service_is_not_sent_to_another(home: Path, tmp_path: Path) -> None:
    credentials.store(URL, entry("asr_1"))
    made = Client()
    made.load()
    assert made.token_for(URL) == "asr_1"
    assert made.token_for("https://evil.example.org") == ""
    assert made.token_for("http://runners.example.org") == ""
