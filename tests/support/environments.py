"""The account that runs the commands: a home with Autosubmit in a venv, as a module and in a conda environment.

    account = Account(folder, programs=folder_with_autosubmit)
    account.home                        its HOME: a temporary folder
    account.modules(loader_type)        the MODULES for that loader, e.g. ("autosubmit",) for LMOD
    account.config(loader_type)         RunnerConfig for LOCAL; `sshd.config(loader_type, account.modules(...))` for SSH
    account.processes(), .kill()        the processes that still run with this HOME

`StubAccount` has the stand-in `tests/bin/autosubmit`, `AutosubmitAccount` the real one. All four loaders find it: on
the login PATH (`NO_MODULE`), in `~/venvs/autosubmit`, as module `autosubmit` and as conda environment `autosubmit`.
Lmod is Debian's real one. conda is real if tools/conda could make it, else a stand-in: see `conda_kind`.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import string
import subprocess
import venv
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from profiles.config import RunnerConfig
from tests.support.paths import ROOT
from tests.support.processes import PATIENCE, is_alive, kill_all, wait_for, with_environment

STUB = ROOT / "tests" / "bin"
NEWEST = "4.1.17.1"
AUTOSUBMIT_VENV = ROOT / ".tools" / "autosubmit"  # has NEWEST, made by tools/autosubmit-venv
REAL_CONDA = ROOT / ".tools" / "conda"  # made by tools/conda
LMOD_INITS = ("/usr/share/lmod/lmod/init/bash", "/opt/apps/lmod/lmod/init/bash", "/usr/share/lmod/init/bash")


def autosubmit_venv(version: str) -> Path:
    """Return the directory into which `tools/autosubmit-venv VERSION` installs."""
    return AUTOSUBMIT_VENV if version == NEWEST else AUTOSUBMIT_VENV.with_name(f"autosubmit-{version}")


def find_lmod() -> str | None:
    return next((place for place in LMOD_INITS if Path(place).is_file()), None)


class LmodTree:
    """Modules for the real Lmod. `hello/1.0` sets HELLO; `second/2.0` sets SECOND to HELLO, which shows the order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("hello", "1.0", 'setenv("HELLO", "hello from a module")')
        self.write("second", "2.0", 'setenv("SECOND", os.getenv("HELLO") or "hello was not loaded")')
        self.write("chatty", "1.0", 'LmodMessage("this module talks")\nsetenv("CHATTY", "1")')

    def write(self, name: str, version: str, text: str) -> None:
        file = self.folder / name / f"{version}.lua"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
        # Lmod skips files that are not world-readable, and the service's umask (runners_project/private.py) is 077.
        file.chmod(0o644)
        for folder in (file.parent, self.folder):
            folder.chmod(0o755)

    def profile(self) -> str:
        """Return lines for ~/.bash_profile. On Debian, /etc/profile.d/lmod.sh has already defined `module`."""
        init = find_lmod()
        source = f"type module >/dev/null 2>&1 || . '{init}'\n" if init else ""
        return source + f"export MODULEPATH='{self.folder}'${{MODULEPATH:+:$MODULEPATH}}\n"


def conda_kind() -> str:
    """Return the kind of conda of the accounts, for the ids of tests: "real" or "stand-in".

    No package registry has a conda that can be installed everywhere, so `tools/conda` makes one where possible.
    """
    return "real" if (REAL_CONDA / "bin" / "conda").exists() else "stand-in"


def loader_id(loader: str) -> str:
    """Return the id of a loader in parametrized tests."""
    return f"CONDA-{conda_kind()}" if loader == "CONDA" else str(loader)


def install_conda(root: Path) -> None:
    """Install conda at `root`. A real one is a link: all accounts share its files but have their own environments."""
    if conda_kind() == "real":
        root.symlink_to(REAL_CONDA)
    else:
        fake_conda(root)


def fake_conda(root: Path) -> None:
    """Create a STAND-IN for conda at `root`, for machines where a real one cannot be made.

    It supports `conda shell.posix hook` and, by the function that the hook defines, `conda activate ENV`. Shell text,
    exit codes and errors are like conda's, including the activation of `base` in the hook. It supports nothing else.
    """
    (root / "bin").mkdir(parents=True)
    (root / "conda-meta").mkdir()
    (root / "conda-meta" / "history").touch()
    conda = root / "bin" / "conda"
    conda.write_text(_CONDA.replace("@ROOT@", str(root)))
    conda.chmod(0o755)


def conda_environment(home: Path, name: str, programs: Path) -> Path:
    """Make the environment `name` with `programs` as its bin folder, in the folder for users of a shared conda.

    An environment is a folder with the file `conda-meta/history`. Source: conda's PREFIX_MAGIC_FILE.
    """
    prefix = home / ".conda" / "envs" / name
    (prefix / "conda-meta").mkdir(parents=True)
    (prefix / "conda-meta" / "history").touch()
    (prefix / "bin").symlink_to(programs)
    return prefix


class Account:
    """A HOME in which all four module loaders find the programs of one folder."""

    def __init__(self, folder: Path, *, programs: Path, venv_path: Path | None = None) -> None:
        self.home = folder
        self.programs = programs
        self.conda_root = folder / "miniforge3"
        self.venv = folder / "venvs" / "autosubmit"
        folder.mkdir(parents=True, exist_ok=True)
        self.lmod = LmodTree(folder / "modulefiles")
        self.lmod.write("autosubmit", "4.1.17", f'prepend_path("PATH", "{programs}")')
        install_conda(self.conda_root)
        self.conda_environment = conda_environment(folder, "autosubmit", programs)
        self._make_venv(venv_path)
        (folder / "bin").mkdir()
        (folder / "bin" / "autosubmit").symlink_to(programs / "autosubmit")
        (folder / ".bash_profile").write_text(self.lmod.profile() + 'export PATH="$HOME/bin:$PATH"\n')

    def _make_venv(self, existing: Path | None) -> None:
        self.venv.parent.mkdir()
        if existing:
            self.venv.symlink_to(existing)
            return
        venv.create(self.venv, with_pip=False, symlinks=True)
        for program in self.programs.iterdir():
            (self.venv / "bin" / program.name).symlink_to(program)

    def modules(self, loader: str) -> tuple[str, ...]:
        return {
            "NO_MODULE": (),
            "VENV": (str(self.venv),),
            "LMOD": ("autosubmit",),
            "CONDA": ("autosubmit",),
        }[loader]

    def config(self, loader: str = "NO_MODULE") -> RunnerConfig:
        return RunnerConfig("LOCAL", loader, self.modules(loader))

    def processes(self) -> list[int]:
        """Return the living processes that were started with this HOME, except our own servers."""
        servers = {os.getpid(), *with_environment("DJANGO_SETTINGS_MODULE", "runners_project.settings")}
        return [pid for pid in with_environment("HOME", str(self.home)) if is_alive(pid) and pid not in servers]

    def kill(self) -> None:
        """End everything that still runs with this HOME."""

        def nothing_left() -> bool:
            left = self.processes()
            kill_all(left, signal.SIGKILL)
            return not left

        # Repeat it: a process that is just starting may have children that were not in the list.
        wait_for(nothing_left, 10, what=f"end of the processes of {self.home}")


class StubAccount(Account):
    """An account with the stand-in `tests/bin/autosubmit`. The head of that file describes its controls."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, programs=STUB)
        self._state = folder / ".stub-autosubmit"

    def experiment(self, expid: str) -> str:
        """Create the experiment `expid`."""
        (self.home / "autosubmit" / expid / "conf").mkdir(parents=True, exist_ok=True)
        return expid

    def control(self, command: str, expid: str = "", **values: str | float) -> None:
        """Set what `autosubmit command` does from now on: `control("run", "a001", SLEEP=60, IGNORE="INT")`."""
        folder = self._state / "control"
        folder.mkdir(parents=True, exist_ok=True)
        lines = "".join(f"{name}={_quoted(str(value))}\n" for name, value in values.items())
        (folder / (f"{command}.{expid}" if expid else command)).write_text(lines)

    def calls(self, command: str = "") -> list[list[str]]:
        """Return the arguments of every call so far (of one command), oldest first."""
        return [words[1:] for words in self._calls() if not command or command in words[1:]]

    def working_directories(self) -> list[str]:
        return [words[0] for words in self._calls()]

    def environments(self) -> list[dict[str, str]]:
        """Return the environment of every call, oldest first."""
        files = sorted((self._state / "calls").glob("*.env"))
        items = ([item for item in os.fsdecode(file.read_bytes()).split("\0") if item] for file in files)
        return [dict(item.split("=", 1) for item in each) for each in items]

    def _calls(self) -> list[list[str]]:
        files = sorted((self._state / "calls").glob("*.argv"))
        return [os.fsdecode(file.read_bytes()).split("\0")[:-1] for file in files]

    def reset(self) -> None:
        """Remove all processes, experiments, controls, calls, run directories and the configuration of Autosubmit."""
        self.kill()
        (self.home / ".autosubmitrc").unlink(missing_ok=True)
        for path in (self._state, self.home / "autosubmit", self.home / ".autosubmit-runners"):
            shutil.rmtree(path, ignore_errors=True)


class AutosubmitAccount(Account):
    """An account with a real Autosubmit: `autosubmit configure` and `autosubmit install` were run in its home.

    Its ids begin with a random one (`k3x0`, not `a000`). `autosubmit stop` looks for `run EXPID` among all processes of
    the user, whatever their home. So two homes with the same ids (two test runs at once) would stop each other's runs.
    """

    def __init__(self, folder: Path, version: str = NEWEST) -> None:
        place = autosubmit_venv(version)
        super().__init__(folder, programs=place / "bin", venv_path=place)
        self.version = version
        self.root = folder / "autosubmit"
        self.autosubmit("configure")
        self.autosubmit("install")
        first = random.choice("bcdfghijklmnpqrsuvwxy")
        middle = "".join(random.choices(string.ascii_lowercase + string.digits, k=2))
        with closing(sqlite3.connect(self.root / "autosubmit.db")) as database, database:
            database.execute(
                "INSERT INTO experiment (name, description, autosubmit_version) VALUES (?, ?, ?)",
                [f"{first}{middle}0", "where ids begin", version],
            )

    def autosubmit(self, *args: str, check: bool = True) -> str:
        """Run a real command without our code. Return its output. AssertionError if it fails."""
        done = subprocess.run(
            [str(self.programs / "autosubmit"), *args],
            env={"HOME": str(self.home), "PATH": os.defpath, "TERM": "dumb"},
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120 * PATIENCE,
        )
        assert done.returncode == 0 or not check, f"autosubmit {args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def make_short(
        self, expid: str, script: str = "true", jobs: tuple[str, ...] = ("ONE",), *, chunked: tuple[str, ...] = ()
    ) -> None:
        """Replace an experiment's jobs by independent local ones that take no time. Its run then lasts about 3.5 s.

        `script` is shell: "exit 3" makes the run fail (code 1), "sleep 600" makes it long. Call `create -np` next.
        `chunked` jobs run once per chunk of the experiment (date 20000101, member fc0).
        """
        running = dict.fromkeys(jobs, "once") | dict.fromkeys(chunked, "chunk")
        if self.version.startswith("3."):
            self._make_short_ini(expid, script, running)
        elif self.version.startswith("4.0."):
            self._make_short_file(expid, script, running)
        else:
            write_short(self.root, expid, script, running)

    def _make_short_file(self, expid: str, script: str, running: dict[str, str]) -> None:
        """Do it for 4.0, which does not know SCRIPT: the job's text is a file of a local project."""
        write_short(self.root, expid, script, running)
        folder = self.root / expid / "conf"
        content = {name: {"FILE": "job.sh", "RUNNING": each, "PLATFORM": "LOCAL"} for name, each in running.items()}
        (folder / f"jobs_{expid}.yml").write_text(yaml.safe_dump({"JOBS": content}))
        project = self._project(expid, script)
        definition = folder / f"expdef_{expid}.yml"
        text = definition.read_text().replace("PROJECT_TYPE: none", "PROJECT_TYPE: local")
        definition.write_text(text.replace("PROJECT_PATH: ''", f"PROJECT_PATH: '{project}'"))

    def _make_short_ini(self, expid: str, script: str, running: dict[str, str]) -> None:
        """Do it for 3.14, which has configuration files in the INI format."""
        folder = self.root / expid / "conf"
        general = folder / f"autosubmit_{expid}.conf"
        general.write_text(general.read_text().replace("SAFETYSLEEPTIME = 10", "SAFETYSLEEPTIME = 1"))
        lines = [f"[{name}]\nFILE = job.sh\nRUNNING = {each}\nPLATFORM = LOCAL\n" for name, each in running.items()]
        (folder / f"jobs_{expid}.conf").write_text("\n".join(lines))
        definition = folder / f"expdef_{expid}.conf"
        text = definition.read_text().replace("PROJECT_TYPE = none", "PROJECT_TYPE = local")
        text = text.replace("\nPROJECT_PATH =", f"\nPROJECT_PATH = {self._project(expid, script)}")
        definition.write_text(text.replace("NUMCHUNKS = 1", "NUMCHUNKS = 2"))

    def _project(self, expid: str, script: str) -> Path:
        folder = self.home / f"project-{expid}"
        folder.mkdir(exist_ok=True)
        (folder / "job.sh").write_text(script + "\n")
        return folder

    def short_experiment(self, script: str = "true", *, jobs: tuple[str, ...] = ("ONE",), job_list: bool = True) -> str:
        """Create a real experiment that is ready to run. Return its expid."""
        output = self.autosubmit("expid", "-H", "local", "-dm", "--description=of the tests")
        expid = (
            output.rpartition('xperiment "' if self.version.startswith("3.") else "Experiment ")[2]
            .split()[0]
            .strip('"')
        )
        self.make_short(expid, script, jobs)
        if job_list:
            self.autosubmit("create", "-np", expid)
        return expid

    def job_statuses(self, expid: str) -> dict[str, str]:
        """Return the status of every job in Autosubmit's own job list, e.g. {"k3x1_ONE": "COMPLETED"}."""
        return job_statuses(self.programs / "python", self.root, expid)

    def description(self, expid: str) -> str:
        """Return the description in Autosubmit's own database."""
        with closing(sqlite3.connect(self.root / "autosubmit.db")) as database:
            return str(database.execute("SELECT description FROM experiment WHERE name = ?", [expid]).fetchone()[0])


def job_statuses(python: Path, root: Path, expid: str) -> dict[str, str]:
    """Return the status of every job of an experiment below `root`. `python` must be able to import Autosubmit."""
    argv = [str(python), "-c", _JOB_STATUSES, str(root / expid / "pkl" / f"job_list_{expid}.pkl")]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60 * PATIENCE)
    return dict(line.split() for line in done.stdout.splitlines())


def write_short(root: Path, expid: str, script: str, running: dict[str, str]) -> None:
    """Edit the two configuration files of an experiment below `root`; see `AutosubmitAccount.make_short`.

    `running`: RUNNING of each job, e.g. {"ONE": "once"}.
    """
    folder = root / expid / "conf"
    general = folder / f"autosubmit_{expid}.yml"
    lines = general.read_text().splitlines()
    general.write_text(
        "\n".join("  SAFETYSLEEPTIME: 1" if "SAFETYSLEEPTIME" in line else line for line in lines) + "\n"
    )
    content = {"JOBS": {job: {"SCRIPT": script, "RUNNING": each} for job, each in running.items()}}
    (folder / f"jobs_{expid}.yml").write_text(yaml.safe_dump(content))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


# Reading the pickle needs Autosubmit's own classes. It is a dictionary since 4.1.12, a graph before that, and a list of
# tuples in 4.0 and 3.14. Python 2.7 also executes this.
_JOB_STATUSES = """
import pickle, sys
from autosubmit.job.job_common import Status
sys.setrecursionlimit(100000)
with open(sys.argv[1], "rb") as file:
    found = pickle.load(file)
if hasattr(found, "nodes"):
    pairs = [(name, found.nodes[name]["job"].status) for name in found.nodes]
elif isinstance(found, dict):
    pairs = [(name, state["_status"]) for name, state in found.items()]
else:
    pairs = [(job[0], job[2]) for job in found]
for pair in pairs:
    sys.stdout.write("%s %s\\n" % (pair[0], Status.VALUE_TO_KEY[pair[1]]))
"""

_CONDA = r"""#!/bin/bash
# A stand-in for conda; see tests/environments.py.
root=@ROOT@
case "$1 $2" in
  "shell.posix hook")
    cat <<END
export CONDA_EXE='$root/bin/conda'
export _CE_M=''
export _CE_CONDA=''
export CONDA_PYTHON_EXE='$root/bin/python'
END
    cat <<'END'
__conda_exe() (
    "$CONDA_EXE" $_CE_M $_CE_CONDA "$@"
)
__conda_activate() {
    \local ask_conda
    ask_conda="$(PS1="${PS1:-}" __conda_exe shell.posix "$@")" || \return
    \eval "$ask_conda"
    \hash -r
}
conda() {
    \local cmd="${1-__missing__}"
    case "$cmd" in
        activate|deactivate) __conda_activate "$@" ;;
        *) __conda_exe "$@" ;;
    esac
}
if [ -z "${CONDA_SHLVL+x}" ]; then
    \export CONDA_SHLVL=0
    PATH="$(\dirname "$(\dirname "$CONDA_EXE")")/condabin${PATH:+":${PATH}"}"
    \export PATH
fi
END
    [ "$CONDA_AUTO_ACTIVATE_BASE" = false ] || echo "conda activate 'base'"
    ;;
  "shell.posix activate")
    case $3 in
      base) prefix=$root ;;
      /*) prefix=$3 ;;
      *) prefix=$HOME/.conda/envs/$3 ;;
    esac
    if [ ! -e "$prefix/conda-meta/history" ]; then
      case $3 in
        /*) printf '\nEnvironmentLocationNotFound: Not a conda environment: %s\n\n' "$3" >&2 ;;
        *) printf '\nEnvironmentNameNotFound: Could not find conda environment: %s\n' "$3" >&2
           printf 'You can list all discoverable environments with `conda info --envs`.\n\n' >&2 ;;
      esac
      exit 1
    fi
    rest=${PATH#"$CONDA_PREFIX/bin:"}
    [ -n "$CONDA_PREFIX" ] || rest=$PATH
    printf "PS1='(%s) '\nexport PATH='%s/bin:%s'\nexport CONDA_PREFIX='%s'\n" "$3" "$prefix" "$rest" "$prefix"
    printf "export CONDA_SHLVL='1'\nexport CONDA_DEFAULT_ENV='%s'\nexport CONDA_PROMPT_MODIFIER='(%s) '\n" "$3" "$3"
    ;;
  *)
    printf 'this stand-in for conda does not know: %s\n' "$*" >&2
    exit 2
    ;;
esac
"""


def live_in(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make LOCAL commands of this process run in the account's home."""
    monkeypatch.setenv("HOME", str(account.home))
    monkeypatch.delenv("AUTOSUBMIT_CONFIGURATION", raising=False)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)  # do not use the developer's own keys
