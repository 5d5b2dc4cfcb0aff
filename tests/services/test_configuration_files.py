"""The configuration files of an experiment, on a real account, LOCAL and over SSH."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shlex
import shutil
import signal
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from profiles.config import RunnerConfig
from runners.exceptions import (
    AlreadyRunning,
    CommandFailed,
    ExperimentNotFound,
    FileNotFound,
    FileRejected,
    InvalidRequest,
    OutcomeUnknown,
    PreconditionFailed,
    RunnerServiceError,
)
from runners.models import AuditRecord
from runners.services import configuration_files as files
from runners.services.configuration_diff import masked
from runners.services.machines import scripts
from runners.services.machines.runner import CommandResult, Runner
from tests.support.environments import AutosubmitAccount, StubAccount
from tests.support.processes import wait_for

pytestmark = pytest.mark.django_db(transaction=True)

TEXT = "# keep this comment\nJOBS:\n  SIM:\n    FILE: sim.sh\t# and this one\n"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def conf(account: StubAccount) -> Path:
    """Return the folder `conf` of the experiment a001, with one file."""
    account.experiment("a001")
    folder = account.home / "autosubmit" / "a001" / "conf"
    (folder.parent / "tmp").mkdir()
    (folder / "jobs_a001.yml").write_text(TEXT)
    (folder / "jobs_a001.yml").chmod(0o640)
    return folder


@pytest.fixture
def config(config_of: Callable[[str], RunnerConfig], conf: Path) -> RunnerConfig:
    return config_of("NO_MODULE")


@pytest.fixture
def local(account: StubAccount, conf: Path) -> RunnerConfig:
    return account.config("NO_MODULE")


def read(config: RunnerConfig, path: str = "jobs_a001.yml", **more: Any) -> files.File:
    return files.read_file(config=config, expid="a001", path=path, **more)


def write(config: RunnerConfig, content: str, expected: str = TEXT, path: str = "jobs_a001.yml", **more: Any) -> Any:
    audit = more.pop("audit", None) or AuditRecord()
    given = {"config": config, "expid": "a001", "path": path, "content": content, "audit": audit, **more}
    return files.write_file(expected=digest(expected), **given)


def test_files_are_listed_and_read(config: RunnerConfig, conf: Path) -> None:
    (conf / "metadata").mkdir()
    (conf / "metadata" / "experiment_data.yml").write_text("A: 1\n")
    (conf / "link.yml").symlink_to("/etc/passwd")
    os.mkfifo(conf / "pipe.yml")
    (conf / "notes.txt").write_text("no configuration")
    (conf / "new\nline.yml").write_text("")
    (conf / "away").symlink_to("/etc")
    listing = files.list_files(config=config, expid="a001")
    assert [each.path for each in listing.files] == ["jobs_a001.yml", "metadata/experiment_data.yml"]
    assert (listing.files[0].size, listing.files[0].mode, listing.others) == (len(TEXT), 0o640, 5)
    found = read(config)
    assert (found.content, found.digest) == (TEXT, digest(TEXT))
    assert read(config, "metadata/experiment_data.yml").content == "A: 1\n"


def test_a_file_is_replaced_and_its_former_content_kept(config: RunnerConfig, conf: Path) -> None:
    new = TEXT.replace("sim.sh", "größer.sh") + "  # no line end"
    audit = AuditRecord()
    change = write(config, new, audit=audit)
    file = conf / "jobs_a001.yml"
    assert file.read_text() == new
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert change.digest == digest(new)
    assert "-    FILE: sim.sh" in change.difference and "+    FILE: größer.sh" in change.difference
    assert audit.detail == f"conf/jobs_a001.yml\n{change.difference}"
    (version,) = files.versions(config=config, expid="a001", path="jobs_a001.yml")
    assert version.version == change.version
    assert read(config, version=version.version).content == TEXT
    (store,) = conf.glob(".autosubmit-runners.*")
    assert stat.S_IMODE(store.stat().st_mode) == 0o700
    assert [stat.S_IMODE(each.stat().st_mode) for each in store.iterdir()] == [0o600]
    assert not [each for each in conf.iterdir() if each.name.endswith(".tmp")]

    given = {"config": config, "expid": "a001", "path": "jobs_a001.yml", "version": version.version}
    files.restore(**given, expected=digest(new), audit=AuditRecord())
    assert file.read_text() == TEXT
    assert len(files.versions(config=config, expid="a001", path="jobs_a001.yml")) == 2


def test_a_stale_change_is_rejected_and_a_repeated_one_is_safe(config: RunnerConfig, conf: Path) -> None:
    write(config, "A: 1\n")
    with pytest.raises(PreconditionFailed) as error:
        write(config, "A: 1\n")
    assert error.value.facts["etag"] == '"' + digest("A: 1\n") + '"'
    with pytest.raises(PreconditionFailed):
        write(config, "A: 2\n")
    assert (conf / "jobs_a001.yml").read_text() == "A: 1\n"
    assert not write(config, "A: 1\n", expected="A: 1\n").is_changed
    assert len(files.versions(config=config, expid="a001", path="jobs_a001.yml")) == 1


def test_only_some_versions_are_kept(local: RunnerConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "KEPT_VERSIONS", 2)
    before = TEXT
    for number in range(4):
        after = f"A: {number}\n"
        write(local, after, expected=before)
        before = after
    kept = files.versions(config=local, expid="a001", path="jobs_a001.yml")
    assert [read(local, version=each.version).content for each in kept] == ["A: 2\n", "A: 1\n"]


def test_one_of_two_simultaneous_changes_wins(local: RunnerConfig, conf: Path) -> None:
    results: list[str] = []

    def change(content: str) -> None:
        try:
            write(local, content)
            results.append(content)
        except PreconditionFailed:
            results.append("")

    threads = [threading.Thread(target=change, args=(f"A: {number}\n",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = filter(None, results)
    assert len(results) == 4
    assert (conf / "jobs_a001.yml").read_text() == winner


# --- What is not accepted ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        ("A: 1\nB: [1, 2\nC: 3\n", 3, ""),
        ("A: 1\n\tB: 2\n", 2, "tab"),
        ("A: 1\nA: 2\n", 2, "duplicate key 'A'"),
        ("A:\n  X: {B: 1, B: 2}\n", 2, "duplicate key 'B'"),
        ("- a\n- b\n", 1, "mapping"),
        ("just words\n", 1, "mapping"),
        ("A: 1\n---\nB: 2\n", 2, "second document"),
        ("A: &a 1\nB: [" + ", ".join(["*a"] * 300) + "]\n", 2, "aliases"),
        ("A: " + "[" * 60 + "]" * 60 + "\n", 1, "nested deeper"),
        ("A: " + "[" * 100_000, 1, "nest"),
        ("A: *unknown\nB: %TEXT%\n", 2, ""),
        ("A: 1\nB: \x07\n", 2, ""),
        ("A: 1\nB: \0\n", 2, "NUL"),
        ("A: 1\nB: \ud800\n", 2, "surrogate"),
    ],
    ids=lambda value: value[:12].encode("ascii", "replace").decode() if isinstance(value, str) else str(value),
)
def test_a_mistake_is_found_with_its_line_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch, content: str, line: int, words: str
) -> None:
    monkeypatch.delattr(Runner, "execute")
    with pytest.raises(InvalidRequest) as error:
        write(RunnerConfig("LOCAL", "NO_MODULE"), content)
    assert error.value.facts["line"] == line
    assert words in error.value.detail
    assert set(error.value.errors) == {"content"}


@pytest.mark.parametrize(
    "content", ["", "# only a comment\n", "A: &a {B: 1}\nC: *a\n", "A: !tag x\n", "%YAML 1.2\n---\nA: 1\n"]
)
def test_what_autosubmit_reads_is_accepted(local: RunnerConfig, conf: Path, content: str) -> None:
    write(local, content)
    assert (conf / "jobs_a001.yml").read_text() == content


def test_line_ends_and_comments_stay_as_they_were_sent(local: RunnerConfig, conf: Path) -> None:
    content = "A: 1\r\n# ümlaut \u2028 and   blanks   \r\n\r\n"
    write(local, content)
    assert (conf / "jobs_a001.yml").read_bytes() == content.encode()
    assert read(local).content == content


def test_an_old_conf_file_is_written_unchecked(local: RunnerConfig, conf: Path) -> None:
    (conf / "expdef_a001.conf").write_text(TEXT)
    write(local, "[DEFAULT\nEXPID: = a001", path="expdef_a001.conf")
    assert (conf / "expdef_a001.conf").read_text() == "[DEFAULT\nEXPID: = a001"


@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "huge", "binary", "nul", "socket", "unreadable path"])
def test_what_is_no_text_file_is_rejected(config: RunnerConfig, conf: Path, account: StubAccount, kind: str) -> None:
    file = conf / "odd.yml"
    if kind == "link":
        file.symlink_to(conf / "jobs_a001.yml")
    elif kind == "fifo":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    elif kind == "huge":
        with file.open("wb") as huge:
            huge.truncate(10**12)
    elif kind == "binary":
        file.write_bytes(b"A: \xff\xfe\n")
    elif kind == "nul":
        file.write_bytes(b"A: \0\n")
    elif kind == "socket":
        os.mknod(file, 0o600 | stat.S_IFSOCK)
    elif kind == "unreadable path":
        (conf / "inner").symlink_to(account.home)
        with pytest.raises(FileRejected):
            read(config, "inner/odd.yml")
        return
    with pytest.raises(FileRejected):
        read(config, "odd.yml")
    before = file.lstat()
    if kind not in ("binary", "nul"):
        with pytest.raises(FileRejected):
            write(config, "A: 1\n", path="odd.yml")
        assert file.lstat().st_ino == before.st_ino


@pytest.mark.parametrize("part", ["a001", "conf"])
def test_a_linked_folder_is_not_followed(local: RunnerConfig, conf: Path, account: StubAccount, part: str) -> None:
    folder = conf if part == "conf" else conf.parent
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to(folder.with_name("elsewhere"))
    for ask in (lambda: read(local), lambda: files.list_files(config=local, expid="a001")):
        with pytest.raises(FileRejected, match="link"):
            ask()


def test_what_does_not_exist_is_not_found(config: RunnerConfig, conf: Path) -> None:
    with pytest.raises(FileNotFound):
        read(config, "missing.yml")
    with pytest.raises(FileNotFound):
        read(config, version="20260101T000000.000000Z-0123456789abcdef")
    with pytest.raises(ExperimentNotFound):
        files.read_file(config=config, expid="a999", path="jobs_a001.yml")
    assert files.versions(config=config, expid="a001", path="jobs_a001.yml") == []


@pytest.mark.parametrize(
    "path", ["../a002/conf/x.yml", "/etc/passwd", "a/../../x.yml", ".hidden.yml", "x.yml/", "a//b.yml", "x.yml\n"]
)
def test_the_machine_itself_rejects_paths_out_of_conf(local: RunnerConfig, conf: Path, path: str) -> None:
    with pytest.raises((FileRejected, FileNotFound)):
        read(local, path)


def test_a_folder_that_is_swapped_for_a_link_leads_nowhere(
    local: RunnerConfig, conf: Path, account: StubAccount
) -> None:
    """Another person with write access to conf replaces its folder by a link, again and again."""
    outside = account.home / "outside"
    outside.mkdir(exist_ok=True)
    (outside / "x.yml").write_text("SECRET: outside\n")
    (conf / "inner").mkdir()
    (conf / "inner" / "x.yml").write_text("A: inside\n")
    (conf / "link").symlink_to(outside)
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            with suppress(OSError):
                os.rename(conf / "inner", conf / "held")
                os.rename(conf / "link", conf / "inner")
                os.rename(conf / "inner", conf / "link")
                os.rename(conf / "held", conf / "inner")

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for number in range(5):
            with suppress(FileRejected, FileNotFound):
                assert read(local, "inner/x.yml").content.startswith("A: ")
            with suppress(FileRejected, FileNotFound, PreconditionFailed, CommandFailed):
                write(local, f"A: {number}\n", path="inner/x.yml", expected="A: inside\n")
    finally:
        done.set()
        thread.join()
    assert (outside / "x.yml").read_text() == "SECRET: outside\n"


# --- While a run uses it ----------------------------------------------------------------------------------------------


def test_autosubmits_lock_refuses_a_change(config: RunnerConfig, conf: Path) -> None:
    with (conf.parent / "tmp" / "autosubmit.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(AlreadyRunning, match="locked"):
            write(config, "A: 1\n")
    assert (conf / "jobs_a001.yml").read_text() == TEXT
    write(config, "A: 1\n")


# --- A machine that fails or lies -------------------------------------------------------------------------------------


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Replace what the machine prints by these texts, with the mark of the request, or raise these errors."""
    given: list[Any] = []

    def execute(self: Runner, script: str, **options: Any) -> CommandResult:
        answer = given.pop(0)
        if isinstance(answer, Exception):
            raise answer
        mark = next(word for word in script.replace('"', " ").split() if word.startswith("configuration-"))
        return CommandResult(0, f"noise\n{mark} {answer}\n".encode(), b"", 0.1)

    monkeypatch.setattr(Runner, "execute", execute)
    yield given


@pytest.mark.parametrize(
    "answer",
    [
        *("", "[]", "1", "{", "null", "NaN", "[" * 100_000, '{"content": 5}', '{"content": "%%%"}', "{}"),
        '{"path": "x", "size": -1, "modified": 0, "mode": 0, "content": ""}',
        '{"path": "x", "size": 1, "modified": 1e400, "mode": 0, "content": ""}',
        '{"path": "x", "size": 1, "modified": 99999999999999999999, "mode": 99999, "content": ""}',
        '{"problem": []}',
        '{"problem": "no such problem", "detail": {"a": "\\ud800"}}',
        '{"problem": "changed", "digest": "x"}',
        '{"files": [1], "others": 1, "versions": [{"version": "x", "size": 1}]}',
        '{"files": [], "others": "x", "versions": [{"version": "99999999T999999.999999Z-0123456789abcdef"}]}',
        '{"former": "/w==", "version": "", "is_changed": 1}',
        '{"former": "", "version": "../x", "is_changed": 1}',
    ],
    ids=lambda value: value[:30],
)
def test_an_invalid_answer_is_an_error_of_the_request(local: RunnerConfig, answers: list[Any], answer: str) -> None:
    for ask in (
        lambda: read(local),
        lambda: files.list_files(config=local, expid="a001"),
        lambda: files.versions(config=local, expid="a001", path="jobs_a001.yml"),
        lambda: write(local, "A: 1\n"),
    ):
        answers[:] = [answer]
        with suppress(RunnerServiceError):
            ask()


def test_a_write_that_loses_its_machine_is_unknown_and_says_how_to_find_out(
    local: RunnerConfig, answers: list[Any]
) -> None:
    answers[:] = [OutcomeUnknown("The connection was lost.")]
    audit = AuditRecord()
    with pytest.raises(OutcomeUnknown, match="ETag") as error:
        write(local, "A: 1\n", audit=audit)
    assert error.value.facts["digest"] == digest("A: 1\n")
    assert audit.detail == "conf/jobs_a001.yml"


def test_a_machine_that_dies_before_the_replacement_leaves_the_file_and_the_repeat_succeeds(
    config: RunnerConfig, conf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = scripts.configuration_files

    def killed(request: Any) -> list[str]:
        argv = whole(request)
        argv[3] = argv[3].replace("os.rename(temporary, name", "os.kill(os.getpid(), 9); os.rename(temporary, name")
        return argv

    with monkeypatch.context() as patch, pytest.raises((OutcomeUnknown, CommandFailed)):
        patch.setattr(scripts, "configuration_files", killed)
        write(config, "A: 1\n")
    assert (conf / "jobs_a001.yml").read_text() == TEXT
    write(config, "A: 1\n")
    assert (conf / "jobs_a001.yml").read_text() == "A: 1\n"


def test_without_python_the_error_names_it(local: RunnerConfig, at_login: Any, tmp_path: Path) -> None:
    (tmp_path / "mkdir").symlink_to(shutil.which("mkdir") or "")
    (tmp_path / "chmod").symlink_to(shutil.which("chmod") or "")
    at_login(f"PATH={shlex.quote(str(tmp_path))}\n")
    with pytest.raises(RunnerServiceError, match="python3"):
        read(local)


# --- Secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        ("  PASSWORD: hunter2", "hunter2"),
        ("  api_key: 'hunter2'", "hunter2"),
        ('  "access-token": hunter2', "hunter2"),
        ("A: {USER: ana, PASSWORD: hunter2, X: 1}", "hunter2"),
        ("password=hunter2", "hunter2"),
        ("# token: hunter2", "hunter2"),
        ("PROJECT_ORIGIN: https://ana:hunter2@git.example.org/x.git", "hunter2"),
        ("PROJECT_ORIGIN: https://hunter2@git.example.org/x.git", "hunter2"),
        ("  SECRET: |\n    hunter2\n    hunter2\n  OTHER: 1", "hunter2"),
        ("  TOKENS:\n    - hunter2\n\n    - hunter2\n  OTHER: 1", "hunter2"),
        ("x" * 1000 + " password: hunter2", "hunter2"),
    ],
)
def test_a_difference_shows_no_secret(line: str, secret: str) -> None:
    for old, new in (
        (f"A: 1\n{line}\n", "A: 1\n"),
        ("A: 1\n", f"A: 1\n{line}\n"),
        (f"{line}\nB: 1\n", f"{line}\nB: 2\n"),
    ):
        difference = masked(old, new, "x.yml")
        assert secret not in difference
        assert difference


def test_a_changed_secret_is_visible_as_changed() -> None:
    difference = masked("PASSWORD: one\n", "PASSWORD: two\n", "x.yml")
    assert difference.splitlines()[2:] == ["@@ -1,2 +1,2 @@", "-PASSWORD: ***", "+PASSWORD: ***", " "]


def test_a_difference_of_large_files_is_bounded() -> None:
    old = "\n".join(f"line {number}" for number in range(30_000))
    new = "\n".join(f"other {number}" for number in range(30_000))
    assert masked(old, new, "x.yml").endswith("@@ line 1: 30000 lines became 30000 lines @@")
    assert masked("a" * 250_000, "b" * 250_000, "x.yml").count("\n") == 4
    assert masked("\n" * 2900, "a\n" * 2900, "x.yml")


# --- Real Autosubmit --------------------------------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.timeout(300)
def test_a_run_by_hand_refuses_a_change_and_autosubmit_reads_what_was_changed(autosubmit: AutosubmitAccount) -> None:
    expid = autosubmit.short_experiment("sleep 300")
    given = {"config": autosubmit.config("VENV"), "expid": expid}
    path = f"jobs_{expid}.yml"
    assert path in [each.path for each in files.list_files(**given).files]
    file = files.read_file(**given, path=path)
    new = file.content.replace("  ONE:", "  # another one\n  TWO:", 1)
    assert new != file.content
    change = {**given, "path": path, "content": new, "expected": file.digest}
    process = subprocess.Popen(
        [str(autosubmit.programs / "autosubmit"), "run", expid],
        env={"HOME": str(autosubmit.home), "PATH": os.defpath, "TERM": "dumb"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(lambda: "RUNNING" in autosubmit.job_statuses(expid).values(), 90, what="the job")
        with pytest.raises(AlreadyRunning, match="locked"):
            files.write_file(**change, audit=AuditRecord())
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        autosubmit.kill()
    assert files.write_file(**change, audit=AuditRecord()).is_changed
    autosubmit.autosubmit("create", "-np", "-f", expid, check=False)
    assert f"{expid}_TWO" in autosubmit.job_statuses(expid)
