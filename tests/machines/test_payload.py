"""The text that is sent to a machine means nothing to any program except our reader, whole or in part."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners.services.machines import scripts
from runners.services.machines.output import BoundedOutput
from tests.support.processes import PATIENCE
from tests.support.requirements import need

SHELLS = ("bash", "dash", "tcsh", "fish", "zsh", "ksh")
PROGRAMS = (*SHELLS, "python3", "perl", "cat", "sh")
MARKER = "autosubmit-runners-0123456789abcdef"


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_no_part_of_a_script_is_more_than_a_word(script: str) -> None:
    assert re.fullmatch(rb"[A-Za-z0-9_./,:+@\\-]+", scripts.encoded(script))


@pytest.mark.parametrize("script", ["touch PROOF", "touch PROOF\n" * 50, "exit\ntouch PROOF", "'\ntouch PROOF\n'"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_reader_of_another_kind_executes_nothing(program: str, script: str, tmp_path: Path) -> None:
    """The result is the same if the program missed nothing, the first line, or a part of the script."""
    need(shutil.which(program), program)
    proof = tmp_path / "proof"
    sent = scripts.OPENING + scripts.encoded(script.replace("PROOF", str(proof)))
    for start in (0, 1, len(scripts.OPENING) - 1, len(scripts.OPENING), len(scripts.OPENING) + 5, len(sent) - 4):
        for end in (b"", b"\n"):
            subprocess.run(
                [program], input=sent[start:] + end, capture_output=True, cwd=tmp_path, timeout=60 * PATIENCE
            )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("login", [False, True], ids=["plain", "login"])
@pytest.mark.parametrize("shell", SHELLS)
def test_every_login_shell_starts_our_reader(shell: str, login: bool) -> None:
    need(shutil.which(shell), shell)
    script = scripts.encoded("printf '%s|' \"it's\" '\\n' 'ü  ü' '$HOME'; exit 7")
    argv = scripts.bootstrap(len(script), marker=MARKER, login=login, timeout=20)
    done = subprocess.run(
        [shell, "-c", f"exec {scripts.join(argv)}"], input=scripts.OPENING + script, capture_output=True, timeout=60
    )
    output = BoundedOutput(MARKER, 1000)
    output.feed(done.stdout)
    assert (output.data, output.exit_code, done.returncode) == (b"it's|\\n|\xc3\xbc  \xc3\xbc|$HOME|", 7, 7)


@pytest.mark.parametrize("cut", [1, 2, 20])
def test_a_script_that_is_cut_short_is_not_evaluated(cut: int, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    script = scripts.encoded(f"touch {proof}")
    argv = scripts.bootstrap(len(script), marker=MARKER, login=False, timeout=20)
    for sent in (scripts.OPENING + script[:-cut], scripts.OPENING[cut:] + script, script):
        done = subprocess.run(argv, input=sent, capture_output=True, timeout=60 * PATIENCE)
        assert done.returncode == scripts.CUT_SHORT
        assert scripts.UNREAD.encode() in done.stdout
    assert not proof.exists()


def test_a_repeated_command_line_is_no_marker() -> None:
    line = scripts.join(scripts.bootstrap(10, marker=MARKER, login=True, timeout=20))
    output = BoundedOutput(MARKER, 1000)
    output.feed(("\n".join(line.split()) + "\n" + line + "\n").encode())
    assert not output.started
    assert not output.is_ended


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_the_end_of_a_stream_is_found_wherever_it_is_cut(size: int) -> None:
    stream = f"noise\n{MARKER}\nsaid\n{MARKER} half\n{MARKER} 1234\n\n{MARKER} 42\nleft behind\n".encode()
    output = BoundedOutput(MARKER, 1000)
    for start in range(0, len(stream), size):
        output.feed(stream[start : start + size])
    assert output.exit_code == 42
    assert output.data == f"said\n{MARKER} half\n{MARKER} 1234\n".encode()
