"""The strict parsers of what machines print: each primitive and each parser, with random and mutated output."""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners import printable
from runners.commands import output
from runners.commands.create_experiment import created_expid
from runners.exceptions import CommandFailed
from runners.services import retention
from runners.services.machines import answers, probe
from runners.services.machines.answers import Unreadable
from runners.services.machines.output import last_lines, plain_text
from runners.services.machines.probe import Identity, LogState, Probe
from tests.support.hostile_answers import IDENTITY, KEY, PROBE_LINES, answers_like, bytes_like, hostile, mutated

READY = "ready"
LOG_ANSWERS = ["1000 0\n" + "log line\n" * 20, "1000 900\nlast words\n"]


def test_real_answers_are_read() -> None:
    found = Identity.parse(IDENTITY)
    assert (found.host, found.pid, found.start, found.supervisor_pid) == ("login1.example.org", 4242, 987654, 4241)
    assert " ".join(found.words) == IDENTITY
    assert Identity.from_dict(found.as_dict()) == found
    assert probe.parse_launch(f"{IDENTITY}\n{READY}\n", READY) == found
    read = [probe.parse_probe(line) for line in PROBE_LINES]
    assert [each.answer for each in read] == [
        *(Probe.ENDED,) * 4,
        *(Probe.RUNNING, Probe.GONE, Probe.REBOOTED, Probe.CANNOT_TELL, Probe.STARTING, Probe.NEVER_STARTED),
        Probe.CANNOT_TELL,
    ]
    assert [(each.exit_code, each.signal, each.interrupted) for each in read[:4]] == [
        (0, "", False),
        (88, "", True),
        (137, "KILL", False),
        (163, "RTMIN+1", False),
    ]
    assert {each.finished for each in read[:4]} == {1_700_000_000}
    assert probe.parse_first_match("4242\n") == 4242
    assert probe.parse_first_match("\n") is None
    chunk = probe.parse_log(b"10 4\nabcdef", offset=4, limit=100)
    assert (chunk.offset, chunk.size, chunk.data, chunk.next_offset) == (4, 10, b"abcdef", 10)
    assert probe.parse_log(b"10 4\nabcdef", offset=-6, limit=6).offset == 4


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("ended 0.-.nan -", "a time"),
        ("ended 0.-.inf -", "a time"),
        ("ended 0.-.1e400 -", "a time"),
        ("ended 0.-.-1 -", "a time"),
        (f"ended 0.-.{'9' * 5000} -", "the end of a run"),
        ("ended 256.-.1700000000 -", "an exit code"),
        ("ended -1.-.1700000000 -", "an exit code"),
        ("ended 1_0.-.1700000000 -", "an exit code"),
        ("ended ١.-.1700000000 -", "an exit code"),
        ("ended 137.kill.1700000000 -", "a signal's name"),
        (f"ended 137.{'K' * 17}.1700000000 -", "a signal's name"),
        ("ended 0.-.1700000000", "the end of a run"),
        ("ended 0.-.1700000000 - -", "the end of a run"),
        (f"running {IDENTITY.replace('4242', '1')}", "a process id"),
        (f"running {IDENTITY.replace('4242', '0')}", "a process id"),
        (f"running {IDENTITY.replace('4242', '-1')}", "a process id"),
        (f"running {IDENTITY.replace('4242', str(2**31))}", "a process id"),
        (f"running {IDENTITY.replace('987654', str(2**63))}", "a start time"),
        (f"running {IDENTITY.replace('login1', 'x' * 300_000)}", "the identity"),
        (f"running {IDENTITY.replace('login1', chr(0x202E))}", "a host name"),
        (f"gone {IDENTITY} 1", "the identity"),
        ("starting now", "nothing more"),
        ("elsewhere " + "h" * 256, "a host name"),
        ("stopped", "an answer"),
        ("", "an answer"),
    ],
)
def test_an_invalid_answer_of_the_machine_is_undecided(line: str, why: str) -> None:
    read = probe.parse_probe(f"{KEY} {line}")
    assert read.answer == Probe.CANNOT_TELL
    assert f"{why}" in read.detail
    assert len(read.detail) < printable.LINE_LIMIT


def test_an_end_with_a_wrong_time_is_accepted() -> None:
    read = probe.parse_probe(f"{KEY} ended 3.-.12 -")
    assert (read.answer, read.exit_code, read.finished) == (Probe.ENDED, 3, None)


def test_two_answers_about_one_run_are_invalid() -> None:
    other = "f" * 32
    lines = f"{KEY} starting\n{other} starting\n{KEY} ended 0.-.1700000000 -\nstranger ended\n"
    read = probe.parse_probes([KEY, other, "missing"], lines, "silence")
    assert {key: each.answer for key, each in read.items()} == {
        KEY: Probe.CANNOT_TELL,
        other: Probe.STARTING,
        "missing": Probe.CANNOT_TELL,
    }
    assert read["missing"].detail == "silence"


@pytest.mark.parametrize(
    ("words", "state"),
    [
        ("1700000100 {}/log 2048 1700000000", LogState(2048, 100)),
        ("1700000100 {}/log 2048 1700000200", LogState(2048, 0)),  # the clock of the file server is ahead
        ("12 {}/log 2048 1700000000", LogState(2048, None)),
        ("1700000100 {}/log 2048 -1", None),
        ("1700000100 {}/log -1 1700000000", None),
        ("1700000100 {}/log 99999999999999999999 1700000000", None),
        ("1700000100 {} 2048 1700000000 1", None),
        ("1700000100 {}/log 2048", None),
        (f"1700000100 {{}}/log {'9' * 5000} 1700000000", None),
    ],
)
def test_the_state_of_a_log_is_read_or_left_out(words: str, state: LogState | None) -> None:
    (read,) = probe.parse_probes([KEY], f"{KEY} starting\nlog {words.format(KEY)}\n", "silence").values()
    assert (read.answer, read.log) == (Probe.STARTING, state)


def test_two_states_of_one_log_are_left_out() -> None:
    lines = f"{KEY} starting\n" + f"log 1700000100 {KEY}/log 2048 1700000000\n" * 2
    assert probe.parse_probes([KEY], lines, "silence")[KEY] == Probe(Probe.STARTING)


@pytest.mark.parametrize(
    "answer",
    ["hello", "ready", "hello\nready\n", f"{IDENTITY}\n", f"{IDENTITY}\nready\nready\n", f"{IDENTITY} 1\nready\n", ""],
)
def test_no_answer_of_a_launch(answer: str) -> None:
    with pytest.raises(Unreadable):
        probe.parse_launch(answer, READY)


@pytest.mark.parametrize(
    "output",
    [
        *(b"", b"\n", b"10\nx", b"10 0 0\nx", b"-1 0\nx", b"10 -1\nx", b"1e3 0\nx", b"10 5\nx", b"x" * 100_000),
        f"{2**63} 0\nx".encode(),
        b"9" * 5000 + b" 0\nx",
        b"10 0\n" + b"x" * 101,
    ],
)
def test_a_log_answer_that_is_not_what_was_asked_for(output: bytes) -> None:
    with pytest.raises(Unreadable) as caught:
        probe.parse_log(output, offset=0, limit=100)
    assert len(str(caught.value)) < printable.LINE_LIMIT


def is_clean(text: str) -> bool:
    return all(char.isprintable() or char in "\n\t" for char in text)


@hostile
@given(st.text(st.characters()), st.integers(1, 50))
def test_texts_for_people_are_printable_and_bounded(text: str, limit: int) -> None:
    for read in (printable.line, printable.text, printable.last_text):
        clean = read(text, limit)
        assert len(clean) <= limit
        assert is_clean(clean)
        clean.encode()  # no surrogates
    assert "\n" not in printable.line(text, limit)
    if text.isprintable() and len(text) <= limit:
        assert printable.line(text, limit) == printable.text(text, limit) == printable.last_text(text, limit) == text


@hostile
@given(answers_like(PROBE_LINES))
def test_a_probe_answer_is_within_its_bounds(line: str) -> None:
    read = probe.parse_probe(line)
    assert read.exit_code is None or 0 <= read.exit_code <= 255
    assert read.finished is None or answers.EPOCH_LEAST <= read.finished <= answers.EPOCH_MOST
    assert len(read.signal) <= 16
    assert read.signal.isascii()
    assert len(read.detail) <= printable.TEXT_LIMIT
    assert is_clean(read.detail)
    if read.identity:
        check_identity(read.identity)


def check_identity(identity: Identity) -> None:
    assert 2 <= identity.pid < 2**31
    assert 1 <= identity.supervisor_pid < 2**31
    assert 0 <= identity.start < 2**63
    assert 0 <= identity.supervisor_start < 2**63
    assert len(identity.host) <= 255
    assert " ".join(identity.words).isprintable()
    assert Identity.from_dict(identity.as_dict()) == identity


@hostile
@given(mutated(["\n".join(PROBE_LINES), *PROBE_LINES]))
def test_every_key_gets_one_answer(output: str) -> None:
    keys = [KEY, "f" * 32]
    read = probe.parse_probes(keys, output, "silence")
    assert list(read) == keys
    if keys[1] not in output:
        assert read[keys[1]].answer == Probe.CANNOT_TELL


@hostile
@given(answers_like([f"{IDENTITY}\nready\n"]), answers_like(["4242\n", "\n"]))
def test_launch_and_first_match_are_read_or_refused(launch: str, first: str) -> None:
    with contextlib.suppress(Unreadable):
        check_identity(probe.parse_launch(launch, READY))
    with contextlib.suppress(Unreadable):
        found = probe.parse_first_match(first)
        assert found is None or 2 <= found < 2**31


@hostile
@given(
    st.one_of(st.none(), st.integers(), st.text(), st.dictionaries(st.text(), st.text()), st.lists(st.integers())),
    st.sampled_from(Identity.__slots__),
    st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.text(), st.lists(st.integers())),
)
def test_a_stored_identity_is_parsed_or_rejected(stored: object, name: str, value: object) -> None:
    for each in (stored, Identity.parse(IDENTITY).as_dict() | {name: value}):
        with contextlib.suppress(Unreadable):
            check_identity(Identity.from_dict(each))


@hostile
@given(
    bytes_like(["1000 0\n" + "log line\n" * 20, "1000 900\nlast words\n"]), st.integers(-100, 1000), st.integers(0, 300)
)
def test_a_log_answer_is_within_its_bounds(output: bytes, offset: int, limit: int) -> None:
    with contextlib.suppress(Unreadable):
        chunk = probe.parse_log(output, offset=offset, limit=limit)
        assert len(chunk.data) <= limit
        assert 0 <= chunk.offset <= chunk.next_offset <= max(chunk.size, chunk.offset) < 2**63
        assert offset < 0 or chunk.offset == offset


CLEANED = [f"{KEY} removed 12\n{'f' * 32} absent 0\n", f"{KEY} kept 0\n"]


@hostile
@given(bytes_like(CLEANED))
def test_an_answer_of_clean_runs_is_read_or_ignored(output: bytes) -> None:
    for _, (answer, kibibytes) in retention.read_answers(output).items():
        assert answer in ("removed", "absent", "kept")
        assert 0 <= kibibytes < 2**63


@hostile
@given(st.binary(max_size=500), st.integers(1, 20), st.integers(1, 100))
def test_the_last_lines_of_output_are_printable_and_bounded(data: bytes, lines: int, characters: int) -> None:
    words = last_lines(data * 3, lines=lines, characters=characters)
    assert len(words) <= characters
    assert is_clean(words)


@hostile
@given(answers_like(["the command failed: \x1b[31mno\n"]))
def test_an_error_carries_printable_bounded_texts(words: str) -> None:
    error = CommandFailed(words * 3, output=words, exit_code=1)
    for text in (str(error), error.detail, error.facts["output"]):
        assert len(text) <= printable.TEXT_LIMIT
        assert is_clean(text)
    assert error.facts["exit_code"] == 1


@hostile
@given(answers_like(["[CRITICAL] no [eCode=7014]\n", "CHANGED: job: a000_SIM status to: READY\n", "4.1.17\n"]))
def test_numbers_of_autosubmit_are_read_or_ignored(text: str) -> None:
    found = output.complaint(text.encode("utf-8", "replace"))
    assert found is None or found.code is None or 0 <= found.code < 10**9
    expid = created_expid(text)
    assert expid is None or len(expid) <= 16


def test_an_error_code_of_5000_digits_is_ignored() -> None:
    found = output.complaint(f"[CRITICAL] x [eCode={'7' * 5000}]".encode())
    assert found is not None and found.code is None


CREDENTIALS = [
    ("fatal: unable to access 'https://ada:s3cret@git.example.org/x.git/': 403", "s3cret"),
    ("https://glpat-s3cret@git.example.org/x", "s3cret"),
    ("HTTP://oauth2:s3cret@git.example.org", "s3cret"),
    ("git clone -b main git+https://ada:s3@cret:x@h/x y", "cret"),
    ("ssh://git:s3cret@git.example.org/x", "s3cret"),
    ("ftp://ada:s3cret@h", "s3cret"),
    ("'https://a:s3cret@h/x','https://b:s3cret@h/y'", "s3cret"),
    ("https://\x1b[1mada:s3cret\x1b[4m@h/x", "s3cret"),
]


@pytest.mark.parametrize(("said", "secret"), CREDENTIALS)
def test_credentials_in_addresses_are_masked_wherever_a_text_is_read_or_made(said: str, secret: str) -> None:
    long = f"{'x' * 60_000}\n {said}\n"
    for text in (
        *(plain_text(said.encode()), last_lines(long.encode()), printable.text(plain_text(long.encode()), 70_000)),
        *(CommandFailed(said).detail, CommandFailed("x", output=said).facts["output"], printable.line(said)),
        *(output.reason_of(f"[CRITICAL] Cannot clone: {said}".encode(), said.encode()),),
    ):
        assert secret not in text


@pytest.mark.parametrize("limit", range(2, 40))
def test_cutting_a_text_never_reveals_a_credential(limit: int) -> None:
    said = "https://ada:s3cret@git.example.org/x"
    for cut in (printable.line, printable.text, printable.last_text):
        assert "s3c" not in cut(said, limit) and "ret@" not in cut(said, limit)


@pytest.mark.parametrize("said", ["ssh://git@h/x", "git@h:x", "https://h/x@y", "mail a@b, see https://h", "a://b c@d"])
def test_a_text_without_credentials_is_unchanged(said: str) -> None:
    assert printable.without_credentials(said) == said


@pytest.mark.parametrize("piece", ["://", "://a", "https://a:b", "@", ":", "a://@"])
def test_masking_is_linear(piece: str) -> None:
    text = piece * (1024 * 1024 // len(piece))
    start = time.process_time()
    printable.without_credentials(text)
    assert time.process_time() - start < 5


END = b"job a done\n\n#m 0\n#jobs k {}\n\n#m\n10 4\nabcdef"


@pytest.mark.parametrize(
    ("answer", "lines", "is_whole"),
    [
        (END, b"job a done\n", True),
        (END.replace(b"#m 0", b"#m 1"), b"job a done\n", True),
        (END.replace(b"#m 0", b"#m 124"), b"", False),  # the search took too long
        (b"x" * 20 + b"\n#m 0\n\n#m\n10 4\nabcdef", b"x" * 20, False),
    ],
)
def test_the_end_of_a_run_is_read(answer: bytes, lines: bytes, is_whole: bool) -> None:
    read = probe.parse_end(answer, mark="#m", lines=20, tail=6, has_log=True)
    assert (read.lines, read.is_whole, read.tail) == (lines, is_whole, b"abcdef")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"job a done\n\n#m 0\n",
        END + b"\n#m\n",
        END.replace(b"#m 0", b"#m x"),
        END.replace(b"10 4", b"10 5"),
        END + b"g",
    ],
)
def test_an_invalid_end_of_a_run_is_rejected(answer: bytes) -> None:
    with pytest.raises(Unreadable):
        probe.parse_end(answer, mark="#m", lines=20, tail=6, has_log=True)
