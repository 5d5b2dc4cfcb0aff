"""The module loaders' part of the contract, over LOCAL and SSH. Test ids show whether conda is real or a stand-in."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from profiles.config import RunnerConfig
from runners.exceptions import (
    CommandFailed,
)
from tests.support.contract import HOSTILE, Configs, launch, run_loaded
from tests.support.environments import StubAccount, conda_kind, loader_id
from tests.support.requirements import need
from tests.support.servers import ROOT, SSHServer

pytestmark = pytest.mark.django_db
Conda = Callable[[str], RunnerConfig]


def test_the_environment_has_the_program(config: RunnerConfig) -> None:
    result = run_loaded(config, ["autosubmit", "-v"])
    assert (result.exit_code, result.text, result.stderr) == (0, "4.1.17.1\n", b"")


def test_arguments_arrive_unchanged(config: RunnerConfig, account: StubAccount) -> None:
    words = [word for word in HOSTILE.values() if "\0" not in word]
    run_loaded(config, ["autosubmit", "-v", *words])
    assert account.calls() == [["-v", *words]]


def test_surroundings_of_a_command(
    config: RunnerConfig, account: StubAccount, sshd: SSHServer, at_login: Callable[[str], None]
) -> None:
    at_login("export USERNAME=somebody-else\n")  # Python's getpass.getuser() reads it
    run_loaded(config, ["autosubmit", "-v"])
    (environment,), (directory,) = account.environments(), account.working_directories()
    assert environment["HOME"] == str(account.home)
    assert environment["USER"] == environment["LOGNAME"] == sshd.user
    assert "USERNAME" not in environment
    assert Path(directory).parent == account.home or Path(directory).parent.parent == account.home
    assert not (Path(directory) / ".autosubmitrc").exists()


MISSING = {
    "VENV": ("/nowhere/at/all", "no virtual environment at /nowhere/at/all"),
    "LMOD": ("nosuchmodule", "nosuchmodule"),
    "CONDA": ("nosuchenv", "Could not find conda environment: nosuchenv"),
}


@pytest.mark.parametrize("loader", MISSING, ids=loader_id)
def test_a_missing_module_stops_the_command_with_its_own_words(
    loader: str, config_of: Configs, account: StubAccount
) -> None:
    name, words = MISSING[loader]
    base = config_of(loader)
    config = RunnerConfig(base.runner_type, loader, (name,), base.target)
    result = run_loaded(config, ["autosubmit", "-v"])
    assert result.exit_code != 0
    assert words in result.last_words
    assert account.calls() == []
    with pytest.raises(CommandFailed, match=words):
        launch(config, ["autosubmit", "-v"])
    assert account.calls() == []


def test_a_missing_program_is_named(config: RunnerConfig) -> None:
    result = run_loaded(config, ["no-such-program"])
    assert result.exit_code != 0
    assert "no-such-program" in result.last_words
    assert "not found" in result.last_words


@pytest.mark.parametrize(
    ("modules", "second"),
    [(("hello/1.0", "second"), "hello from a module"), (("second", "hello/1.0"), "hello was not loaded")],
    ids=["in order", "the other way"],
)
def test_modules_keep_their_order(config_of: Configs, modules: tuple[str, ...], second: str) -> None:
    base = config_of("LMOD")
    config = RunnerConfig(base.runner_type, "LMOD", modules, base.target)
    result = run_loaded(config, ["printenv", "HELLO", "SECOND"])
    assert result.text.splitlines() == ["hello from a module", second]


def test_a_module_that_prints_text_does_not_fail(config_of: Configs) -> None:
    base = config_of("LMOD")
    config = RunnerConfig(base.runner_type, "LMOD", ("chatty", "autosubmit"), base.target)
    result = run_loaded(config, ["autosubmit", "-v"])
    assert (result.exit_code, result.text) == (0, "4.1.17.1\n")


def test_no_lmod_there(runner_type: str, make_sshd: Callable[..., SSHServer], tmp_path: Path, monkeypatch: Any) -> None:
    home = tmp_path / "without"
    home.mkdir()
    (home / ".bash_profile").write_text("unset -f module ml; unset BASH_ENV\n")
    monkeypatch.setenv("HOME", str(home))
    ssh = make_sshd(home).target if runner_type == "SSH" else None
    result = run_loaded(RunnerConfig(runner_type, "LMOD", ("autosubmit",), ssh), ["autosubmit", "-v"])
    assert result.exit_code != 0
    assert "module: not found" in result.last_words


# --- Environment Modules: real ones where tools/environment-modules could make them -----------------------------------

MODULES = ROOT / ".tools" / "environment-modules"
REAL_MODULECMD = MODULES / "4.6" / "libexec" / "modulecmd-compat"
# `module` of 3.2 evaluates what a program prints, so the exit code of the program is lost. Source: init/bash of 3.2.10.
OLD_MODULES = "unset BASH_ENV\nmodule() { eval `'%s' bash $*`; }\nexport LOADEDMODULES=\n"
# A stand-in for that program. Source: ModuleCmd_Load.c of 3.2.10.
OLD_MODULECMD = """#!/bin/bash
shift 2
for name; do
  case $name in
    hello|hello/1.0|greeting) LOADEDMODULES=${LOADEDMODULES:+$LOADEDMODULES:}hello/1.0 ;;
    *) echo "ModuleCmd_Load.c(213):ERROR:105: Unable to locate a modulefile for '$name'" >&2; code=1 ;;
  esac
done
echo "LOADEDMODULES='$LOADEDMODULES'; export LOADEDMODULES"
exit $code
"""


@pytest.fixture(params=["5", "4.6", f"3.2-{'real' if REAL_MODULECMD.exists() else 'stand-in'}"])
def environment_modules(request: pytest.FixtureRequest, account: StubAccount) -> Iterator[str]:
    """The account has this version of Environment Modules instead of Lmod, with `hello/1.0`, also named `greeting`."""
    version = str(request.param)
    profile, folder = account.home / ".bash_profile", account.home / "old-modules"
    hello = folder / "modulefiles" / "hello" / "1.0"
    hello.parent.mkdir(parents=True)
    hello.write_text("#%Module1.0\nsetenv HELLO yes\n")
    rc = account.home / ".modulerc"
    rc.write_text("#%Module1.0\nmodule-alias greeting hello/1.0\n")
    program = folder / "modulecmd"
    program.write_text(OLD_MODULECMD)
    program.chmod(0o755)
    if version.startswith("3.2"):
        init = OLD_MODULES % (REAL_MODULECMD if version.endswith("real") else program)
    else:
        need((MODULES / version).exists(), f"Environment Modules {version}")
        init = f"unset -f module ml; unset BASH_ENV MODULESHOME LOADEDMODULES\n. '{MODULES}/{version}/init/bash'\n"
    before = profile.read_text()
    profile.write_text(f"{init}export MODULEPATH='{folder}/modulefiles'\nexport PATH=\"$HOME/bin:$PATH\"\n")
    yield version
    profile.write_text(before)
    rc.unlink()
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("modules", "missing"),
    [
        (("hello",), ""),
        (("hello/1.0",), ""),
        (("greeting",), ""),  # another name of hello/1.0
        (("nosuch",), "nosuch"),
        (("hello", "nosuch"), "nosuch"),
        (("nosuch", "hello"), "nosuch"),
        (("hello/2.0",), "hello/2.0"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else value,
)
def test_a_module_that_did_not_load_stops_the_command_with_each_environment_modules(
    environment_modules: str, config_of: Configs, account: StubAccount, modules: tuple[str, ...], missing: str
) -> None:
    """`module load` of 3.2 returns 0 also if a module is missing."""
    base = config_of("LMOD")
    config = RunnerConfig(base.runner_type, "LMOD", modules, base.target)
    result = run_loaded(config, ["autosubmit", "-v"])
    if not missing:
        assert (result.exit_code, result.text) == (0, "4.1.17.1\n"), result.last_words
        return
    assert result.exit_code != 0
    assert f"Unable to locate a modulefile for '{missing}'" in result.last_words
    if environment_modules.startswith("3.2"):
        assert f"module: not loaded: {missing}" in result.last_words
    assert account.calls() == []
    with pytest.raises(CommandFailed, match="Unable to locate"):
        launch(config, ["autosubmit", "-v"])
    assert account.calls() == []


@pytest.fixture(params=["CONDA"], ids=loader_id)
def conda(request: pytest.FixtureRequest, config_of: Configs) -> Conda:
    """conda(environment) -> RunnerConfig, for each runner type."""
    base = config_of(request.param)
    return lambda environment: RunnerConfig(base.runner_type, request.param, (environment,), base.target)


def conda_state(config: RunnerConfig) -> list[str]:
    """Return the values of conda's variables that show which environment is active."""
    return run_loaded(config, ["printenv", "CONDA_PREFIX", "CONDA_DEFAULT_ENV"]).text.splitlines()


def test_a_conda_environment_by_name_and_by_path(conda: Conda, account: StubAccount) -> None:
    prefix = str(account.conda_environment)
    assert conda_state(conda("autosubmit")) == [prefix, "autosubmit"]
    assert conda_state(conda(prefix))[0] == prefix


def test_the_base_environment_of_conda(conda: Conda, account: StubAccount) -> None:
    prefix, name = conda_state(conda("base"))
    assert (Path(prefix).resolve(), name) == (account.conda_root.resolve(), "base")


def test_a_path_that_is_not_a_conda_environment_is_reported_with_condas_message(
    conda: Conda, account: StubAccount
) -> None:
    config = conda(str(account.home))
    with pytest.raises(CommandFailed, match=f"Not a conda environment: {account.home}"):
        launch(config, ["autosubmit", "-v"])
    assert account.calls() == []


def test_a_conda_environment_from_another_one_that_the_profile_activates(
    conda: Conda, account: StubAccount, at_login: Callable[[str], None]
) -> None:
    at_login(f"eval \"$('{account.conda_root}/bin/conda' shell.posix hook)\"; conda activate base\n")
    config = conda("autosubmit")
    assert conda_state(config) == [str(account.conda_environment), "autosubmit"]


@pytest.mark.parametrize(
    "line", ["set -u", "set -e", "set -o noclobber", "shopt -s failglob", "CONDA_EXE=/nowhere/conda"]
)
@pytest.mark.parametrize("environment", ["autosubmit", "nosuchenv"])
def test_conda_under_the_shell_options_of_a_login_profile(
    environment: str, line: str, conda: Conda, at_login: Callable[[str], None]
) -> None:
    at_login(f"export CONDA_AUTO_ACTIVATE=true\n{line}\n")
    config = conda(environment)
    result = run_loaded(config, ["autosubmit", "-v"])
    if environment == "autosubmit":
        assert (result.exit_code, result.text, result.stderr) == (0, "4.1.17.1\n", b"")
    else:
        assert result.exit_code != 0
        assert f"Could not find conda environment: {environment}" in result.last_words


def test_a_configuration_that_conda_cannot_read_is_reported_without_a_traceback(
    conda: Conda, account: StubAccount
) -> None:
    if conda_kind() != "real":
        pytest.skip("the stand-in reads no configuration")
    file = account.home / ".condarc"
    file.write_text("channels: [\n")
    try:
        result = run_loaded(conda("autosubmit"), ["autosubmit", "-v"])
    finally:
        file.unlink()
    assert result.exit_code != 0
    assert f'in "{file}", line 2' in result.last_words
    assert len(result.last_words.splitlines()) < 5
    assert "Traceback" not in result.all_text


def test_an_environment_by_its_path_finds_the_conda_that_it_belongs_to(
    conda: Conda, account: StubAccount, tmp_path: Path
) -> None:
    """ROOT/envs/NAME, where ROOT is not one of the usual places."""
    root = tmp_path / "of a group"
    made = root / "envs" / "elsewhere"
    (made / "conda-meta").mkdir(parents=True)
    (made / "conda-meta" / "history").touch()
    (made / "bin").symlink_to(account.programs)
    (root / "bin").mkdir()
    (root / "bin" / "conda").symlink_to(account.conda_root.resolve() / "bin" / "conda")
    away = account.conda_root.rename(account.home / "conda-is-away")
    if conda_kind() != "real":  # the stand-in contains the path of its root
        (root / "bin" / "conda").unlink()
        (root / "bin" / "conda").symlink_to(away / "bin" / "conda")
    try:
        result = run_loaded(conda(str(made)), ["autosubmit", "-v"])
    finally:
        away.rename(account.conda_root)
    assert (result.exit_code, result.text) == (0, "4.1.17.1\n"), result.all_text


# STAND-IN for micromamba, which no package registry has: `shell hook` prints a function with `activate`, as its
# documentation says. An environment is a folder below the root prefix, or a path.
MICROMAMBA = """#!/bin/sh
[ "$1 $2 $3 $4" = "shell hook --shell posix" ] || exit 1
cat <<'END'
micromamba() {
    [ "$1" = activate ] || return 1
    case $2 in /*) prefix=$2 ;; *) prefix=$HOME/micromamba/envs/$2 ;; esac
    [ -d "$prefix/bin" ] ||
        { echo "critical libmamba Cannot activate, prefix does not exist at: '$prefix'" >&2; return 1; }
    export CONDA_PREFIX="$prefix" PATH="$prefix/bin:$PATH"
}
END
"""


def test_micromamba_alone(conda: Conda, account: StubAccount) -> None:
    made = account.home / "micromamba" / "envs" / "small"
    made.mkdir(parents=True)
    (made / "bin").symlink_to(account.programs)
    away = account.conda_root.rename(account.home / "conda-is-away")
    program = account.home / ".local" / "bin" / "micromamba"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(MICROMAMBA)
    program.chmod(0o755)
    try:
        for environment in ("small", str(made)):
            result = run_loaded(conda(environment), ["autosubmit", "-v"])
            assert (result.exit_code, result.text) == (0, "4.1.17.1\n")
        missing = run_loaded(conda("nosuch"), ["autosubmit", "-v"])
    finally:
        program.unlink()
        away.rename(account.conda_root)
        shutil.rmtree(account.home / "micromamba")
    assert missing.exit_code != 0
    assert "prefix does not exist" in missing.last_words


def test_a_virtual_environment_without_activate(config_of: Configs, account: StubAccount, tmp_path: Path) -> None:
    base = config_of("VENV")
    prefix = tmp_path / "plain prefix"
    prefix.mkdir()
    (prefix / "bin").symlink_to(account.programs)
    config = RunnerConfig(base.runner_type, "VENV", (str(prefix),), base.target)
    result = run_loaded(config, ["printenv", "VIRTUAL_ENV"])
    assert (result.exit_code, result.text) == (0, f"{prefix}\n")
    assert run_loaded(config, ["autosubmit", "-v"]).text == "4.1.17.1\n"


def test_a_login_profile_with_nounset_and_an_activation_that_reads_an_unset_variable(
    config_of: Configs, account: StubAccount, at_login: Callable[[str], None], tmp_path: Path
) -> None:
    at_login("set -eu\n")
    base = config_of("VENV")
    prefix = tmp_path / "careless"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin" / "activate").write_text(
        f'echo "$NO_SUCH_VARIABLE" >/dev/null; false\nPATH="{account.programs}:$PATH"\n'
    )
    config = RunnerConfig(base.runner_type, "VENV", (str(prefix),), base.target)
    result = run_loaded(config, ["autosubmit", "-v"])
    assert (result.exit_code, result.text) == (0, "4.1.17.1\n")


def test_conda_missing(conda: Conda, account: StubAccount) -> None:
    away = account.conda_root.rename(account.home / "conda-is-away")
    try:
        result = run_loaded(conda("autosubmit"), ["autosubmit", "-v"])
    finally:
        away.rename(account.conda_root)
    assert result.exit_code != 0
    assert "conda: not found" in result.last_words
