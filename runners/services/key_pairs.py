"""Make, replace, retire and publish the service's SSH key pairs: its key, and its user CA.

The commands `create_ssh_key` and `create_ssh_ca` and the admin call these functions. Each writes one audit record, with
the fingerprint. ssh/keys.py has the files. Private halves never leave it.
"""

from __future__ import annotations

import fcntl
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from profiles.models import PublishedSSHKey
from runners.exceptions import InvalidRequest
from runners.services.audit import audited, begin
from runners.services.machines.ssh import keys
from runners.services.machines.ssh.keys import PublicKey

MOST_COMMENT = 100  # characters


class PairExists(InvalidRequest):
    """There is a current pair, and it was not asked to replace it."""


class OldPairInUse(InvalidRequest):
    """The pair that the last rotation replaced is not retired yet."""


class NoPair(InvalidRequest):
    """There is no pair to publish or to retire."""


@dataclass(frozen=True, slots=True)
class PairKind:
    """One of the service's pairs. `name`: of its files. `words`: its name for people. `endpoint`: for the audit log."""

    name: str
    words: str
    endpoint: str
    comment: str
    is_published: bool = False  # people see its public half, and add it to their authorized_keys

    @property
    def default_comment(self) -> str:
        return f"{self.comment}@{platform.node() or 'localhost'}"

    @property
    def current(self) -> PublicKey | None:
        """Return the public half. Raises OSError."""
        return keys.current(self.name)

    @property
    def previous(self) -> PublicKey | None:
        return keys.previous(self.name)

    @property
    def needs_publication(self) -> bool:
        key = self.current if self.is_published else None
        return key is not None and not is_published(key)


SERVICE_KEY = PairKind(
    keys.NAME, "key pair", endpoint="create-ssh-key", comment="autosubmit-runners", is_published=True
)
USER_CA = PairKind(keys.USER_CA, "user CA", endpoint="create-ssh-ca", comment="autosubmit-runners-ca")


def make(kind: PairKind, *, actor: str, address: str = "", comment: str = "", replace: bool = False) -> PublicKey:
    """Make a pair, and publish it if people need it. With `replace`, the current pair stays in use, as the old one.

    Raises InvalidRequest (PairExists, OldPairInUse), and OSError if the directory cannot be used.
    """

    def do() -> tuple[PublicKey, str]:
        if replace and (old := kind.previous):
            raise OldPairInUse(f"An old {kind.words} ({old.fingerprint}) is still in use.")
        try:
            key = keys.create(kind.name, comment=_checked(comment) or kind.default_comment, replace=replace)
        except FileExistsError:
            raise PairExists(f"There is already a {kind.words} in {keys.directory()}.") from None
        _publish(kind, key)
        return key, f"made the {kind.words} {key.fingerprint}"

    return _done(kind, actor, address, do)


def retire(kind: PairKind, *, actor: str, address: str = "") -> PublicKey:
    """Delete the old pair that a replacement has kept. Return its public half.

    Raises NoPair, and OSError if the directory cannot be used.
    """

    def do() -> tuple[PublicKey, str]:
        gone = keys.retire_previous(kind.name)
        if gone is None:
            raise NoPair(f"There is no old {kind.words.removeprefix('user ')} to retire.")
        if kind.is_published:
            PublishedSSHKey.objects.filter(line=gone.line).delete()
        return gone, f"retired the {kind.words} {gone.fingerprint}"

    return _done(kind, actor, address, do)


def publish(kind: PairKind, *, actor: str, address: str = "") -> PublicKey:
    """Publish the current pair again. Raises NoPair, and OSError if the directory cannot be used."""

    def do() -> tuple[PublicKey, str]:
        key = kind.current
        if key is None:
            raise NoPair(f"There is no {kind.words} in {keys.directory()}.")
        _publish(kind, key)
        return key, f"published the {kind.words} {key.fingerprint}"

    return _done(kind, actor, address, do)


def is_published(key: PublicKey) -> bool:
    return key.line.split()[:2] in [line.split()[:2] for line in PublishedSSHKey.objects.values_list("line", flat=True)]


def _checked(comment: str) -> str:
    if not comment.isprintable() or len(comment) > MOST_COMMENT:
        text = f"Give at most {MOST_COMMENT} printable characters."
        raise InvalidRequest(f"comment: {text}", errors={"comment": [text]})
    return comment.strip()


def _publish(kind: PairKind, key: PublicKey) -> None:
    if kind.is_published and not is_published(key):
        PublishedSSHKey.objects.create(line=key.line, comment=f"{kind.endpoint}: {key.path}"[:200])


def _done(kind: PairKind, actor: str, address: str, do: Callable[[], tuple[PublicKey, str]]) -> PublicKey:
    with audited(endpoint=kind.endpoint, actor=actor, address=address, holds_changes=True) as record:
        begin(record)
        with _alone():
            key, record.detail = do()
    return key


@contextmanager
def _alone() -> Iterator[None]:
    """Let one process at a time change the pairs: two replacements at once would lose the pair that is in use.

    Raises InvalidRequest if another process changes them now, and OSError.
    """
    folder = os.open(keys.make_key_directory(), os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise InvalidRequest("Another process is changing the SSH keys. Try again.") from None
    finally:
        os.close(folder)
