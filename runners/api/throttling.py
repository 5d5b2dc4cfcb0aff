"""DRF's throttle classes of the API. runners/web/throttling.py counts."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from runners.models import ApiToken
from runners.web.throttling import seconds_to_wait, sender_of

if TYPE_CHECKING:  # a circular import otherwise: DRF's views read the settings, which name this module
    from rest_framework.views import APIView


def _sender_of(request: Request) -> str:
    return sender_of(request, request.auth if isinstance(request.auth, ApiToken) else None)


class Throttle(BaseThrottle):
    """The rate limit of one person. `scope` names the setting, THROTTLE_<SCOPE>."""

    scope: str
    _wait = 0

    def allow_request(self, request: Request, view: APIView) -> bool:
        self._wait = seconds_to_wait(self.scope, partial(_sender_of, request))
        return not self._wait

    def wait(self) -> float | None:
        return self._wait or None


class CommandThrottle(Throttle):
    """The rate limit of commands."""

    scope = "commands"


class ReadThrottle(Throttle):
    """The rate limit of all other endpoints (settings: DEFAULT_THROTTLE_CLASSES)."""

    scope = "reads"
