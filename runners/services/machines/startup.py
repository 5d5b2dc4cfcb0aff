"""Explain why an account's shell did not execute our script, and what to change in its start-up files."""

from __future__ import annotations

from runners.printable import last_text
from runners.services.machines import scripts
from runners.services.machines.exchange import Exchange
from runners.services.machines.output import last_lines

AT_DEADLINE = 124  # exit code of `timeout`
NOT_FOUND = 127  # exit code of a shell that does not find a program
WORDS = 1000  # characters of the shell's output that an error message repeats
# For each login shell: the test that a start-up file needs before actions that are only for interactive use.
GUARDS = (
    "~/.bashrc and ~/.bash_profile: [[ $- == *i* ]] && exec ...; ~/.zshenv: [[ -o interactive ]] && exec ...; "
    "~/.profile: case $- in *i*) exec ... ;; esac; ~/.cshrc or ~/.tcshrc: if ($?prompt) exec ...; "
    "~/.config/fish/config.fish: status is-interactive; and exec ..."
)
REMEDY = (
    "Nothing was executed. Log in to the account, "
    f"and change its start-up files so that they do interactive things (exec, exit, read, a menu, a long wait) only "
    f"in interactive shells, with the guard of its shell: {GUARDS}."
)
FORCED = (
    " If the server forces a command (ForceCommand in sshd_config, command= in authorized_keys), that has to execute "
    "$SSH_ORIGINAL_COMMAND with its standard input unchanged."
)
REPLACED = "a start-up file of the account replaces the login shell (exec) or ends it (exit)"


CLOSED = 254  # exit code of sshd while /etc/nologin exists (do_nologin in OpenSSH's session.c)
# What sshd or the account's shell says, in lower case -> what it means.
REFUSALS = {
    "password change required": "its password has expired. Log in by hand and change it",
    "account is currently not available": "its login shell is `nologin`. Ask the machine's administrators",
}


def account_problem(where: str, exchange: Exchange, words: str) -> str:
    """Return sentences if the machine does not let the account execute anything; empty if start-up files may be why."""
    code = exchange.exit_code if exchange.exit_code is not None else exchange.status
    if code == CLOSED and words:
        return f"{where} is closed for logins now (/etc/nologin). It says: {words.rstrip('.')}. Nothing was executed."
    for said, meaning in REFUSALS.items():
        if said in words.lower():
            return f"The account on {where} may not execute anything: {meaning}. It says: {words}"
    return ""


def explain(where: str, exchange: Exchange, timeout: float, *, is_remote: bool) -> str:
    """Return sentences that explain why the script of an exchange was not evaluated.

    `timeout`: the seconds that it had.
    """
    said = exchange.stdout.noise + b"\n" + exchange.stderr.noise
    is_echo = scripts.OPENING.strip() in said
    words = "" if is_echo else last_text(last_lines(said), WORDS)
    if is_remote and not exchange.stdout.started and (problem := account_problem(where, exchange, words)):
        return problem
    or_forced = ", or the server runs a command of its own instead of ours" if is_remote else ""
    remedy = REMEDY
    code = exchange.exit_code if exchange.exit_code is not None else exchange.status
    if is_echo:
        what = (
            f"another program reads the input instead of our shell on {where}: a start-up file starts a "
            f"program{or_forced}"
        )
    elif exchange.stdout.started:
        what = f"the script arrived incomplete on {where}: a start-up file of the account reads standard input"
    elif exchange.is_late or code == AT_DEADLINE:
        what = f"the shell of the account on {where} did not start within {timeout:g} s: a start-up file waits or reads"
        what += or_forced
    elif code is None and not exchange.signal and not words:
        what = f"the server closed the session on {where} before the shell of the account started"
        remedy = f"Probably it closes silent sessions (ChannelTimeout) and start-up files take long. {REMEDY}"
    elif code == scripts.OTHER_SHELL:
        what = f"another shell has replaced our shell on {where}: {REPLACED}{or_forced}"
    elif code == NOT_FOUND:
        what = f"the shell of the account on {where} does not find sh, bash or timeout"
        remedy = f"Probably a start-up file sets a PATH without /usr/bin and /bin{or_forced}. {REMEDY}"
    else:
        end = f"with exit code {code}" if code is not None else "without an exit code"
        what = f"the shell of the account on {where} ended {end} before running anything"
        remedy = f"Probably {REPLACED}{or_forced}. {REMEDY}"
    said_so = f": {words.rstrip('.')}" if words else ""
    return f"{what[0].upper()}{what[1:]}{said_so}. {remedy}{FORCED if is_remote else ''}"
