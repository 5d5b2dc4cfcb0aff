"""The signature of a message, as Standard Webhooks defines it. The form of the secret: models/webhook.py."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence

from runners.models.webhook import secret_bytes


def sign(secrets: Sequence[str], message_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of the header `webhook-signature`: one signature for each secret, separated by blanks.

    A receiver accepts a message if one of the signatures is right, so a secret can be changed without a gap.
    `timestamp` is in seconds since 1970. Raises ValueError if a secret is not valid.
    Source: Standard Webhooks, "Webhook signatures".
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    digests = [hmac.digest(secret_bytes(secret), signed, hashlib.sha256) for secret in secrets]
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)
