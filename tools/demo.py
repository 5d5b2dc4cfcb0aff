"""`make demo` and `make run`: this service with a real Autosubmit. All files are in the folder .demo.

    demo.py demo    set up, start a server, create and run an experiment through the API, print each request, stop
    demo.py run     set up, start a server, print its URL and login; runs until Ctrl-C

Needs .venv and .tools/autosubmit (the Makefile makes both). Standard library only. A second call reuses the folder.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".venv" / "bin" / "python"
AUTOSUBMIT_VENV = ROOT / ".tools" / "autosubmit"
PROFILE = "DEMO_LOCAL_VENV"
PATIENCE = 180  # seconds that the experiment's run may take; it needs about 6

PROFILES = f"""\
# Written by tools/demo.py: one profile, on this machine, with the Autosubmit of a virtual environment.
RUNNER_CONFIGURATION:
  PROFILES:
    {PROFILE}:
      RUNNER_TYPE: LOCAL
      MODULE_LOADER_TYPE: VENV
      MODULES: {AUTOSUBMIT_VENV}
"""

# Two jobs of one second, instead of a new experiment's eight jobs of `sleep 5`.
JOBS = """\
JOBS:
  HELLO:
    SCRIPT: "echo Hello from a job; sleep 1"
    RUNNING: once
  GOODBYE:
    SCRIPT: "echo Goodbye from a job; sleep 1"
    DEPENDENCIES: HELLO
    RUNNING: once
"""


class Failure(Exception):
    """An expected failure. The text is for the person who started this program."""


def say(text: str = "") -> None:
    print(text, flush=True)


def step(text: str) -> None:
    say(f"\n\033[1m==> {text}\033[0m" if sys.stdout.isatty() else f"\n==> {text}")


class Site:
    """A folder with everything of one installation: the home that commands run in, the database, the secret key."""

    def __init__(self, folder: Path, *, python: Path = PYTHON, env: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.server_program = [str(python), "-m", "runners_project.server"]
        self.directory = ROOT if python == PYTHON else folder  # where that module is found: the checkout, or the wheel
        self.home = folder / "home"
        self.database = folder / "db.sqlite3"
        self.profiles = folder / "profiles.yml"
        self.env = env or {}

    def environment(self) -> dict[str, str]:
        """Return the environment of the server. HOME makes LOCAL commands, and so Autosubmit, use this folder."""
        passed = ("PATH", "LANG", "LC_ALL", "TZ", "TERM")
        return {name: os.environ[name] for name in passed if name in os.environ} | {
            "HOME": str(self.home),
            "SECRET_KEY": kept_secret(self.folder / "secret_key"),
            "DATABASE_URL": f"sqlite:///{self.database}",
            "PYTHONUNBUFFERED": "1",  # so that logs can be read while they are written
            **self.env,
        }

    def prepare(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        if not PYTHON.exists() or not (AUTOSUBMIT_VENV / "bin" / "autosubmit").exists():
            raise Failure("Not installed yet. Use `make demo` or `make run`, which install first.")
        if not (self.home / "autosubmit" / "autosubmit.db").exists():
            step(f"Setting up Autosubmit in {shown(self.home)}")
            for command in ("configure", "install"):
                say(f"$ autosubmit {command}")
                self.check([str(AUTOSUBMIT_VENV / "bin" / "autosubmit"), command])
        step(f"Setting up the service in {shown(self.folder)}")
        self.profiles.write_text(PROFILES)
        self.manage("migrate", "--verbosity=0")
        self.manage("import_profiles", str(self.profiles))

    def manage(self, *args: str, env: dict[str, str] | None = None, quiet: bool = False) -> str:
        """Print and run a management command. Return its output."""
        say(f"$ autosubmit-runners-server {shlex.join(args)}")
        output = self.check([*self.server_program, *args], env)
        if output.strip() and not quiet:
            say(output.rstrip())
        return output

    def check(self, argv: list[str], env: dict[str, str] | None = None) -> str:
        done = subprocess.run(
            argv,
            cwd=self.home if argv[0].endswith("autosubmit") else self.directory,
            env=self.environment() | (env or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Failure(f"{shlex.join(argv)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def token(self) -> str:
        """Create and return an API token of the user `demo`, valid for a day."""
        return self.manage("create_token", "demo", "--create-user", "--days=1", "--name=make demo", quiet=True).strip()


class Background:
    """A process of the installation that lives as long as the `with` block."""

    def __init__(self, site: Site, name: str, *argv: str) -> None:
        self.site = site
        self.log = site.folder / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._argv = [*site.server_program, *argv]

    def __enter__(self) -> Self:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self._argv,
                cwd=self.site.directory,
                env=self.site.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def log_end(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])


class Watch(Background):
    """The worker, which detects the ends of runs and sends webhooks without any request."""

    def __init__(self, site: Site) -> None:
        super().__init__(site, "watch", "worker")


class Server(Background):
    """gunicorn with this service."""

    def __init__(self, site: Site, port: int) -> None:
        super().__init__(site, "server", "serve", "--timeout=600", f"--bind=127.0.0.1:{port}")
        self.url = f"http://127.0.0.1:{port}"

    def __enter__(self) -> Self:
        step(f"Starting the server on {self.url} (its log: {shown(self.log)})")
        super().__enter__()
        assert self.process
        deadline = time.monotonic() + 60
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.__exit__(None, None, None)
                raise Failure(f"The server did not start. The end of its log:\n{self.log_end()}")
            time.sleep(0.1)
        return self

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/openapi.json", timeout=30):  # noqa: S310
                return True
        except urllib.error.HTTPError as answer:
            raise Failure(f"The server answers with {answer.code}. The end of its log:\n{self.log_end()}") from answer
        except OSError:
            return False


class Client:
    """A client of the API that prints each call as an equivalent curl command."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self.token = token

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}

    def call(self, method: str, path: str, body: dict[str, Any] | None = None, *, quiet: bool = False) -> Any:
        data = None if body is None else json.dumps(body)
        if not quiet:
            say(self.as_curl(method, path, data))
        request = urllib.request.Request(  # noqa: S310
            self.url + path, data=data.encode() if data else None, method=method, headers=self.headers()
        )
        try:
            with urllib.request.urlopen(request, timeout=600) as response:  # noqa: S310
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            raise Failure(f"{method} {path} was answered with {error.code}:\n{error.read().decode()}") from error
        if not quiet:
            say(json.dumps(answer, indent=2, ensure_ascii=False))
        return answer

    def as_curl(self, method: str, path: str, data: str | None) -> str:
        words = ["$ curl", *([] if method == "GET" or data else ["-X", method]), self.url + path]
        words.append('-H "Authorization: Bearer $TOKEN"')
        if data:
            words.append(f"-H 'Content-Type: application/json' \\\n      -d {shlex.quote(data)}")
        return " ".join(words)


def demo() -> None:
    started = time.monotonic()
    site = Site(ROOT / ".demo")
    site.prepare()
    token = site.token()
    with Server(site, free_port()) as server:
        client = Client(server.url, token)
        step("What an admin has configured")
        client.call("GET", "/v4/runners/configuration/profiles")
        expid = create_experiment(client, site)
        step("Making its job list")
        client.call("POST", "/v4/runners/command/create-job-list", {"expid": expid, "profile_name": PROFILE})
        step("Running it")
        run = client.call("POST", "/v4/runners/command/run-experiment", {"expid": expid, "profile_name": PROFILE})
        try:
            status = watch(client, expid)
        except BaseException:
            say("Stopping the experiment")
            client.call("POST", "/v4/runners/command/stop-experiment", {"expid": expid, "force": True}, quiet=True)
            raise
        show_log(site)
        if (run["status"], status) != ("ACTIVE", "COMPLETED"):
            raise Failure(f"The run ended as {status}, expected was COMPLETED.")
        step("Stopping the server")
    say(f"Done in {time.monotonic() - started:.0f} s: {expid} was created, ran and completed through the API.")
    say()
    say("To explore further: `make run` starts this service with an admin login, the API's documentation and a token.")
    say(f"Everything is in {shown(site.folder)}/; `make clean` removes it.")


def create_experiment(client: Client, site: Site) -> str:
    step("Creating an experiment")
    params = {"description": "Made by make demo", "hpc": "local"}
    body = {"profile_name": PROFILE, "command_params": params}
    expid: str = client.call("POST", "/v4/runners/command/create-experiment", body)["expid"]
    folder = site.home / "autosubmit" / expid / "conf"
    step(f"Configuring it, as a scientist does with an editor: two short jobs in {shown(folder)}")
    (folder / f"jobs_{expid}.yml").write_text(JOBS)
    general = folder / f"autosubmit_{expid}.yml"
    general.write_text(re.sub(r"SAFETYSLEEPTIME:.*", "SAFETYSLEEPTIME: 1", general.read_text()))
    say(JOBS.rstrip())
    return expid


def watch(client: Client, expid: str) -> str:
    """Poll the status until the run has ended, and print each answer. Return the last status."""
    step("Asking for its status until it has ended")
    path, body = "/v4/runners/command/get-runner-run-status", {"expid": expid}
    say(client.as_curl("POST", path, json.dumps(body)))
    started = time.monotonic()
    while True:
        answer = client.call("POST", path, body, quiet=True)
        status: str = answer["status"]
        say(f"{time.monotonic() - started:5.1f} s  {status}  (pid {answer['pid']})")
        if status != "ACTIVE":
            say(json.dumps(answer, indent=2))
            return status
        if time.monotonic() - started > PATIENCE:
            raise Failure(f"The run has not ended within {PATIENCE} s.")
        time.sleep(1)


def show_log(site: Site) -> None:
    logs = sorted((site.home / ".autosubmit-runners").glob("*/log"), key=lambda path: path.stat().st_mtime)
    if logs:
        step(f"The end of the run's log ({shown(logs[-1])})")
        text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", logs[-1].read_text(errors="replace"))
        say("\n".join(line for line in text.splitlines()[-15:] if line.strip()))


def run() -> None:
    site = Site(ROOT / ".demo")
    site.prepare()
    password = kept_secret(site.folder / "admin_password", 12)
    login = {"DJANGO_SUPERUSER_PASSWORD": password}
    if not has_user(site, "admin"):
        site.manage("createsuperuser", "--noinput", "--username=admin", "--email=admin@localhost", env=login)
    token = site.token()
    wanted = int(os.environ.get("PORT", "8000"))
    with Server(site, wanted if is_free(wanted) else free_port()) as server, Watch(site) as watch:
        assert server.process
        say(f"Watching the runs beside it (its log: {shown(watch.log)})")
        step("The service is running. Ctrl-C ends it.")
        say(f"  start page          {server.url}/")
        say(f"  admin               {server.url}/admin/     login: admin   password: {password}")
        say(f"  API documentation   {server.url}/docs")
        say(f"  an API token        {token}   (of the user demo, for a day)")
        say("\nTo use the API as the README does, paste this line into another terminal:\n")
        say(f"export BASE_URL={server.url} TOKEN={token} PROFILE={PROFILE}")
        say(f"\nAutosubmit lives in {shown(site.home)}/autosubmit.")
        code = server.process.wait()
        raise Failure(f"The server ended by itself with {code}. The end of its log:\n{server.log_end()}")


def has_user(site: Site, name: str) -> bool:
    code = f"from django.contrib.auth import get_user_model as m; print(m().objects.filter(username={name!r}).exists())"
    return "True" in site.check([*site.server_program, "shell", "--verbosity=0", "-c", code])


def kept_secret(path: Path, size: int = 50) -> str:
    """Return a random text. It is created once and kept in a file that only its owner can read."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(size))
    return path.read_text()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def shown(path: Path) -> str:
    """Return a path, relative to ROOT if it is below."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def end_politely(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main() -> int:
    signal.signal(signal.SIGTERM, end_politely)
    try:
        {"demo": demo, "run": run}[sys.argv[1] if len(sys.argv) > 1 else "demo"]()
    except Failure as failure:
        print(f"\n{failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        say("\nStopped.")
        return 0 if sys.argv[1:] == ["run"] else 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
