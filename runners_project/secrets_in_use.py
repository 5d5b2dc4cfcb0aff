"""Compare a text that somebody has sent with a secret of the settings and its fallbacks."""

from __future__ import annotations

import hmac

from django.conf import settings


def in_use(name: str) -> list[str]:
    """Return the secret of this setting and its fallbacks; an empty list if the setting is empty."""
    secret: str = getattr(settings, name)
    fallbacks: list[str] = getattr(settings, f"{name}_FALLBACKS")
    return [secret, *fallbacks] if secret else []


def is_secret(name: str, text: bytes) -> bool:
    """Return True if `text` is the secret of this setting or one of its fallbacks, compared in constant time."""
    return any(hmac.compare_digest(text, secret.encode()) for secret in in_use(name))
