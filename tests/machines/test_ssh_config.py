"""Our reading of OpenSSH's configuration equals the output of `ssh -G`, for many configurations."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path
from typing import Any

import pytest

from runners.exceptions import RunnerUnreachable
from runners.services.machines.ssh import config
from runners.services.machines.ssh.config import SSHHostOptions, lookup
from tests.support.processes import PATIENCE
from tests.support.servers import SSHServer
from tests.support.ssh import greet

HOME = pwd.getpwuid(os.getuid()).pw_dir

# Each entry is a configuration. The question is about host `h` as user `u` at port 2222, unless the file says
# otherwise. {d} is a folder with files to include.
CONFIGURATIONS = [
    "",
    "# only a comment",
    "Host h\n  HostName real.example.org",
    "Host h\n  HostName real.example.org # with a comment behind it",
    "Host h\n  HostName %h.example.org",
    "Host h\n  HostName=real.example.org",
    "Host h\n  HostName = real.example.org",
    'Host "h"\n  HostName "real.example.org"',
    "host h\n  hostname real.example.org",
    "Host h\n\tHostName\treal.example.org\r",
    "Host h g\n  HostName one\nHost h\n  HostName two",
    "Host h*\n  HostName starts-with-h",
    "Host ?\n  HostName one-letter",
    "Host * !h\n  HostName not-for-h",
    "Host !h *\n  HostName not-for-h",
    "Host g\n  HostName other\nHost *\n  HostName for-all",
    "HostName before-any-host",
    "Host h\n  Port 33",
    "Host h\n  User other",
    "Host h\n  HostKeyAlias cluster",
    "Host h\n  HostKeyAlias Cluster.Example",
    "Host h\n  ProxyJump gate",
    "Host h\n  ProxyJump me@gate:23",
    "Host h\n  ProxyJump ssh://me@gate:23",
    "Host h\n  ProxyJump gate,second:24",
    "Host h\n  ProxyJump [::1]:23",
    "Host h\n  ProxyJump none\nHost *\n  ProxyJump gate",
    "Host h\n  ProxyCommand none\nHost *\n  ProxyJump gate",
    "Host h\n  ProxyJump gate\nHost *\n  ProxyCommand none",
    "Host h\n  ProxyCommand nc %h %p",
    "Host h\n  ProxyCommand nc %h %p\nHost *\n  ProxyJump gate",
    "Host h\n  IdentityFile ~/.ssh/one\n  IdentityFile /two",
    'Host h\n  IdentityFile "/a b/c"',
    "Host h\n  IdentityFile ~/.ssh/%h_%r_%p",
    "Host h\n  IdentityFile %d/%u-%n-%%",
    "Host h\n  IdentityFile ${HOME}/key",
    "Host h\n  IdentityFile ${NO_SUCH_VARIABLE_HERE}/key",
    "Host h\n  IdentityFile none",
    "Host h\n  IdentitiesOnly yes\n  IdentityFile /only",
    "Host h\n  CertificateFile ~/.ssh/id-cert.pub",
    "Host h\n  CertificateFile /a-cert.pub\n  CertificateFile /b-cert.pub",
    "Host h\n  IdentityAgent none",
    "Host h\n  IdentityAgent ~/agent.sock",
    "Host h\n  IdentityAgent SSH_AUTH_SOCK",
    "Host h\n  UserKnownHostsFile none",
    "Host h\n  UserKnownHostsFile /dev/null",
    "Host h\n  UserKnownHostsFile ~/kh_%h /kh2",
    'Host h\n  UserKnownHostsFile "/a b" /c',
    "Host h\n  UserKnownHostsFile ~/kh_%k_%r",
    "Host h\n  GlobalKnownHostsFile /etc/site_hosts /etc/more_hosts",
    "Host h\n  HostKeyAlgorithms ssh-ed25519,rsa-sha2-512",
    "Host h\n  HostKeyAlgorithms -ssh-ed25519*",
    "Host h\n  HostKeyAlgorithms ^ecdsa-sha2-nistp256",
    "Host h\n  PubkeyAcceptedAlgorithms ssh-ed25519",
    "Host h\n  PubkeyAcceptedKeyTypes +ssh-rsa",
    "Host h\n  ConnectTimeout 7",
    "Host h\n  ConnectTimeout 2m",
    "Host h\n  AddressFamily inet",
    "Host h\n  AddressFamily inet6",
    "Host h\n  BindAddress 127.0.0.3",
    "Match host h\n  HostName matched",
    "Match host g\n  HostName not-matched",
    "Match all\n  HostName matched",
    "Match user u\n  HostName by-user",
    "Match user other\n  HostName not-by-user",
    "Match originalhost h\n  HostName by-original",
    "Match !originalhost h\n  HostName not-by-original",
    "Match originalhost h user u\n  HostName both",
    "Host h\n  HostName final.example.org\nMatch final host final.example.org\n  HostKeyAlias final",
    "Match final all\n  HostKeyAlias final",
    "Match canonical host h\n  HostName canonical",
    "Match localuser nobody-here\n  HostName not-local",
    "Include {d}/one",
    "Include {d}/*",
    "Include {d}/missing",
    "Host g\n  Include {d}/one\nHost h\n  Port 5",
    "Host h\n  Include {d}/one\n  Port 5",
    "Host g\n  Include {d}/for_h\nHost *\n  HostName last",
    "Include {d}/nested",
    "Host h\n  StrictHostKeyChecking no\n  ForwardAgent yes",
    "Host h\n  KnownHostsCommand /bin/false",
    "Host h\n  PKCS11Provider /lib/card.so",
    "Host h\n  CanonicalizeHostname yes\n  CanonicalDomains invalid",
    "Host h\n  GSSAPIAuthentication yes\n  SendEnv LANG",
    "Host h\n  Port many",
    "Host h\n  NoSuchOption yes",
    'Host "h\n  Port 1',
    "Match nosuch h\n  Port 1",
    "Host h\n  ProxyJump me@",
]


@pytest.fixture
def file(tmp_path: Path, settings: Any) -> Path:
    folder = tmp_path / "included"
    folder.mkdir()
    (folder / "one").write_text("HostName from-one\n")
    (folder / "for_h").write_text("Host h\n  HostName from-for-h\n")
    (folder / "nested").write_text(f"Include {folder}/one\n")
    settings.RUNNERS_SSH_CONFIG = str(tmp_path / "config")
    return tmp_path / "config"


def openssh(file: Path) -> dict[str, list[str]] | None:
    """Return what `ssh -G` prints about `h`, or None for an error."""
    argv = ["ssh", "-G", "-T", "-F", str(file), "-l", "u", "h"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20 * PATIENCE, check=False)
    if done.returncode:
        return None
    said: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        name, _, value = line.partition(" ")
        said.setdefault(name, []).append(value)
    return said


def test_there_are_enough_configurations() -> None:
    assert len(set(CONFIGURATIONS)) >= 80


@pytest.mark.parametrize("text", CONFIGURATIONS)
def test_as_ssh_says(file: Path, tmp_path: Path, text: str) -> None:
    file.write_text(text.replace("{d}", str(tmp_path / "included")) + "\n")
    found = lookup("h", "u")
    said = openssh(file)
    if said is None:
        assert str(file) in found.problem
        return
    one = {name: values[0] for name, values in said.items()}
    if "proxycommand" in one:
        assert "ProxyCommand" in found.problem
        return
    assert found.problem == ""
    assert (found.hostname, str(found.port), found.user) == (one["hostname"], one["port"], one["user"])
    assert found.proxy_jump == one.get("proxyjump")
    assert found.host_key_alias == one.get("hostkeyalias", "")
    assert found.identities_only == (one["identitiesonly"] == "yes")
    assert found.address_family == one["addressfamily"]
    assert found.bind_address == one.get("bindaddress", "")
    assert str(found.connect_timeout or "none") == one["connecttimeout"]
    assert ",".join(found.host_key_algorithms) == one["hostkeyalgorithms"]
    assert ",".join(found.pubkey_accepted_algorithms) == one["pubkeyacceptedalgorithms"]
    for files, name in ((found.user_known_hosts_files, "user"), (found.global_known_hosts_files, "global")):
        assert (" ".join(files) or "none") == one[f"{name}knownhostsfile"]
    if "IdentityFile" not in text and "CertificateFile" not in text:
        assert [name.replace(HOME, "~") for name in found.identity_files] == said["identityfile"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("IdentityFile ~/one\nIdentityFile /two", {"identity_files": (f"{HOME}/one", "/two")}),
        ('IdentityFile "/a b/c"', {"identity_files": ("/a b/c",)}),
        ("IdentityFile ~/%h_%r_%p_%n_%%", {"identity_files": (f"{HOME}/real_u_22_h_%",)}),
        ("IdentityFile %d/x", {"identity_files": (f"{HOME}/x",)}),
        ("IdentityFile none", {"identity_files": ()}),
        ("CertificateFile ~/c.pub", {"certificate_files": (f"{HOME}/c.pub",)}),
        ('UserKnownHostsFile "/a b" /c', {"user_known_hosts_files": ("/a b", "/c")}),
        ("UserKnownHostsFile none", {"user_known_hosts_files": ()}),
        ("IdentityAgent none", {"identity_agent": "none"}),
        ("IdentityAgent ~/agent", {"identity_agent": f"{HOME}/agent"}),
        ("IdentityAgent SSH_AUTH_SOCK", {"identity_agent": None}),
        ("PKCS11Provider /lib/card.so", {"ignored": ("PKCS11Provider /lib/card.so",)}),
    ],
)
def test_values_that_ssh_does_not_expand_or_separate(file: Path, text: str, expected: dict[str, Any]) -> None:
    file.write_text(f"Host h\n  HostName real\n  {text}\n".replace("\nI", "\n  I"))
    found = lookup("h", "u")
    assert {name: getattr(found, name) for name in expected} == expected


def test_an_unsupported_token_of_the_ssh_configuration_is_named(file: Path) -> None:
    file.write_text("Host h\n  IdentityFile /keys/%C\n  IdentityFile /keys/plain\n")
    found = lookup("h", "u")
    assert found.identity_files == ("/keys/plain",)
    assert "/keys/%C" in found.ignored[0]


@pytest.mark.parametrize("how", ["Match exec", "match !exec", 'Match host h "exec"', "  MATCH\tEXEC", '"Match" exec'])
def test_no_command_of_a_file_runs(file: Path, tmp_path: Path, settings: Any, how: str) -> None:
    proof = tmp_path / "was executed"
    file.write_text(f"{how} \"touch '{proof}'\"\n  User root\n")
    found = lookup("h", "u")
    assert "Match exec" in found.problem and "RUNNERS_SSH_MATCH_EXEC" in found.problem
    assert not proof.exists()


def test_no_command_of_an_included_file_runs(file: Path, tmp_path: Path) -> None:
    proof = tmp_path / "was executed"
    (tmp_path / "included" / "exec").write_text(f'Match exec "touch {proof}"\n')
    file.write_text(f"Host g\n  Include {tmp_path}/included/ex*\n")
    assert "Match exec" in lookup("h", "u").problem
    assert not proof.exists()


def test_no_command_runs_even_if_the_file_changes_after_the_check(file: Path, tmp_path: Path) -> None:
    proof = tmp_path / "was executed"
    file.write_text(f'Match exec "touch {proof}"\n  Port 99\n')
    assert ("port", "22") in config._ssh_g(["-F", str(file), "h"])
    assert not proof.exists()


def test_match_exec_can_be_allowed_by_a_setting(file: Path, settings: Any) -> None:
    settings.RUNNERS_SSH_MATCH_EXEC = True
    file.write_text('Match exec "test %h = h"\n  Port 99\n')
    assert (lookup("h").port, lookup("g").port) == (99, 22)


@pytest.mark.parametrize(("text", "user"), [("", None), (f"User {pwd.getpwuid(os.getuid()).pw_name}", "said")])
def test_the_own_account_is_a_user_only_where_the_file_says_so(file: Path, text: str, user: str | None) -> None:
    file.write_text(f"Host h\n  HostName x\n  {text}\n")
    assert lookup("h").user == (user and pwd.getpwuid(os.getuid()).pw_name)


def test_without_ssh_the_error_says_what_to_install(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(file.parent))
    assert "openssh-client" in lookup("h").problem


def test_an_ssh_process_that_does_not_answer_is_abandoned(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = file.parent / "ssh"
    fake.write_text("#!/bin/sh\nexec sleep 60\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{file.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(config, "TIMEOUT", 0.2)
    assert "did not answer" in lookup("h").problem


def test_a_path_that_is_not_a_file_is_named(file: Path) -> None:
    os.mkfifo(file)
    assert f"{file} is not a file" in lookup("h").problem


def test_the_cache_of_host_lookups_is_bounded(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "CACHED_HOSTS", 3)
    assert all(isinstance(lookup(f"h{number}", "u"), SSHHostOptions) for number in range(6))
    assert len(config._cache) == 3


@pytest.mark.django_db
def test_host_key_algorithms_are_honoured(sshd: SSHServer, file: Path) -> None:
    file.write_text("Host *\n  HostKeyAlgorithms ssh-ed25519\n")
    assert greet(sshd) == "hello"
    file.write_text("Host *\n  HostKeyAlgorithms rsa-sha2-512\n")  # the server has no such host key
    with pytest.raises(RunnerUnreachable):
        greet(sshd)
    file.write_text("Host *\n  HostKeyAlgorithms sk-ssh-ed25519@openssh.com\n")
    with pytest.raises(RunnerUnreachable, match="HostKeyAlgorithms"):
        greet(sshd)
