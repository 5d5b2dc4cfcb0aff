"""Machines that do not let an account in for now: maintenance, an expired account. Real sshds, with PAM and without.

The message repeats the machine's own words and does not blame the service's keys or start-up files.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runners.exceptions import AuthenticationFailed, RunnerUnreachable
from runners.services.machines.ssh.pool import POOL
from tests.support.environments import StubAccount
from tests.support.requirements import need
from tests.support.servers import SSHServer, use
from tests.support.ssh import greet, make_key

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may give sshd other files of the machine"),
]

WORDS = "Maintenance until Monday. Questions to hpc@site.example"
UNSHARE = ["unshare", "--mount", "sh", "-c"]  # no fork: the server itself gets the TERM of its end


def replace_file(path: str, by: Path) -> list[str]:
    """Return the command in front of sshd that gives it, and only it, another file or directory at `path`."""
    return [*UNSHARE, mounts({path: by}), "sh"]


def mounts(files: dict[str, Path]) -> str:
    binds = "".join(f" && mount --bind {by} {path}" for path, by in files.items())
    return f'mount --make-rprivate /{binds} && exec "$@"'


@pytest.mark.parametrize("site_banner", [False, True], ids=["no banner", "a banner for everybody"])
def test_words_of_pam_are_repeated_and_the_keys_not_blamed(
    account: StubAccount, tmp_path: Path, settings: Any, make_sshd: Callable[..., SSHServer], site_banner: bool
) -> None:
    """As with pam_nologin and expired accounts: PAM rejects the account after sshd has accepted the key."""
    need(Path("/etc/pam.d/sshd").exists(), "PAM's file for sshd")
    said = tmp_path / "said"
    said.write_text(WORDS)
    pam = tmp_path / "pam"
    pam.write_text(
        f"auth required pam_permit.so\naccount required pam_echo.so file={said}\naccount required pam_deny.so\n"
        "session required pam_permit.so\n"
    )
    banner = tmp_path / "banner"
    banner.write_text("Authorized users only\n")
    options = {"UsePAM": "yes", **({"Banner": str(banner)} if site_banner else {})}
    sshd = make_sshd(account.home, options=options)
    sshd.stop()
    sshd.prefix = replace_file("/etc/pam.d/sshd", pam)
    sshd.start()
    with pytest.raises(AuthenticationFailed) as caught:
        greet(sshd)
    assert WORDS in caught.value.detail
    assert "authorized_keys" not in caught.value.detail


@pytest.mark.parametrize(
    ("entry", "error", "words"),
    [
        ("root:*:0:0:99999:7:::\n", RunnerUnreachable, "its password has expired. Log in by hand and change it"),
        ("root:*:19000:0:99999:7::19001:\n", AuthenticationFailed, "account has expired"),
    ],
    ids=["expired password", "expired account"],
)
def test_an_expired_password_or_account_of_pam_is_told_as_such(
    account: StubAccount,
    tmp_path: Path,
    make_sshd: Callable[..., SSHServer],
    entry: str,
    error: type[RunnerUnreachable],
    words: str,
) -> None:
    """The real pam_unix reads another /etc/shadow, in a mount namespace."""
    need(Path("/etc/pam.d/sshd").exists(), "PAM's file for sshd")
    pam, shadow = tmp_path / "pam", tmp_path / "shadow"
    pam.write_text("auth required pam_permit.so\naccount required pam_unix.so\nsession required pam_permit.so\n")
    shadow.write_text(entry)
    shadow.chmod(0o600)
    sshd = make_sshd(account.home, options={"UsePAM": "yes"})
    sshd.stop()
    sshd.prefix = [*UNSHARE, mounts({"/etc/pam.d/sshd": pam, "/etc/shadow": shadow}), "sh"]
    sshd.start()
    with pytest.raises(error, match=words) as caught:
        greet(sshd)
    assert "authorized_keys" not in caught.value.detail and "start-up file" not in caught.value.detail


def test_a_banner_is_repeated_where_keys_are_rejected(
    account: StubAccount, tmp_path: Path, make_sshd: Callable[..., SSHServer]
) -> None:
    banner = tmp_path / "banner"
    banner.write_text(f"\x1b[31m{WORDS}\n")
    sshd = make_sshd(account.home, options={"Banner": str(banner)})
    sshd.authorized = False
    with pytest.raises(AuthenticationFailed) as caught:
        greet(sshd)
    assert f"The server says: {'�'}[31m{WORDS}" in caught.value.detail
    assert "authorized_keys" in caught.value.detail


def test_too_many_keys_are_told_in_the_servers_words(
    account: StubAccount, tmp_path: Path, settings: Any, make_sshd: Callable[..., SSHServer]
) -> None:
    sshd = make_sshd(account.home, options={"MaxAuthTries": "2"})
    settings.RUNNERS_SSH_KEYS = [str(make_key(tmp_path / f"key{number}", "ed25519")) for number in range(3)]
    with pytest.raises(RunnerUnreachable, match=r"Too many authentication failures.*MaxAuthTries"):
        greet(sshd)


@pytest.fixture
def plain_account(settings: Any) -> Iterator[Callable[..., SSHServer]]:
    """Make a server for `nobody`, whose login shell is `nologin`. Other accounts cannot look into pytest's folders."""
    folder = Path(tempfile.mkdtemp(prefix="as-refusals-"))
    folder.chmod(0o755)
    servers: list[SSHServer] = []

    def make(prefix: list[str]) -> SSHServer:
        server = SSHServer(folder / "sshd", home=folder, user="nobody")
        server.prefix = prefix
        server.start()
        servers.append(server)
        use(server, settings)
        return server

    yield make
    POOL.close()
    for server in servers:
        server.stop()
    shutil.rmtree(folder, ignore_errors=True)


def test_a_machine_that_is_closed_for_logins_is_told_as_such(
    plain_account: Callable[..., SSHServer], tmp_path: Path
) -> None:
    etc = tmp_path / "etc"
    shutil.copytree("/etc", etc, symlinks=True, ignore=lambda folder, names: [n for n in names if n == "ssl"])
    (etc / "nologin").write_text(WORDS)
    (etc / "nologin").chmod(0o644)
    with pytest.raises(RunnerUnreachable) as caught:
        greet(plain_account(replace_file("/etc", etc)))
    assert "is closed for logins now (/etc/nologin)" in caught.value.detail
    assert WORDS in caught.value.detail
    assert "start-up file" not in caught.value.detail


def test_an_account_without_a_login_shell_is_told_as_such(plain_account: Callable[..., SSHServer]) -> None:
    need("nologin" in Path("/etc/passwd").read_text(), "an account with the shell nologin")
    with pytest.raises(RunnerUnreachable) as caught:
        greet(plain_account([]))
    assert "its login shell is `nologin`" in caught.value.detail
    assert "start-up file" not in caught.value.detail
