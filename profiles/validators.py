"""The rules for single values, used by both `RunnerProfile.clean()` and `RunnerProfile.resolve()`.

Each takes a text and raises Django's ValidationError with a sentence that names the remedy. Every value is also quoted
before it reaches a shell. These rules come first, because a value that needs quoting is a mistake or an attack.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
import unicodedata
from collections.abc import Sequence
from pathlib import PurePosixPath

from django.core.exceptions import ValidationError

MAX_NAME = 100
MAX_HOST = 253  # the longest DNS name; its labels have at most 63 characters
MAX_USER = 64
MAX_PATH = 1024
MAX_MODULES = 50
MAX_SILENT_AFTER = 366 * 86400  # seconds
MAX_KEY = 2500  # characters: an 8192-bit RSA key has 1400; PostgreSQL indexes at most 2704 bytes

_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_LABEL = "[A-Za-z0-9_-]{1,63}"
_HOST = re.compile(rf"(?!-){_LABEL}(\.{_LABEL})*\.?")
_IPV6 = re.compile(r"[0-9A-Fa-f:.]+(%[A-Za-z0-9_.-]+)?")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]*")


def shown(value: object, limit: int = 60) -> str:
    """Return a rejected value for an error text: always printable and short."""
    if isinstance(value, str):
        cut = value[:limit]
        text = f"'{cut}'" if cut.isprintable() else ascii(cut)
        return f"{text}… ({len(value)} characters)" if len(value) > limit else text
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float) or (isinstance(value, int) and value.bit_length() < 64):
        return str(value)
    return kind(value)


def kind(value: object) -> str:
    """Return the type of a JSON or YAML value in words, for `Give a text, not ...`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    return "a text" if isinstance(value, str) else f"a {type(value).__name__}"


def one_of(words: Sequence[str]) -> str:
    """Return alternatives as text, such as `a, b or c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def validate_name(value: str) -> None:
    """Validate the name of a profile."""
    if len(value) > MAX_NAME or not _NAME.fullmatch(value):
        raise ValidationError(
            f"{shown(value)} is not a valid profile name. Use 1 to {MAX_NAME} letters, digits and _ . - (no accents, "
            f"no blanks)."
        )


def validate_host(value: str) -> None:
    """Validate a host name, an IPv4 or IPv6 address, or an alias of ~/.ssh/config."""
    if len(value) <= MAX_HOST:
        if _HOST.fullmatch(value):
            return
        if _IPV6.fullmatch(value):
            try:
                ipaddress.IPv6Address(value)
            except ValueError:
                pass
            else:
                return
    if "@" in value[:MAX_HOST]:
        remedy = "Give the user in SSH.USER, and only the host here."
    elif re.fullmatch(r"[A-Za-z0-9_.-]+:[0-9]+", value[:MAX_HOST]):
        remedy = "Give the port in SSH.PORT, and only the host here."
    elif value.startswith("["):
        remedy = "Give an IPv6 address without brackets."
    else:
        remedy = (
            "Give a host name, an IP address or an alias of ~/.ssh/config (letters, digits and _ -, at most 63 "
            "between two dots)."
        )
    raise ValidationError(f"{shown(value)} is not a valid host name. {remedy}")


def validate_user(value: str) -> None:
    """Validate an account on another machine."""
    if len(value) > MAX_USER or not _USER.fullmatch(value):
        raise ValidationError(
            f"{shown(value)} is not a valid user name. Use up to {MAX_USER} letters, digits and _ . @ + -, without a "
            f"leading -."
        )


def validate_path(value: str) -> None:
    """Validate an absolute path. A colon is rejected: it would split the path into two entries of PATH."""
    is_plain = value.startswith("/") and value.isprintable() and ":" not in value
    if len(value) > MAX_PATH or not is_plain or ".." in PurePosixPath(value).parts:
        raise ValidationError(
            f"{shown(value)} is not an absolute path. Begin with /, such as /opt/autosubmit. Do not use ~, variables, "
            f".., colons or control characters."
        )


def validate_module(value: str) -> None:
    """Validate a module by the rules that hold for every loader, for profiles that leave the loader open."""
    if len(value) > MAX_PATH or value.startswith("-") or not value.isprintable():
        raise ValidationError(
            f"{shown(value)}"
            f" is not a valid module. It must not begin with -, contain control characters, or have more than "
            f"{MAX_PATH} characters."
        )


def validate_public_key(value: str) -> None:
    """Validate one line to publish. It may be no real key (see `is_public_key`), but a private key is rejected."""
    if "PRIVATE KEY" in value:
        raise ValidationError("This is a private key. Keep it secret, and give the line of its .pub file.")
    if len(value) > MAX_KEY or not value.strip() or not value.isprintable():
        raise ValidationError(
            f"{shown(value, 30)} is not a public key. Give the line of a .pub file, such as 'ssh-ed25519 AAAA... name'."
        )


def is_public_key(line: str) -> bool:
    """Return True if a line looks like an OpenSSH public key. This check uses no cryptography library."""
    words = line.split(None, 2)
    if len(words) < 2:
        return False
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (binascii.Error, ValueError):
        return False
    name = words[0].encode()
    return blob.startswith(len(name).to_bytes(4, "big") + name)


def validate_preferred_username(value: str) -> None:
    """Validate the account that the GUI offers a person as SSH.USER."""
    validate_user(value)


def canonical(name: str) -> str:
    """Return the same text for all names that look the same: NFKC, case-insensitive."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
