"""Homes that are missing, full, read-only or slow, and the directory of runs at another place (RUN_DIRECTORY).

Promise: without the directory of runs, the service does not conclude that a run is lost or was never started.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from runners.exceptions import RunDirectoryUnusable
from runners.services.machines import scripts
from runners.services.machines.probe import Probe, ProbeTarget
from runners.services.machines.registry import get_module_loader, get_runner
from runners.services.machines.runner import Runner
from tests.support.environments import StubAccount
from tests.support.processes import is_alive, wait_for

TIMEOUT = 30
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system, which only root may do")
NOBODY = 65534
OLD = "a" * 32  # the key of a run that has ended


@contextmanager
def mounted(place: Path, options: str) -> Iterator[None]:
    """Mount a small file system over a directory."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A directory that every account may write to, as /scratch."""
    place = tmp_path / "scratch"
    place.mkdir()
    place.chmod(0o1777)
    return place


@pytest.fixture
def base(scratch: Path) -> Path:
    """The directory of runs of this account in it."""
    return scratch / f"autosubmit-runners-{os.geteuid()}"


def at(runner: Runner, directory: Path) -> Runner:
    return get_runner(replace(runner.config, run_directory=str(directory)))


def launch(runner: Runner, command: str = "exec sleep 60") -> str:
    key = uuid.uuid4().hex
    runner.launch(key, command, timeout=TIMEOUT)
    return key


def probe(runner: Runner, key: str) -> Probe:
    return runner.probe([ProbeTarget(key)], timeout=TIMEOUT)[key]


def probe_all(runner: Runner, targets: list[ProbeTarget]) -> list[tuple[str, str]]:
    """Return the answer and its detail for each target."""
    answers = runner.probe(targets, timeout=TIMEOUT)
    return [(answers[target.key].answer, answers[target.key].detail) for target in targets]


def ended(runner: Runner, key: str) -> Probe:
    wait_for(lambda: probe(runner, key).answer == Probe.ENDED, what="the end of the run")
    return probe(runner, key)


# --- elsewhere --------------------------------------------------------------------------------------------------------


def test_a_run_elsewhere_needs_nothing_in_the_home(
    runner: Runner, account: StubAccount, scratch: Path, base: Path
) -> None:
    there = at(runner, scratch)
    key = launch(there, "echo said; pwd; exit 3")
    answer = ended(there, key)
    assert answer.exit_code == 3
    log = there.read_log(key, offset=0, limit=1000, timeout=TIMEOUT)
    assert log and log.data.decode() == f"said\n{base}/{key}\n"
    assert stat.S_IMODE(base.stat().st_mode) == stat.S_IMODE((base / key).stat().st_mode) == 0o700
    assert not (account.home / scripts.BASE / key).exists()
    result = there.execute(get_module_loader(there.config).wrap(["pwd"]), login=True, timeout=TIMEOUT)
    assert result.text == f"{base}\n"


def test_a_run_elsewhere_is_signalled_and_removed_there(runner: Runner, scratch: Path, base: Path) -> None:
    there = at(runner, scratch)
    key = launch(there)
    answer = probe(there, key)
    assert answer.answer == Probe.RUNNING and answer.identity
    there.signal(key, answer.identity, "KILL", timeout=TIMEOUT)
    assert ended(there, key).signal == "KILL"
    done = there.execute(scripts.clean([(key, answer.identity.words)], dry_run=False), timeout=TIMEOUT)
    assert done.text.startswith(f"{key} removed ")
    assert not (base / key).exists()


def link(base: Path, scratch: Path) -> str:
    (scratch / "target").mkdir()
    base.symlink_to(scratch / "target")
    return "is a link, or belongs to another account"


def dangling_link(base: Path, scratch: Path) -> str:
    base.symlink_to(scratch / "nowhere")
    return "is a link, or belongs to another account"


def foreign(base: Path, scratch: Path) -> str:
    base.mkdir()
    os.chown(base, NOBODY, NOBODY)
    return "is a link, or belongs to another account"


def without_sticky_bit(base: Path, scratch: Path) -> str:
    scratch.chmod(0o777)
    return r"sticky bit \(chmod \+t\)"


def missing(base: Path, scratch: Path) -> str:
    scratch.rmdir()
    return "is not a directory on this machine"


@pytest.mark.parametrize(
    "spoil",
    [link, dangling_link, pytest.param(foreign, marks=as_root), without_sticky_bit, missing],
    ids=lambda spoil: spoil.__name__,
)
def test_a_place_that_is_not_safe_is_refused_by_everything(
    runner: Runner, scratch: Path, base: Path, spoil: Callable[[Path, Path], str]
) -> None:
    words = spoil(base, scratch)
    there = at(runner, scratch)
    key = uuid.uuid4().hex
    with pytest.raises(RunDirectoryUnusable, match=words) as error:
        there.launch(key, "exec sleep 60", timeout=TIMEOUT)
    assert "Nothing was started" in error.value.detail and "RUN_DIRECTORY of the profile" in error.value.detail
    with pytest.raises(RunDirectoryUnusable, match=words):
        there.execute(get_module_loader(there.config).wrap(["pwd"]), login=True, timeout=TIMEOUT)
    with pytest.raises(RunDirectoryUnusable, match=words):
        there.read_log(key, offset=0, limit=10, timeout=TIMEOUT)
    answer = probe(there, key)
    assert answer.answer == Probe.CANNOT_TELL and "cannot be used" in answer.detail
    assert not list(scratch.rglob(key)) if scratch.exists() else True


# --- homes ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def runs(account: StubAccount) -> Path:
    """The directory of runs in the home, empty."""
    place = account.home / scripts.BASE
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o700)
    return place


@contextmanager
def full(runs: Path) -> Iterator[None]:
    with mounted(runs, "size=4096,mode=700"):
        (runs / "data").write_bytes(bytes(4096))
        yield


@contextmanager
def read_only(runs: Path) -> Iterator[None]:
    with mounted(runs, "ro,mode=700"):
        yield


@contextmanager
def unmounted(runs: Path) -> Iterator[None]:
    """Take the home away, as a file server does that is not mounted."""
    home = runs.parent
    away = home.with_name("away")
    home.rename(away)
    try:
        yield
    finally:
        away.rename(home)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        pytest.param(full, "No space left on device", marks=as_root),
        pytest.param(read_only, "Read-only file system", marks=as_root),
        (unmounted, "No such file or directory"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_home_that_cannot_be_used_is_named_with_what_to_do(
    runner: Runner, runs: Path, scratch: Path, spoil: Callable[[Path], AbstractContextManager[None]], words: str
) -> None:
    with spoil(runs):
        with pytest.raises(RunDirectoryUnusable, match=words) as error:
            launch(runner)
        for part in ("Nothing was started", "free space and quota for ~/.autosubmit-runners", "RUN_DIRECTORY"):
            assert part in error.value.detail
        assert launch(at(runner, scratch))  # the other place needs no home
    assert launch(runner)


def test_another_command_may_create_the_directory_of_runs_at_the_same_time(
    account: StubAccount, at_login: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """This `mkdir` creates the directory of runs before the real `mkdir` tries it."""
    program, real = tmp_path / "mkdir", shutil.which("mkdir")
    program.write_text(
        f'#!/bin/bash\ncase ${{!#}} in */{scripts.BASE}) {real} -m 700 "${{!#}}" ;; esac\nexec {real} "$@"\n'
    )
    program.chmod(0o755)
    at_login(f"PATH={tmp_path}:$PATH\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    runner = get_runner(account.config("NO_MODULE"))
    script = get_module_loader(runner.config).wrap(["pwd"])
    directory = account.home / scripts.BASE
    result = runner.execute(script, login=True, timeout=TIMEOUT)
    assert (result.exit_code, result.text.strip(), result.stderr.strip()) == (0, str(directory), b"")
    shutil.rmtree(directory)
    launch(runner)


def test_without_a_home_an_ended_run_is_not_called_killed_and_its_log_is_not_called_empty(
    runner: Runner, runs: Path
) -> None:
    key = launch(runner, "exec sleep 60")
    identity = probe(runner, key).identity
    assert identity
    target = ProbeTarget(key, identity)

    def answer() -> Probe:
        return runner.probe([target], timeout=TIMEOUT)[key]

    with unmounted(runs):
        assert answer().answer == Probe.RUNNING
        with pytest.raises(RunDirectoryUnusable, match="is missing"):
            runner.read_log(key, offset=0, limit=10, timeout=TIMEOUT)
        os.kill(identity.pid, signal.SIGTERM)
        wait_for(lambda: answer().answer == Probe.CANNOT_TELL, what="the end of command and supervisor")
        assert "the directory with its exit code is missing" in answer().detail
    assert (answer().answer, answer().signal) == (Probe.ENDED, "TERM")


@contextmanager
def unmounted_again(place: Path, hidden: Path) -> Iterator[None]:
    """Take away what is mounted at `place`. The directory below stays, and processes go on in the file system."""
    hidden.mkdir()
    for argv in (["mount", "--bind", place, hidden], ["umount", "-l", place]):
        subprocess.run(argv, check=True)
    try:
        yield
    finally:
        for argv in (["mount", "--bind", hidden, place], ["umount", "-l", hidden]):
            subprocess.run(argv, check=True)


@as_root
def test_a_place_that_is_not_mounted_decides_nothing(runner: Runner, scratch: Path, base: Path, tmp_path: Path) -> None:
    there = at(runner, scratch)
    alive, unknown, done, never = (uuid.uuid4().hex for _ in range(4))
    with mounted(scratch, "mode=1777"):
        identity = there.launch(alive, "exec sleep 60", timeout=TIMEOUT)
        left = there.launch(unknown, "exec sleep 60", timeout=TIMEOUT)
        earlier = replace(there.launch(done, "exit 3", timeout=TIMEOUT), boot_id="an-earlier-boot")
        assert ended(there, done).exit_code == 3
        looks = [ProbeTarget(alive, identity), ProbeTarget(done, earlier)]
        claims = [ProbeTarget(key, claim=True) for key in (unknown, done, never)]
        with unmounted_again(scratch, tmp_path / "hidden"):
            assert probe_all(there, looks)[0][0] == Probe.RUNNING
            os.kill(identity.pid, signal.SIGTERM)
            wait_for(lambda: probe_all(there, looks)[0][0] != Probe.RUNNING, what="the end of command and supervisor")
            for answer, detail in probe_all(there, looks) + probe_all(there, claims):
                assert answer == Probe.CANNOT_TELL and f"is missing or cannot be read: {base}" in detail
            assert not base.exists()
        assert [answer for answer, _ in probe_all(there, looks)] == [Probe.ENDED, Probe.ENDED]
        answers = [answer for answer, _ in probe_all(there, claims)]
        assert answers == [Probe.RUNNING, Probe.ENDED, Probe.NEVER_STARTED]
        os.kill(left.pid, signal.SIGKILL)
        assert ended(there, unknown).signal == "KILL"


def test_a_launch_whose_process_is_alive_is_not_called_never_started(
    runner: Runner, runs: Path, tmp_path: Path
) -> None:
    """The home is replaced by an empty one, in which another command has made the directory of runs again."""
    key = launch(runner)
    away = tmp_path / "away"
    runs.rename(away)
    runs.mkdir(mode=0o700)
    ((answer, detail),) = probe_all(runner, [ProbeTarget(key, claim=True)])
    assert answer == Probe.CANNOT_TELL and "a process of the run is alive" in detail
    runs.rmdir()  # fails if the probe has claimed the launch
    away.rename(runs)
    assert probe(runner, key).answer == Probe.RUNNING


def test_a_search_for_processes_that_hangs_hides_no_other_answer(
    account: StubAccount, runs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = get_runner(account.config())
    other, key = launch(here), uuid.uuid4().hex
    program = tmp_path / "grep"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    targets = [ProbeTarget(key, claim=True), ProbeTarget(other)]
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        (answer, detail), (of_other, _) = probe_all(here, targets)
    assert (answer, of_other) == (Probe.CANNOT_TELL, Probe.RUNNING)
    assert detail == "the machine could not search for processes of the run"
    assert probe_all(here, targets)[0][0] == Probe.NEVER_STARTED


@pytest.fixture
def closable() -> Iterator[Path]:
    """The home of an account that is not root, so that modes apply to it."""
    home = Path(tempfile.mkdtemp())  # other accounts cannot enter tmp_path
    yield home
    shutil.rmtree(home)


def answer_in(home: Path, script: str) -> str:
    """Return what a script of the account prints about its only run, without the key of the run."""
    account = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if os.geteuid() == 0 else []
    argv = [*account, "bash", "--norc", "-p", "-c", script]
    done = subprocess.run(argv, env=os.environ | {"HOME": str(home)}, cwd="/", stdout=subprocess.PIPE, check=True)
    (line,) = done.stdout.decode().splitlines()
    return line.partition(" ")[2]


@pytest.mark.parametrize("name", ["", scripts.BASE, f"{scripts.BASE}/{OLD}"], ids=["home", "base", "directory"])
def test_what_may_not_be_read_proves_nothing(account: StubAccount, closable: Path, name: str) -> None:
    """All access fails while a ticket (Kerberos, AFS) is expired."""
    here = get_runner(account.config())
    identity = here.launch(uuid.uuid4().hex, "true", timeout=TIMEOUT)
    wait_for(lambda: not is_alive(identity.pid) and not is_alive(identity.supervisor_pid), what="the end of the run")
    base = closable / scripts.BASE
    (base / OLD).mkdir(parents=True)
    (base / OLD / "ended.3.-.1700000000").touch()
    if os.geteuid() == 0:
        for path in (closable, base, base / OLD):
            os.chown(path, NOBODY, NOBODY)
    looks = [scripts.probe([(OLD, False, identity.words)]), scripts.probe([(OLD, True, ())])]
    clean = scripts.clean([(OLD, identity.words)], dry_run=False)
    (closable / name).chmod(0)
    for look in looks:
        assert f"missing or cannot be read: {base}" in answer_in(closable, look)
    assert answer_in(closable, clean) == "kept 0"
    (closable / name).chmod(0o700)
    assert [answer_in(closable, look) for look in looks] == ["ended 3.-.1700000000 -"] * 2
    assert answer_in(closable, clean).startswith("removed ")
    assert answer_in(closable, clean) == "absent 0"
    base.rmdir()
    assert answer_in(closable, clean) == "absent 0"
