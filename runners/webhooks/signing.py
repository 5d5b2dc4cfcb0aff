"""The signature of a message, as Standard Webhooks defines it. The form of the secret: models/webhook.py."""

from __future__ import annotations

import base64
import hashlib
import hmac

from runners.models.webhook import secret_bytes


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of the header `webhook-signature`. `timestamp` is in seconds since 1970.

    Raises ValueError if the secret is not valid.
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret_bytes(secret), signed, hashlib.sha256)).decode()
