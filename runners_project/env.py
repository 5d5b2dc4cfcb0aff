"""Settings from environment variables. An empty variable counts as not set. A malformed one prevents the start."""

from __future__ import annotations

import hashlib
import ipaddress
import math
import os

from django.core.exceptions import ImproperlyConfigured

TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"0", "false", "no", "off"})


def envstr(name: str, default: str = "") -> str:
    return os.environ.get(name, "").strip() or default


SECRET_LENGTH = 32  # characters
SECRET_VARIETY = 8  # different characters
PLACEHOLDERS = (
    *("changeme", "change_me", "change-me", "replaceme", "replace_me", "replace-me", "placeholder", "django-insecure"),
    *("your-secret", "your_secret", "yoursecret", "secret-key-here", "secret_key_here", "...", "\u2026", "xxxx"),
)
MAKE_ANOTHER = "Create one with: python3 -c 'import secrets; print(secrets.token_urlsafe(50))'"


def weakness(secret: str) -> str:
    """Return why a secret is too weak, or "" if it is strong enough. The reason does not repeat the secret."""
    if len(secret) < SECRET_LENGTH:
        return f"has {len(secret)} characters, and {SECRET_LENGTH} are needed"
    if len(set(secret)) < SECRET_VARIETY:
        return f"has only {len(set(secret))} different characters"
    found = next((word for word in PLACEHOLDERS if word in secret.lower()), "")
    return f"is a placeholder (it contains '{found}')" if found else ""


def envsecret(name: str, *, published: str = "", what: str = "") -> str:
    """Return a secret of at least 32 characters, or "" if the variable is not set. Raises ImproperlyConfigured.

    Reject the well-known default whose SHA-256 is `published`; `what` names its origin in the error.
    """
    text = envstr(name)
    if published and hashlib.sha256(text.encode()).hexdigest() == published:
        raise ImproperlyConfigured(
            f"{name} is {what}, which is public: with it anybody could sign in as anybody. Create another one with: "
            "python3 -c 'import secrets; print(secrets.token_urlsafe(50))' and give it to both services."
        )
    if text and (why := weakness(text)):
        both = "" if name == "SECRET_KEY" else " and give it to both services"
        raise ImproperlyConfigured(
            f"{name} {why}: a person who guesses it can sign in as anybody. {MAKE_ANOTHER}{both}."
        )
    return text


def envfallbacks(name: str) -> list[str]:
    """Return older values of a secret that are still accepted, separated by commas. Raises ImproperlyConfigured."""
    found = envlist(name)
    for secret in found:
        if why := weakness(secret):
            raise ImproperlyConfigured(f"{name}: one of its secrets {why}. Remove it.")
    return found


def envtoken(name: str) -> str:
    """Return a token that other programs send to the service, or "" if the variable is not set.

    Raises ImproperlyConfigured if it is easy to guess.
    """
    text = envstr(name)
    if text and (why := weakness(text)):
        raise ImproperlyConfigured(f"{name} {why}: a person who guesses it can use it. {MAKE_ANOTHER}.")
    return text


def envmask(name: str, default: int) -> int:
    """Return a umask that is given in octal, such as 027."""
    text = envstr(name)
    if not text:
        return default
    if len(text) > 4 or not set(text) <= set("01234567") or int(text, 8) > 0o777:
        raise ImproperlyConfigured(f"{name} is '{text}': use a umask such as 022 or 027.")
    return int(text, 8)


def envbool(name: str, default: bool) -> bool:
    text = envstr(name).lower()
    if not text:
        return default
    if text not in TRUE | FALSE:
        raise ImproperlyConfigured(f"{name} is '{text}': use 1 or 0 (also true/false, yes/no, on/off).")
    return text in TRUE


def envint(name: str, default: int, *, least: int | None = None, most: int | None = None) -> int:
    """Return a whole number from `least` to `most`. Raises ImproperlyConfigured."""
    text = envstr(name)
    try:
        value = int(text) if text else default
    except ValueError:
        raise ImproperlyConfigured(f"{name} is '{text}': use a whole number.") from None
    check_number(name, value, least=least, most=most)
    return value


def envfloat(name: str, default: float, *, least: float | None = None, most: float | None = None) -> float:
    """Return a finite number from `least` to `most`. Raises ImproperlyConfigured."""
    text = envstr(name)
    try:
        value = float(text) if text else default
    except ValueError:
        raise ImproperlyConfigured(f"{name} is '{text}': use a number.") from None
    if not math.isfinite(value):
        raise ImproperlyConfigured(f"{name} is '{text}': use a number.")
    check_number(name, value, least=least, most=most)
    return value


def check_number(name: str, value: object, *, least: float | None = None, most: float | None = None) -> None:
    """Raise ImproperlyConfigured unless `value` is a number from `least` to `most`."""
    if not isinstance(value, int | float):
        raise ImproperlyConfigured(f"{name} is '{value}': use a number.")
    if least is not None and value < least:
        raise ImproperlyConfigured(f"{name} is {value:g}: use {least:g} or more.")
    if most is not None and value > most:
        raise ImproperlyConfigured(f"{name} is {value:g}: use {most:g} or less.")


def envlist(name: str, default: list[str] | None = None) -> list[str]:
    """Return items that are separated by commas, without blanks around them."""
    items = [item.strip() for item in os.environ.get(name, "").split(",")]
    return [item for item in items if item] or list(default or [])


def envpaths(name: str) -> list[str]:
    """Return absolute paths that are separated by commas."""
    paths = envlist(name)
    for path in paths:
        if not path.startswith("/") or "/../" in f"{path}/" or not path.isprintable():
            raise ImproperlyConfigured(f"{name}: '{path}' is not an absolute path without '..'.")
    return paths


def envchoice(name: str, default: str, choices: tuple[str, ...]) -> str:
    value = envstr(name, default).upper()
    if value not in choices:
        raise ImproperlyConfigured(f"{name} is '{value}': use one of {', '.join(choices)}.")
    return value


def envrate(name: str, default: str) -> str:
    """Return a rate such as `600/min` (s, min, h, d), or "" for `off`."""
    text = envstr(name, default).lower()
    if text in FALSE:
        return ""
    number, _, period = text.partition("/")
    if not (number.isdecimal() and int(number) and period[:1] in {"s", "m", "h", "d"}):
        raise ImproperlyConfigured(f"{name} is '{text}': use a rate such as 600/min, or off.")
    return text


def envnetworks(name: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Return networks (`10.0.0.0/8`) and single addresses that are separated by commas."""
    try:
        return [ipaddress.ip_network(item, strict=False) for item in envlist(name)]
    except ValueError as error:
        raise ImproperlyConfigured(f"{name}: {error}: use networks such as 10.0.0.0/8 or ::1.") from None
