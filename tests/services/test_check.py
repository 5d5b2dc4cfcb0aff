"""The staged connection test, against a real sshd. Each stage fails in its own way and says what to do."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from profiles.config import RunnerConfig
from runners.commands.installation import NO_EXPERIMENT
from runners.services import check as checking
from runners.services.check import NETWORK, STAGES, Stage, check_profile
from runners.services.machines.ssh.pool import POOL
from runners.services.machines.ssh.target import SSHTarget
from tests.support.environments import NEWEST, StubAccount, autosubmit_venv
from tests.support.processes import free_port, wait_for
from tests.support.requirements import need
from tests.support.servers import SSHServer

pytestmark = pytest.mark.django_db

NO_MODULE = "NO_MODULE"


def check(config: RunnerConfig) -> dict[str, Stage]:
    stages = list(check_profile(config))
    assert [stage.name for stage in stages] == list(STAGES)
    assert all(stage.title and stage.detail and stage.milliseconds >= 0 for stage in stages)
    assert all(stage.remedy for stage in stages if stage.ok is False)
    return {stage.name: stage for stage in stages}


def oks(stages: dict[str, Stage]) -> dict[str, bool | None]:
    return {name: stage.ok for name, stage in stages.items()}


def only_failure(stages: dict[str, Stage], name: str, *, then: bool | None = None) -> Stage:
    """Check that only the stage `name` fails: all before it are good, all after it are `then` or None (not tried)."""
    names = list(STAGES)
    place = names.index(name)
    before = [stages[n].ok for n in names[:place] if n != "module_loader"]
    assert before == [True] * len(before), stages
    assert stages[name].ok is False, stages
    assert {stages[n].ok for n in names[place + 1 :]} <= {then, None}, stages
    return stages[name]


@pytest.fixture
def remote(sshd: SSHServer) -> RunnerConfig:
    return sshd.config()


def at(config: RunnerConfig, **changes: Any) -> RunnerConfig:
    assert config.target
    return replace(config, target=replace(config.target, **changes))


# --- success ----------------------------------------------------------------------------------------------------------


def test_every_stage_is_good_with_every_loader(config: RunnerConfig, account: StubAccount) -> None:
    stages = check(config)
    tried = {name for name in STAGES if config.target.host or name not in (*NETWORK, "survives_logout")}
    if config.module_loader_type == NO_MODULE:
        tried.remove("module_loader")
    assert oks(stages) == {name: True if name in tried else None for name in STAGES}, stages
    assert stages["autosubmit"].detail == "Autosubmit 4.1.17.1"
    assert str(account.home) in stages["run_directory"].detail
    assert stages["autosubmit"].milliseconds > 0
    assert account.calls() == [["-v"], ["describe", NO_EXPERIMENT]]


def test_nothing_is_left_behind(remote: RunnerConfig, account: StubAccount, sshd: SSHServer) -> None:
    check(remote)
    assert not list((account.home / ".autosubmit-runners").iterdir())
    wait_for(lambda: not account.processes(), what="end of the process that was started")
    wait_for(lambda: sshd.open_connections() == 0, what="end of the check's connections")
    assert POOL.count() == 0  # the check used its own connections


def test_the_machine_removes_files_that_a_check_could_not_remove(
    remote: RunnerConfig, account: StubAccount, sshd: SSHServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "LIFETIME", 2)
    stages = check_profile(remote)
    while next(stages).name != "run_directory":
        pass
    sshd.authorized = False
    (last,) = stages
    assert (last.name, last.ok) == ("survives_logout", False)
    assert "rejected the service's keys" in last.detail
    runs = account.home / ".autosubmit-runners"
    assert list(runs.iterdir())  # the directory still exists
    wait_for(lambda: not list(runs.iterdir()), what="the end of its directory")
    wait_for(lambda: not account.processes(), what="end of the process that was started")


def test_a_check_that_nobody_watches_to_the_end_closes_its_connection(remote: RunnerConfig, sshd: SSHServer) -> None:
    for last in ("connect", "login_shell"):
        stages = check_profile(remote)
        while next(stages).name != last:
            pass
        stages.close()  # type: ignore[attr-defined]
        wait_for(lambda: sshd.open_connections() == 0, what="end of the check's connections")


def test_stages_come_as_soon_as_they_are_known(remote: RunnerConfig, sshd: SSHServer) -> None:
    stages = check_profile(remote)
    assert next(stages).name == "resolve"
    assert sshd.open_connections() == 0
    list(stages)


# --- the network ------------------------------------------------------------------------------------------------------


def test_an_unknown_host_name_fails_at_resolve(remote: RunnerConfig) -> None:
    stage = only_failure(check(at(remote, host="no-such-host.invalid")), "resolve")
    assert "no-such-host.invalid" in stage.detail
    assert "SSH.HOST" in stage.remedy


def test_a_port_that_is_closed(remote: RunnerConfig) -> None:
    stage = only_failure(check(at(remote, port=free_port())), "connect")
    assert "connection refused" in stage.detail
    assert "SSH.PORT" in stage.remedy


def test_a_machine_that_hangs(remote: RunnerConfig, sshd: SSHServer, settings: Any) -> None:
    settings.RUNNERS_CONNECT_TIMEOUT = 1.0
    with sshd.frozen():
        stage = only_failure(check(remote), "connect")
    assert "no answer within 1 s" in stage.detail
    assert 900 <= stage.milliseconds < 10_000


def test_a_host_key_that_nobody_has_approved(remote: RunnerConfig, sshd: SSHServer) -> None:
    sshd.forget_host_key()
    stage = only_failure(check(remote), "host_key")
    assert "is not known" in stage.detail
    assert "approve" in stage.remedy
    assert stage.facts["fingerprint"] == sshd.host_key_fingerprint


def test_a_host_key_that_has_changed(remote: RunnerConfig, sshd: SSHServer) -> None:
    trusted = sshd.host_key_fingerprint
    sshd.swap_host_key()
    stage = only_failure(check(remote), "host_key")
    assert "has changed" in stage.detail
    assert (stage.facts["trusted_fingerprint"], stage.facts["fingerprint"]) == (trusted, sshd.host_key_fingerprint)
    assert "replace" in stage.remedy


def test_a_key_that_is_refused(remote: RunnerConfig, sshd: SSHServer) -> None:
    sshd.authorized = False
    stage = only_failure(check(remote), "authenticate")
    assert "rejected the service's keys" in stage.detail
    assert "authorized_keys" in stage.remedy


def test_an_open_connection_does_not_hide_that_the_key_is_refused_now(remote: RunnerConfig, sshd: SSHServer) -> None:
    check(remote)
    sshd.authorized = False
    only_failure(check(remote), "authenticate")


def test_a_machine_behind_a_jump_host(remote: RunnerConfig, sshd: SSHServer, tmp_path: Path, settings: Any) -> None:
    assert remote.target
    file = tmp_path / "ssh_config"
    jump = f"{sshd.user}@127.0.0.1:{sshd.port}"
    # The destination is named localhost: for ssh, the same user, address and port would be a loop.
    with sshd.known_hosts.open("a") as known:
        known.write(sshd.known_hosts.read_text().replace("127.0.0.1", "localhost"))
    file.write_text(
        f"Host inside\n  HostName localhost\n  ProxyJump {jump}\nHost lost\n  ProxyJump no-such-host.invalid\n"
    )
    settings.RUNNERS_SSH_CONFIG = str(file)
    stages = check(at(remote, host="inside"))
    assert False not in oks(stages).values(), stages
    assert "127.0.0.1 is at 127.0.0.1" in stages["resolve"].detail
    assert "no-such-host.invalid" in only_failure(check(at(remote, host="lost")), "resolve").detail


# --- the machine ------------------------------------------------------------------------------------------------------


@pytest.fixture
def home(account: StubAccount) -> Any:
    """Yield the account's home, and restore its profile script afterwards."""
    profile = account.home / ".bash_profile"
    text = profile.read_text()
    yield account.home
    profile.write_text(text)


def test_an_account_that_may_not_run_commands(make_sshd: Callable[..., SSHServer], account: StubAccount) -> None:
    server = make_sshd(account.home, options={"ForceCommand": "echo This account is closed.; exit 1"})
    stage = only_failure(check(server.config()), "login_shell")
    assert "This account is closed." in stage.detail


def test_a_login_shell_that_prints_is_reported_and_harmless(remote: RunnerConfig, home: Path) -> None:
    profile = home / ".bash_profile"
    profile.write_text(profile.read_text() + "echo 'Welcome to the machine'; echo 'mind the gap' >&2\n")
    stages = check(remote)
    assert False not in oks(stages).values(), stages
    assert "Welcome to the machine" in stages["login_shell"].detail
    assert "mind the gap" in stages["login_shell"].detail


def test_a_login_shell_that_exits(remote: RunnerConfig, home: Path) -> None:
    (home / ".bash_profile").write_text("echo no shells today; exit 3\n")
    stage = only_failure(check(remote), "login_shell")
    assert "no shells today" in stage.detail
    assert ".bash_profile" in stage.remedy


@pytest.mark.parametrize(
    ("loader", "modules", "words"),
    [
        ("VENV", ("/no/such/venv",), "no virtual environment at /no/such/venv"),
        ("CONDA", ("no-such-environment",), "no-such-environment"),
        ("LMOD", ("no-such-module",), "no-such-module"),
    ],
    ids=["VENV", "CONDA", "LMOD"],
)
def test_a_module_that_is_missing(sshd: SSHServer, loader: str, modules: tuple[str, ...], words: str) -> None:
    stages = check(sshd.config(loader, modules))
    stage = stages["module_loader"]
    assert stage.ok is False
    assert words in stage.detail
    assert "MODULES" in stage.remedy
    assert stages["autosubmit"].ok is None
    assert stages["run_directory"].ok is stages["survives_logout"].ok is True  # these stages are checked nevertheless


def test_autosubmit_that_is_missing(remote: RunnerConfig, home: Path) -> None:
    (home / ".bash_profile").write_text("PATH=/usr/bin:/bin\n")
    stages = check(remote)
    assert stages["autosubmit"].ok is False
    assert stages["autosubmit"].detail == "autosubmit: not found in the login environment"
    assert stages["run_directory"].ok is True


@pytest.mark.real
@pytest.mark.timeout(200)
def test_an_account_without_autosubmitrc_or_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real Autosubmit: `autosubmit -v` succeeds without them, but each command fails."""
    place = autosubmit_venv(NEWEST)
    need(place.is_dir(), "Autosubmit")
    monkeypatch.setenv("HOME", str(tmp_path))
    config = RunnerConfig("LOCAL", "VENV", (str(place),))
    stages = check(config)
    assert stages["autosubmit"].ok is True
    assert stages["installation"].ok is False
    assert "autosubmitrc" in stages["installation"].detail and "`autosubmit configure`" in stages["installation"].remedy
    program = str(place / "bin" / "autosubmit")
    subprocess.run([program, "configure"], env={**os.environ, "HOME": str(tmp_path)}, check=True, cwd=tmp_path)
    stages = check(config)
    assert "database" in stages["installation"].detail and "`autosubmit install`" in stages["installation"].remedy
    subprocess.run([program, "install"], env={**os.environ, "HOME": str(tmp_path)}, check=True, cwd=tmp_path)
    assert check(config)["installation"].ok is True


def test_an_autosubmit_that_fails(remote: RunnerConfig, home: Path, tmp_path: Path) -> None:
    broken = tmp_path / "bin" / "autosubmit"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho ImportError: no module named autosubmit >&2\nexit 1\n")
    broken.chmod(0o755)
    (home / ".bash_profile").write_text(f"PATH={shlex.quote(str(broken.parent))}:/usr/bin:/bin\n")
    assert "ImportError" in check(remote)["autosubmit"].detail


def test_a_run_directory_that_cannot_be_written(remote: RunnerConfig, account: StubAccount) -> None:
    blocker = account.home / ".autosubmit-runners"
    blocker.write_text("in the way, for root, too\n")
    try:
        stages = check(remote)
    finally:
        blocker.unlink()
    assert oks(stages)["autosubmit"] is True
    stage = only_failure(stages, "run_directory")
    assert "File exists" in stage.detail
    assert ".autosubmit-runners" in stage.remedy


def test_a_machine_that_kills_processes_at_logout(make_sshd: Callable[..., SSHServer], account: StubAccount) -> None:
    """systemd-logind does this with KillUserProcesses=yes. Here a forced command ends the processes that it leaves."""
    script = account.home / "kill-user-processes"
    script.write_text(
        f"""#!/bin/bash
/bin/sh -c "$SSH_ORIGINAL_COMMAND"; code=$?
for file in $(grep -lsaz AUTOSUBMIT_RUNNERS_KEY= /proc/[0-9]*/environ); do
  grep -qsazxF 'HOME={account.home}' "$file" && pid=${{file#/proc/}} && kill -KILL "${{pid%/environ}}" 2>/dev/null
done
exit $code
"""
    )
    script.chmod(0o755)
    server = make_sshd(account.home, options={"ForceCommand": str(script)})
    try:
        stage = only_failure(check(server.config()), "survives_logout")
    finally:
        script.unlink()
    assert "killed it when the connection was closed" in stage.detail
    assert f"loginctl enable-linger {server.user}" in stage.remedy


def test_a_target_without_a_user_is_rejected_at_the_login(remote: RunnerConfig, sshd: SSHServer) -> None:
    config = replace(remote, target=SSHTarget("127.0.0.1", sshd.port, "nobody-of-that-name"))
    assert "nobody-of-that-name" in only_failure(check(config), "authenticate").detail
