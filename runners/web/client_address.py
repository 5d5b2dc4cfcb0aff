"""The address of a client, as rate limits count it and the audit log shows it."""

from __future__ import annotations

from django.http import HttpRequest
from rest_framework.throttling import BaseThrottle

AUDIT_LIMIT = 64  # characters of an address in the audit log


def client_address(request: HttpRequest) -> str:
    """Return the address of the client. Behind proxies it is that of X-Forwarded-For, as NUM_PROXIES says."""
    return BaseThrottle().get_ident(request)  # type: ignore[arg-type]  # it reads only META
