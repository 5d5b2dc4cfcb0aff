"""Settings from environment variables. An empty variable counts as not set; a malformed one stops the start."""

from __future__ import annotations

import hashlib
import ipaddress
import os

from django.core.exceptions import ImproperlyConfigured

TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"0", "false", "no", "off"})


def envstr(name: str, default: str = "") -> str:
    return os.environ.get(name, "").strip() or default


def envsecret(name: str, *, published: str, what: str) -> str:
    """A secret, but not the one with the SHA-256 `published`, which is no secret: `what` says whose it is."""
    text = envstr(name)
    if hashlib.sha256(text.encode()).hexdigest() == published:
        raise ImproperlyConfigured(
            f"{name} is {what}, which everybody can read: with it anybody could sign in as anybody. Make another with: "
            "python3 -c 'import secrets; print(secrets.token_urlsafe(50))' and give it to both services."
        )
    return text


def envbool(name: str, default: bool) -> bool:
    text = envstr(name).lower()
    if not text:
        return default
    if text not in TRUE | FALSE:
        raise ImproperlyConfigured(f"{name} is '{text}': use 1 or 0 (also true/false, yes/no, on/off).")
    return text in TRUE


def envint(name: str, default: int) -> int:
    text = envstr(name)
    try:
        return int(text) if text else default
    except ValueError:
        raise ImproperlyConfigured(f"{name} is '{text}': use a whole number.") from None


def envfloat(name: str, default: float) -> float:
    text = envstr(name)
    try:
        return float(text) if text else default
    except ValueError:
        raise ImproperlyConfigured(f"{name} is '{text}': use a number.") from None


def envlist(name: str, default: list[str] | None = None) -> list[str]:
    """Items separated by commas; blanks around them are dropped."""
    items = [item.strip() for item in os.environ.get(name, "").split(",")]
    return [item for item in items if item] or list(default or [])


def envchoice(name: str, default: str, choices: tuple[str, ...]) -> str:
    value = envstr(name, default).upper()
    if value not in choices:
        raise ImproperlyConfigured(f"{name} is '{value}': use one of {', '.join(choices)}.")
    return value


def envrate(name: str, default: str) -> str:
    """`600/min` and the like (s, min, h, d); "" for `off`."""
    text = envstr(name, default).lower()
    if text in FALSE:
        return ""
    number, _, period = text.partition("/")
    if not (number.isdecimal() and int(number) and period[:1] in {"s", "m", "h", "d"}):
        raise ImproperlyConfigured(f"{name} is '{text}': use a rate such as 600/min, or off.")
    return text


def envnetworks(name: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Networks (`10.0.0.0/8`) and single addresses, separated by commas."""
    try:
        return [ipaddress.ip_network(item, strict=False) for item in envlist(name)]
    except ValueError as error:
        raise ImproperlyConfigured(f"{name}: {error}: use networks such as 10.0.0.0/8 or ::1.") from None
