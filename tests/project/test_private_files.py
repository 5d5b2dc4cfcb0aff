"""Files and secrets: another account of the machine can read nothing, and a guessable secret prevents the start."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from runners.exceptions import RunDirectoryUnusable
from runners.models.webhook import new_secret, validate_secret
from runners.services.machines import scripts
from runners.services.machines.local import LocalRunner
from runners.services.machines.runner import Runner
from runners_project import private
from runners_project.env import SECRET_LENGTH, envmask, envsecret, weakness
from tests.support.environments import StubAccount
from tests.support.processes import is_listening, umask, wait_for
from tests.support.servers import ROOT, AppServer

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to act as another account")


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """Yield a directory that every account may enter. pytest's own are 0700, which would hide open files in them."""
    folder = Path(tempfile.mkdtemp(prefix="service-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def read_as_nobody(path: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["cat", str(path)], user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, check=False
    )


# --- the service's own files ------------------------------------------------------------------------------------------


@as_root
def test_another_account_reads_nothing_of_a_service_that_was_started_with_an_open_umask(public_folder: Path) -> None:
    home = public_folder / "home"
    with umask(0):
        for folder in (home, public_folder / "service"):
            folder.mkdir(mode=0o755)
        (public_folder / "control").write_text("readable")
        with AppServer(public_folder / "service", env={"HOME": str(home)}) as app:
            wait_for(lambda: app.worker_pids, what="workers")
            assert app.get("/v4/runners/configuration/profiles").status == 200
            app.manage("createsuperuser", "--no-input", "--username=root", "--email=root@localhost.example")
            app.manage("create_ssh_key")
            app.manage("export_profiles", "--output", str(public_folder / "export.yml"))
            files = private.database_files(str(app.database))[:3]
            assert [path.name for path in files if path.exists()] == ["db.sqlite3", "db.sqlite3-wal", "db.sqlite3-shm"]
            files += [public_folder / "export.yml", home / ".autosubmit-runners" / "ssh" / "id_ed25519"]
            assert [oct(mode(path)) for path in files] == ["0o600"] * 5
            assert mode(home / ".autosubmit-runners") == mode(home / ".autosubmit-runners" / "ssh") == 0o700
            app.folder.chmod(0o755)
            assert read_as_nobody(public_folder / "control").stdout == b"readable"
            for path in files:
                assert b"Permission denied" in read_as_nobody(path).stderr, path


@as_root
def test_looser_files_are_tightened_at_the_start_and_reported(
    public_folder: Path, make_app: Callable[..., AppServer]
) -> None:
    home = public_folder / "home"
    app = make_app(env={"HOME": str(home)})
    app.manage("create_ssh_key")
    app.stop()
    loose = [app.database, home / ".autosubmit-runners", home / ".autosubmit-runners" / "ssh" / "id_ed25519"]
    for path in loose:
        path.chmod(0o755 if path.is_dir() else 0o644)
    app.start()
    wait_for(lambda: app.log_text().count("other accounts could use it") >= len(loose), what="reports in the log")
    assert [mode(path) & 0o077 for path in loose] == [0, 0, 0]
    for path in loose:
        assert f"{path} had mode 0" in app.log_text()


@as_root
@pytest.mark.parametrize("which", ["db.sqlite3", "db.sqlite3-wal", "key"])
def test_a_file_of_another_account_is_refused_with_the_remedy(
    make_app: Callable[..., AppServer], tmp_path: Path, which: str
) -> None:
    app = make_app(env={"HOME": str(tmp_path)})
    app.manage("create_ssh_key")
    app.stop()
    foreign = tmp_path / ".autosubmit-runners/ssh/id_ed25519" if which == "key" else app.folder / which
    foreign.touch()
    os.chown(foreign, NOBODY, NOBODY)
    with pytest.raises(AssertionError, match=f"{foreign} belongs to nobody.*chown root"):
        app.manage("watch_runs")
    with suppress(AssertionError):  # gunicorn listens before its workers have started
        app.start()
    wait_for(lambda: f"{foreign} belongs to nobody" in app.log_text(), what="the refusal in the log")
    wait_for(lambda: not is_listening(app.port), what="the end of the server")


def test_a_database_that_every_account_can_replace_is_refused(make_app: Callable[..., AppServer]) -> None:
    app = make_app()
    app.stop()
    app.folder.chmod(0o777)
    with pytest.raises(AssertionError, match=r"Every account can replace .*chmod o-w"):
        app.manage("check")
    app.folder.chmod(0o1777)  # as /tmp: only the owner can replace files
    app.manage("check")


def test_an_export_does_not_keep_the_open_mode_of_the_file_that_it_replaces(tmp_path: Path) -> None:
    file = tmp_path / "export.yml"
    file.write_text("longer than what comes")
    file.chmod(0o644)
    private.write(file, "short")
    assert (file.read_text(), mode(file)) == ("short", 0o600)
    private.write(Path("/dev/null"), "text")
    assert mode(Path("/dev/null")) == 0o666


def test_static_files_stay_public(tmp_path: Path) -> None:
    script = f"""
import django
from django.conf import settings
from django.core.management import call_command
django.setup()
settings.STATIC_ROOT = {str(tmp_path / "static")!r}
call_command("collectstatic", "--no-input", verbosity=0)
"""
    environment = {
        **os.environ,
        "SECRET_KEY": "of the test run, signs nothing of value",
        "DATABASE_URL": "sqlite:///:memory:",
    }
    environment["DJANGO_SETTINGS_MODULE"] = "runners_project.settings"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, check=True)
    found = list((tmp_path / "static").rglob("*"))
    assert len(found) > 20
    assert {oct(mode(path)) for path in found} == {"0o644", "0o755"}


# --- files on the machines --------------------------------------------------------------------------------------------


def test_files_of_a_run_are_private_and_the_command_keeps_the_umask_of_its_account(
    runner: Runner, account: StubAccount
) -> None:
    base = account.home / scripts.BASE
    shutil.rmtree(base, ignore_errors=True)
    with umask(0o022):  # LOCAL uses the setting, SSH uses the umask of the account's sshd
        identity = runner.launch(key := uuid.uuid4().hex, "umask; touch by-command; exec sleep 60", timeout=30)
    wait_for(lambda: (base / key / "by-command").exists(), what="the command")
    modes = {path.name: oct(mode(path)) for path in (base / key).iterdir()}
    made = modes.pop("by-command")
    assert set(modes) == {"begun", "command.sh", "identity", "log", "running"}
    assert set(modes.values()) == {"0o600"}, modes
    assert mode(base / key) == mode(base) == 0o700
    said = int((base / key / "log").read_text(), 8)
    assert said != 0o077 and oct(0o666 & ~said) == made
    assert identity.pid > 1


def test_local_commands_get_the_umask_of_the_setting(account: StubAccount, settings: object) -> None:
    for mask in (0o022, 0o027):
        settings.RUNNERS_LOCAL_UMASK = mask  # type: ignore[attr-defined]
        result = LocalRunner(account.config("NO_MODULE")).execute("umask", timeout=20)
        assert int(result.text, 8) == mask
    assert os.umask(private.UMASK) == private.UMASK  # this process has loaded the settings, so it has their umask


@as_root
def test_another_account_cannot_hold_the_lock_of_create_experiment(runner: Runner, account: StubAccount) -> None:
    base = account.home / scripts.BASE
    base.mkdir(exist_ok=True)
    base.chmod(0o755)
    (base / "expid.lock").touch()
    (base / "expid.lock").chmod(0o644)
    runner.execute(f"{scripts.surroundings()} && true", timeout=20)
    assert mode(base) == 0o700
    (base / "expid.lock").unlink()
    with umask(0):
        runner.execute(f"{scripts.surroundings()} && true", timeout=20)
    assert mode(base / "expid.lock") == 0o600
    base.chmod(0o755)
    runner.launch(uuid.uuid4().hex, "exec sleep 60", timeout=30)
    wait_for(lambda: mode(base) == 0o700, what="the launch to tighten the directory")


@as_root
def test_a_directory_of_runs_that_another_account_owns_is_refused(runner: Runner, account: StubAccount) -> None:
    base = account.home / scripts.BASE
    base.mkdir(exist_ok=True)
    os.chown(base, NOBODY, NOBODY)
    try:
        with pytest.raises(RunDirectoryUnusable, match=r"belongs to another account.*Remove it") as error:
            runner.execute(f"{scripts.surroundings()} && echo executed", timeout=20)
        assert "executed" not in error.value.facts["output"]
        with pytest.raises(RunDirectoryUnusable, match="belongs to another account"):
            runner.launch(key := uuid.uuid4().hex, "exec sleep 60", timeout=30)
        assert not (base / key).exists()
    finally:
        os.chown(base, os.geteuid(), os.getegid())


def test_only_the_directory_of_runs_is_changed(runner: Runner, account: StubAccount) -> None:
    other = account.home / "other"
    other.mkdir(exist_ok=True)
    other.chmod(0o755)
    runner.execute(f"{scripts.surroundings(str(other))} && true", timeout=20)
    assert mode(other) == 0o755


# --- secrets ----------------------------------------------------------------------------------------------------------

GOOD = "0123456789abcdefghijklmnopqrstuv"
WEAK = {
    "short": GOOD[:-1],
    "one character": "x",
    "the README's word": "...",
    "dots": "." * 50,
    "one letter": "a" * 64,
    "repeated": "abcabc" * 10,
    "changeme": "changeme-changeme-changeme-changeme",
    "capitals": "CHANGE_ME_" + GOOD,
    "django's own": "django-insecure-" + GOOD,
    "to be replaced": "replace-me-with-a-real-secret-please",
}


@pytest.mark.parametrize(
    "name", ["SECRET_KEY", "AS_API_JWT_SECRET", "AS_API_SECRET_TOKEN", "RUNNERS_REMOTE_USER_SECRET"]
)
@pytest.mark.parametrize("text", WEAK.values(), ids=WEAK)
def test_a_secret_that_can_be_guessed_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(ImproperlyConfigured) as error:
        envsecret(name)
    said = str(error.value)
    assert said.startswith(name) and "secrets.token_urlsafe" in said
    assert len(text) < 8 or text not in said


def test_good_secrets_are_accepted() -> None:
    assert len(GOOD) == SECRET_LENGTH and not weakness(GOOD)
    for _ in range(200):
        validate_secret(new_secret())


@pytest.mark.parametrize(
    "name", ["SECRET_KEY", "AS_API_JWT_SECRET", "AS_API_SECRET_TOKEN", "RUNNERS_REMOTE_USER_SECRET"]
)
def test_a_weak_secret_stops_every_entry_point(name: str) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "SECRET_KEY": GOOD,
        "DATABASE_URL": "sqlite:///:memory:",
        name: "changeme",
    }
    for argv in (["manage.py", "check"], ["-c", "import runners_project.wsgi"]):
        done = subprocess.run(
            [sys.executable, *argv], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode != 0
        assert f"{name} has 8 characters, and 32 are needed" in done.stderr


def test_a_mask_is_read_in_octal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert envmask("SOME_MASK", 0o22) == 0o22
    monkeypatch.setenv("SOME_MASK", "0027")
    assert envmask("SOME_MASK", 0) == 0o27
    for wrong in ("8", "rwx", "-1", "1777", "00027"):
        monkeypatch.setenv("SOME_MASK", wrong)
        with pytest.raises(ImproperlyConfigured, match="SOME_MASK"):
            envmask("SOME_MASK", 0)


def test_check_deploy_is_silent_for_the_documented_deployment() -> None:
    environment = {"PATH": os.environ["PATH"], "DATABASE_URL": "sqlite:///:memory:", "BEHIND_HTTPS_PROXY": "1"}
    environment |= {"SECRET_KEY": secrets.token_urlsafe(50), "SECURE_HSTS_SECONDS": "31536000", "NUM_PROXIES": "1"}
    argv = [sys.executable, "manage.py", "check", "--deploy", "--fail-level=WARNING"]
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
