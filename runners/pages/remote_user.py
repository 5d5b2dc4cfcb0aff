"""Sign in the person whom a reverse proxy has authenticated. Needs RUNNERS_REMOTE_USER_HEADER; see docs/pages.md."""

from __future__ import annotations

import logging
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.backends import RemoteUserBackend
from django.contrib.auth.middleware import RemoteUserMiddleware
from django.core.exceptions import ValidationError
from django.http import HttpRequest

from profiles.validators import shown
from runners_project.secrets_in_use import is_secret

logger = logging.getLogger(__name__)

SECRET_HEADER = "X-Remote-User-Secret"  # noqa: S105  (its name, not its value)


class ProxyUserMiddleware(RemoteUserMiddleware):
    """Trust the header of the setting, but only in requests that prove to come from the proxy.

    A proof is needed because other local users can reach a service on 127.0.0.1, too. The proof is
    RUNNERS_REMOTE_USER_SECRET in a separate header, or with RUNNERS_REMOTE_USER_SOCKET, that the request came through
    a Unix socket. Without the proof the header is ignored.
    """

    @property
    def header(self) -> str:  # type: ignore[override]  # Django has a class attribute here
        return _meta_name(settings.RUNNERS_REMOTE_USER_HEADER)

    def process_request(self, request: HttpRequest) -> None:
        if not is_from_proxy(request):
            request.META.pop(self.header, None)
        super().process_request(request)


def is_from_proxy(request: HttpRequest) -> bool:
    """Return True if the request has the proof that the settings require. With both settings it needs both proofs."""
    if settings.RUNNERS_REMOTE_USER_SOCKET and request.META.get("REMOTE_ADDR"):
        return False  # over TCP: with a Unix socket, servers give no address of the client (seen: gunicorn 27)
    if settings.RUNNERS_REMOTE_USER_SECRET:
        sent = request.META.get(_meta_name(SECRET_HEADER), "")
        return is_secret("RUNNERS_REMOTE_USER_SECRET", sent.encode("utf-8", "replace"))
    return bool(settings.RUNNERS_REMOTE_USER_SOCKET)


def _meta_name(header: str) -> str:
    return f"HTTP_{header.upper().replace('-', '_')}"


class ProxyUserBackend(RemoteUserBackend):
    """The backend for people whom the proxy has authenticated. It rejects inactive accounts.

    With RUNNERS_REMOTE_USER_CREATE, an unknown person gets an account without any rights.
    """

    @property
    def create_unknown_user(self) -> bool:  # type: ignore[override]
        return bool(settings.RUNNERS_REMOTE_USER_CREATE)

    def authenticate(self, request: HttpRequest, remote_user: str) -> Any:  # type: ignore[override]  # as the base
        """Return the user; None if the name is invalid or looks like another account's name. The log says which."""
        name = self.clean_username(remote_user)
        try:
            if not get_user_model().objects.filter(username=name.replace("\0", "")).exists():
                get_user_model()._meta.get_field("username").clean(name, None)
            return super().authenticate(request, remote_user=remote_user)
        except ValidationError as error:
            logger.warning("The proxy's user %s is not signed in: %s", shown(name), error.messages[0])
            return None

    def clean_username(self, username: str) -> str:
        """Decode the name as UTF-8, which proxies send. WSGI gives each byte as one character."""
        try:
            return username.encode("latin-1").decode()
        except UnicodeError:
            return username

    def configure_user(self, request: HttpRequest | None, user: Any, created: bool = True) -> Any:
        if created:
            user.set_unusable_password()  # so that the person can sign in only through the proxy
            user.save()
        return user
