"""Helpers of the tests of the runners' contract: launch as the service does, and hostile arguments."""

from __future__ import annotations

from collections.abc import Callable

from profiles.config import RunnerConfig
from runners.models import new_run_key
from runners.services.machines import scripts
from runners.services.machines.probe import Identity, Probe, ProbeTarget
from runners.services.machines.registry import get_module_loader, get_runner
from runners.services.machines.runner import CommandResult
from tests.support.environments import Account
from tests.support.processes import PATIENCE, cmdline, wait_for

Configs = Callable[[str], RunnerConfig]
TIMEOUT = 30.0 * PATIENCE  # seconds

HOSTILE = {
    "blanks": "  two  blanks ",
    "single quote": "it's",
    "double quote": 'say "no"',
    "backslash": "back\\slash\\",
    "variables": "$HOME ${PATH} $$",
    "substitution": "$(touch /tmp/never) `touch /tmp/never`",
    "list": "; exit 3; & || && | > /dev/full < /dev/null",
    "glob": "* ? [a-z] ~ {a,b}",
    "newlines": "first\nsecond\r\nthird\n",
    "tab": "a\tb",
    "history": "!! !1 ^a^b^",
    "comment": "# not a comment",
    "dashes": "--help",
    "end of options": "--",
    "unicode": "größe → 試験 🌊",
    "escape": "\x1b[31mred\x1b[0m",
    "control": "\x01\x02\x7f",
    "printf": "%s %d %n \\n",
    "the end marker": "#end",
    "a heredoc": "EOF\nEOT\n<<EOF",
    "empty": "",
    "100 kB": "x'\"$(" * 20_000,
}


def run_loaded(config: RunnerConfig, argv: list[str]) -> CommandResult:
    return get_runner(config).execute(get_module_loader(config).wrap(argv), login=True, timeout=TIMEOUT)


def launch(config: RunnerConfig, argv: list[str], key: str = "") -> tuple[str, Identity]:
    """Launch a command as `run_experiment` does. Return its key and identity."""
    key = key or new_run_key()
    steps = get_module_loader(config).steps(argv)
    return key, get_runner(config).launch(key, scripts.replaced_by(argv), prelude=steps, timeout=TIMEOUT)


def probe(config: RunnerConfig, key: str, identity: Identity | None) -> Probe:
    return get_runner(config).probe([ProbeTarget(key, identity)], timeout=TIMEOUT)[key]


def wait_over(config: RunnerConfig, key: str, identity: Identity, deadline: float = 20) -> Probe:
    def over() -> Probe | None:
        answer = probe(config, key, identity)
        return answer if answer.is_over else None

    result = wait_for(over, deadline, what="end of the run")
    assert result
    return result


def log_of(config: RunnerConfig, key: str, *, offset: int = 0, limit: int = 10_000) -> bytes:
    chunk = get_runner(config).read_log(key, offset=offset, limit=limit, timeout=TIMEOUT)
    assert chunk
    return chunk.data


def commands_with(word: str, account: Account) -> list[int]:
    """Return the account's living processes with `word` in their command line.

    Only those of the account, because other test runs use the same words.
    """
    return [pid for pid in account.processes() if word.encode() in cmdline(pid)]
