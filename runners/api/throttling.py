"""The rate limits of the API, per person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.conf import settings
from rest_framework.request import Request
from rest_framework.throttling import SimpleRateThrottle

from runners.models.token import ApiToken

if TYPE_CHECKING:  # a circular import otherwise: DRF's views read the settings, which name this module
    from rest_framework.views import APIView


class Throttle(SimpleRateThrottle):
    """A rate limit from the setting `THROTTLE_<SCOPE>`, such as 600/min; empty: no limit. Counted per process."""

    scope: str

    def get_rate(self) -> str | None:
        return getattr(settings, f"THROTTLE_{self.scope.upper()}") or None

    def get_cache_key(self, request: Request, view: APIView) -> str | None:
        auth = getattr(request, "auth", None)  # only DRF's requests have it; the pages' requests have a session
        if isinstance(auth, ApiToken):
            who = auth.token_key
        elif request.user.is_authenticated:
            who = f"user-{request.user.pk}"
        else:
            who = self.get_ident(request)
        return f"throttle-{self.scope}-{who}"


class CommandThrottle(Throttle):
    """The rate limit of commands; commands of the API and of the pages count together."""

    scope = "commands"


class ReadThrottle(Throttle):
    """The rate limit of all other endpoints (settings: DEFAULT_THROTTLE_CLASSES)."""

    scope = "reads"
