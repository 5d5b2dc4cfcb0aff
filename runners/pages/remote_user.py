"""Sign in who a reverse proxy has authenticated. Active only with RUNNERS_REMOTE_USER_HEADER; see docs/pages.md."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth.backends import RemoteUserBackend
from django.contrib.auth.middleware import RemoteUserMiddleware
from django.http import HttpRequest


class ProxyUserMiddleware(RemoteUserMiddleware):
    """Believes the header of the setting, whoever sends it: the proxy has to remove what clients send."""

    @property
    def header(self) -> str:  # type: ignore[override]  # Django has a class attribute here
        return f"HTTP_{settings.RUNNERS_REMOTE_USER_HEADER.upper().replace('-', '_')}"


class ProxyUserBackend(RemoteUserBackend):
    """Accounts that are switched off stay out. Unknown people get an account without rights of its own."""

    @property
    def create_unknown_user(self) -> bool:  # type: ignore[override]
        return bool(settings.RUNNERS_REMOTE_USER_CREATE)

    def configure_user(self, request: HttpRequest | None, user: Any, created: bool = True) -> Any:
        if created:
            user.set_unusable_password()  # only the proxy lets them in
            user.save()
        return user
