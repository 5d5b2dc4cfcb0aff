"""The wheel in clean virtual environments: the command line alone, and the service as deploy/ installs it.

The service has PostgreSQL, and nginx with TLS. The test starts what the units start, with the environment of the
example. The only changes are paths, ports, accounts, passwords and the certificate.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from runners_project.server import main
from tests.support.environments import StubAccount
from tests.support.paths import ROOT
from tests.support.postgres import Postgres, find_postgres
from tests.support.processes import PATIENCE, cmdline, end, free_port, is_listening, start, wait_for
from tests.support.requirements import need

DEPLOY = ROOT / "deploy"
UNITS = ("autosubmit-runners", "autosubmit-runners-worker")
MANAGE = "autosubmit-runners-server"
PREFIX = "/opt/autosubmit-runners/"  # of the units
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:" + os.environ["PATH"])
SYSTEMD_ANALYZE = shutil.which("systemd-analyze")
# Of a unit, 0 to 100. Measured with systemd 252: 51, and 14 with the drop-in. Other versions count differently.
EXPOSURE, EXPOSURE_OF_SSH_ONLY = "60", "25"
PROFILE = "RUNNER_CONFIGURATION: {PROFILES: {HERE: {RUNNER_TYPE: LOCAL, MODULE_LOADER_TYPE: NO_MODULE}}}\n"
NGINX_FRAME = """
{user}
pid {folder}/nginx.pid;
error_log stderr;
daemon off;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  {servers}
}}
"""


@dataclass(frozen=True)
class Installed:
    """A virtual environment with the wheel, used from a directory outside of the checkout."""

    venv: Path
    cwd: Path
    env: dict[str, str]

    def __call__(self, program: str, *arguments: str, code: int = 0) -> str:
        """Execute a program of the environment. Return its output. AssertionError if it does not end with `code`."""
        argv = [str(self.venv / "bin" / program), *arguments]
        done = subprocess.run(
            argv, cwd=self.cwd, env=self.env, capture_output=True, text=True, check=False, timeout=90 * PATIENCE
        )
        assert done.returncode == code, f"{argv} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr


Install = Callable[..., Installed]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the tracked files: the checkout may be read-only, and may hold old builds."""
    source = tmp_path_factory.mktemp("source")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, timeout=60)
    pack = ["tar", "--create", "--null", "--files-from=-"]
    packed = subprocess.run(pack, cwd=ROOT, input=listed.stdout, capture_output=True, check=True, timeout=60)
    subprocess.run(["tar", "--extract"], cwd=source, input=packed.stdout, check=True, timeout=60)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(source / "dist")]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(source)], check=True, timeout=100 * PATIENCE)
    (found,) = (source / "dist").glob("*.whl")
    return found


@pytest.fixture(scope="module")
def install(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Install:
    """A function that installs the wheel with these extras into a new virtual environment, after `first`."""

    def install(extras: str = "", *, first: tuple[str, ...] = ()) -> Installed:
        folder = tmp_path_factory.mktemp("installed")
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True, timeout=60 * PATIENCE)
        pip = [str(folder / "venv/bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if first:
            subprocess.run([*pip, *first], check=True, timeout=150 * PATIENCE)
        subprocess.run([*pip, "--no-index", f"{wheel}{extras}"], check=True, timeout=60 * PATIENCE)
        cwd = folder / "work"
        cwd.mkdir()
        env = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
        return Installed(folder / "venv", cwd, {**env, "HOME": str(cwd)})

    return install


def test_the_wheel_alone_is_the_command_line_without_dependencies(install: Install) -> None:
    client = install()
    assert client("autosubmit-runners", "--help").startswith("usage: autosubmit-runners ")
    assert client("asr", "--help").startswith("usage: asr ")
    assert "complete -F _asr asr" in client("asr", "completion", "bash")  # from the files of the package
    assert "--wait" in client("autosubmit-runners", "run", "--help")  # from the bundled list of commands
    assert "AUTOSUBMIT_RUNNERS_URL" in client("autosubmit-runners", "status", "a000", code=2)
    assert "autosubmit-runners[server]" in client(MANAGE, "migrate", code=1)


@pytest.mark.parametrize("option", [["--bind", "127.0.0.1:9000"], ["--bind=127.0.0.1:9000"], ["-b127.0.0.1:9000"], []])
def test_a_given_address_replaces_the_default_one(monkeypatch: pytest.MonkeyPatch, option: list[str]) -> None:
    class Replaced(Exception):
        """What execv does: the process goes on as another program."""

    def execv(program: str, argv: list[str]) -> None:
        raise Replaced(argv)

    monkeypatch.setattr(os, "execv", execv)
    with pytest.raises(Replaced) as caught:
        main(["serve", *option])
    (argv,) = caught.value.args
    assert ("127.0.0.1:8000" in argv) == (not option)
    assert argv[len(argv) - len(option) :] == option


@pytest.mark.timeout(500)
def test_the_deployed_service_does_the_main_job(install: Install, account: StubAccount, tmp_path: Path) -> None:
    need(find_postgres(), "PostgreSQL")
    need(NGINX, "nginx")
    server = install("[server]", first=("--require-hashes", "-r", str(ROOT / "requirements.lock")))
    port, tls_port = free_port(), free_port()
    certificate, key = self_signed(tmp_path)
    with Postgres() as postgres, ExitStack() as stack:
        url = postgres.create("autosubmit_runners")
        server.env.update(environment_of_the_example(url))
        server.env.update(HOME=str(account.home), PATH=f"{account.programs}:{server.env['PATH']}")
        assert "no issues" in server(MANAGE, "check", "--deploy", "--fail-level=WARNING")
        server(MANAGE, "migrate", "--verbosity=0")
        (server.cwd / "profiles.yml").write_text(PROFILE)
        assert "HERE" in server(MANAGE, "import-profiles", "profiles.yml")
        assert "static files copied" in server(MANAGE, "collectstatic", "--no-input")
        words = server(MANAGE, "create-token", "ana", "--create-user").split()
        token = max((word for word in words if word.startswith("asr_")), key=len)  # the shorter one is cut

        units = {unit: start_unit(server, unit, port) for unit in UNITS}
        for process in units.values():
            stack.callback(end, process, patience=15)
        nginx = start(nginx_argv(tmp_path, port, tls_port, certificate, key), log=tmp_path / "nginx.log")
        stack.callback(end, nginx, patience=15)
        for what, where in (("the service", port), ("nginx", tls_port)):
            wait_for(partial(is_listening, where), 60, what=what)
        context = ssl.create_default_context(cafile=str(certificate))

        def read(path: str) -> str:
            address = f"https://localhost:{tls_port}{path}"
            with urllib.request.urlopen(address, timeout=30 * PATIENCE, context=context) as answer:
                return str(answer.read().decode())

        wait_for(lambda: json.loads(read("/readyz"))["watch_age"] is not None, 60, what="the watch")
        assert json.loads(read("/readyz"))["status"] == "ready"
        assert "pages.css" in read("/login")

        server.env.update(AUTOSUBMIT_RUNNERS_URL=f"https://localhost:{tls_port}", AUTOSUBMIT_RUNNERS_TOKEN=token)
        server.env.update(SSL_CERT_FILE=str(certificate))
        asr = partial(server, "autosubmit-runners")
        account.experiment("a000")
        assert "COMPLETED" in asr("run", "--profile=HERE", "a000", "--wait")

        # A restart ends the main process only (KillMode=process), and the run goes on.
        account.experiment("a001")
        account.control("run", "a001", SLEEP=300)
        asr("run", "--profile=HERE", "a001")
        wait_for(lambda: "ACTIVE" in asr("status", "a001", code=8), 30, what="the run")
        running = processes_of_the_run(account, "a001")
        units["autosubmit-runners"].terminate()
        units["autosubmit-runners"].wait(timeout=60 * PATIENCE)
        again = start_unit(server, "autosubmit-runners", port)
        stack.callback(end, again, patience=15)
        wait_for(partial(is_listening, port), 60, what="the service")
        assert "ACTIVE" in asr("status", "a001", code=8)
        assert processes_of_the_run(account, "a001") == running != set()
        assert "TERMINATED" in asr("stop", "a001")
    packages = next((server.venv / "lib").glob("*/site-packages"))  # nothing was written beside the code
    assert not [name for name in ("db.sqlite3", "staticfiles") if (packages / name).exists()]


def processes_of_the_run(account: StubAccount, expid: str) -> set[int]:
    """Return the processes of a run, and not those of a probe, which end at once."""
    return {pid for pid in account.processes() if f"\0run\0{expid}\0".encode() in cmdline(pid)}


def environment_of_the_example(database: str) -> dict[str, str]:
    """Return the variables of deploy/environment.example, with values of the test for those in angle brackets."""
    lines = (DEPLOY / "environment.example").read_text().splitlines()
    found = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert {name for name, value in found.items() if "<" in value} == {"SECRET_KEY", "DATABASE_URL"}
    found |= {"SECRET_KEY": secrets.token_urlsafe(50), "DATABASE_URL": database}
    found["SECURE_HSTS_SECONDS"] = "31536000"  # the example leaves it to the site; `check --deploy` wants it
    return {name: value.replace("runners.example.org", "localhost") for name, value in found.items()}


def setting_of(unit: str, name: str) -> str:
    """Return the value of a line of a unit."""
    (value,) = re.findall(rf"^{name}=(.+)$", (DEPLOY / f"systemd/{unit}.service").read_text(), re.MULTILINE)
    return str(value)


def start_unit(server: Installed, unit: str, port: int) -> subprocess.Popen[bytes]:
    """Start what systemd would start."""
    assert setting_of(unit, "KillMode") == "process"
    command = setting_of(unit, "ExecStart").replace(PREFIX, f"{server.venv}/").replace(":8000", f":{port}")
    return start(command.split(), log=server.cwd / f"{unit}.log", env=server.env, cwd=server.cwd)


def nginx_argv(folder: Path, port: int, tls_port: int, certificate: Path, key: Path) -> list[str]:
    """Return the command that starts nginx with deploy/nginx/, on this port for TLS."""
    servers = (DEPLOY / "nginx/autosubmit-runners.conf").read_text()
    redirect_port = free_port()
    for old, new in (
        ("    listen [::]:80;\n", ""),
        ("    listen [::]:443 ssl;\n", ""),
        ("listen 80;", f"listen 127.0.0.1:{redirect_port};"),
        ("listen 443 ssl;", f"listen 127.0.0.1:{tls_port} ssl;"),
        ("runners.example.org;", "localhost;"),
        ("/etc/ssl/certs/runners.example.org.pem", str(certificate)),
        ("/etc/ssl/private/runners.example.org.key", str(key)),
        ("127.0.0.1:8000", f"127.0.0.1:{port}"),
    ):
        assert old in servers
        servers = servers.replace(old, new)
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(NGINX_FRAME.format(user=user, folder=folder, servers=servers))
    return [str(NGINX), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]


def self_signed(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for localhost. Return its file and that of its key."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    argv += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*argv, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True, timeout=60)
    return certificate, key


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """A folder with the units. They name programs that exist: systemd-analyze looks for them."""
    for unit in UNITS:
        text = (DEPLOY / f"systemd/{unit}.service").read_text()
        text = text.replace(f"{PREFIX}bin/{MANAGE}", shutil.which("true") or "")
        (tmp_path / f"{unit}.service").write_text(text)
    shutil.copy(DEPLOY / "systemd/autosubmit-runners.socket", tmp_path)
    return tmp_path


def test_systemd_accepts_the_units(units: Path) -> None:
    need(SYSTEMD_ANALYZE, "systemd-analyze")
    files = [*(str(units / f"{unit}.service") for unit in UNITS), str(units / "autosubmit-runners.socket")]
    done = subprocess.run(
        [str(SYSTEMD_ANALYZE), "verify", "--man=no", *files], capture_output=True, text=True, check=False, timeout=60
    )
    complaints = [line for line in done.stderr.splitlines() if "autosubmit-runners" in line]
    assert (done.returncode, complaints) == (0, [])


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("is_ssh_only", [False, True])
def test_the_units_are_hardened(units: Path, unit: str, is_ssh_only: bool) -> None:
    need(SYSTEMD_ANALYZE, "systemd-analyze")
    if is_ssh_only:
        (units / f"{unit}.service.d").mkdir()
        shutil.copy(DEPLOY / "systemd/ssh-only/hardening.conf", units / f"{unit}.service.d")
    most = EXPOSURE_OF_SSH_ONLY if is_ssh_only else EXPOSURE
    argv = [str(SYSTEMD_ANALYZE), "security", "--offline=yes", f"--threshold={most}", str(units / f"{unit}.service")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr


def test_the_container_installs_as_the_test_does() -> None:
    text = (DEPLOY / "Containerfile").read_text()
    assert "--require-hashes -r /source/requirements.lock" in text
    assert "'/source[server]'" in text
    assert f'ENTRYPOINT ["{MANAGE}"]' in text
