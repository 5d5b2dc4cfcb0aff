"""Who is asking: our own tokens, the Autosubmit API's credentials, or the session of somebody signed in to the admin.

PROTECTION_LEVEL decides who has to say so, with the Autosubmit API's words:
ALL        every request needs credentials
WRITEONLY  reading is open (status and configuration), commands need credentials
NONE       everything is open

The Autosubmit API has two kinds of credentials (seen on 4.2.0): JWTs, which it signs with its SECRET_KEY when somebody
has logged in, and one fixed token for scripts, its AS_API_SECRET_TOKEN, which is compared as it is.
"""

from __future__ import annotations

import hmac
from datetime import timedelta
from typing import Any

import jwt
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.utils import timezone
from knox.crypto import hash_token
from rest_framework import authentication, exceptions
from rest_framework.request import Request

from runners.models_auth import ApiToken, TokenScope

LAST_USED_PRECISION = timedelta(minutes=5)  # a write per request would cost more than the fact is worth
JWT_LEEWAY = 10  # seconds that the clocks of the two services may differ
SCRIPT_USER = "User"  # whom the Autosubmit API takes the holder of its fixed token for


def required_scope(request: Request) -> str:
    """What a request needs: the view's `required_scope`, else `read` for reading methods and `run` for the others."""
    scope = getattr(request.parser_context["view"], "required_scope", None)
    return scope or (TokenScope.READ if request.method in ("GET", "HEAD", "OPTIONS") else TokenScope.RUN)


def is_open(request: Request) -> bool:
    """Whether PROTECTION_LEVEL lets everybody ask this."""
    level = settings.PROTECTION_LEVEL
    return level == "NONE" or (level == "WRITEONLY" and required_scope(request) == TokenScope.READ)


class BearerAuthentication(authentication.BaseAuthentication):
    """`Authorization: Bearer ...` with one of our tokens (they begin with asr_) or a credential of the Autosubmit API.

    On an open endpoint bad credentials count as none: today's GUI keeps sending an old token when protection is off.
    """

    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        words = authentication.get_authorization_header(request).split()
        if not words or words[0].lower() not in (b"bearer", b"token"):
            return None
        try:
            if len(words) != 2:
                raise exceptions.AuthenticationFailed("Write the header as 'Authorization: Bearer TOKEN'.")
            credential = words[1].decode("ascii", "replace")
            if credential.startswith(settings.REST_KNOX["TOKEN_PREFIX"]):
                return self._by_token(credential)
            if settings.AS_API_SECRET_TOKEN and hmac.compare_digest(
                credential.encode(), settings.AS_API_SECRET_TOKEN.encode()
            ):
                return _api_user(SCRIPT_USER), {"user_id": SCRIPT_USER}
            return self._by_jwt(credential)
        except exceptions.AuthenticationFailed:
            if is_open(request):
                return None
            raise

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="Autosubmit Runners"'

    def _by_token(self, credential: str) -> tuple[Any, ApiToken]:
        token = ApiToken.objects.select_related("user").filter(digest=hash_token(credential)).first()
        now = timezone.now()
        if token is None:
            raise exceptions.AuthenticationFailed("This token is not known. Ask an admin for a new one.")
        if token.expiry and token.expiry < now:
            raise exceptions.AuthenticationFailed(f"This token expired on {token.expiry:%Y-%m-%d}. Ask for a new one.")
        _require_active(token.user)
        if token.last_used is None or now - token.last_used > LAST_USED_PRECISION:
            ApiToken.objects.filter(pk=token.pk).update(last_used=now)
        return token.user, token

    def _by_jwt(self, credential: str) -> tuple[Any, dict[str, Any]]:
        if not settings.AS_API_JWT_SECRET:
            raise exceptions.AuthenticationFailed("This is no token of this service (they begin with asr_).")
        try:
            claims = jwt.decode(
                credential,
                settings.AS_API_JWT_SECRET,
                algorithms=["HS256"],
                options={"require": ["exp", "user_id"], "verify_aud": False},
                leeway=JWT_LEEWAY,
            )
        except jwt.ExpiredSignatureError:
            raise exceptions.AuthenticationFailed("The login has expired. Sign in again.") from None
        except jwt.InvalidTokenError:
            raise exceptions.AuthenticationFailed("The token is not valid here. Sign in again.") from None
        return _api_user(claims["user_id"]), claims


def _api_user(user_id: object) -> AbstractBaseUser:
    """Whom the Autosubmit API vouches for; a user without a password when seen for the first time.

    Groups count by the name. What makes an admin here does not: another service's word, or a shared secret, must not
    reach past the groups of a profile.
    """
    model = get_user_model()
    # PostgreSQL compares no text that holds a NUL.
    is_text = isinstance(user_id, str) and "\0" not in user_id
    user = model.objects.filter(username=user_id).first() if is_text else None
    if user is None:
        try:
            if not isinstance(user_id, str):
                raise ValidationError("no text")
            name = model._meta.get_field("username").clean(user_id, None)
        except ValidationError:
            raise exceptions.AuthenticationFailed(
                "The token names no valid user, or one whose name looks like another account's."
            ) from None
        user, _ = model.objects.get_or_create(username=name, defaults={"password": make_password(None)})
    _require_active(user)
    user.is_staff = user.is_superuser = False  # of this request; the row keeps what it has
    return user


def _require_active(user: AbstractBaseUser) -> None:
    if not user.is_active:
        raise exceptions.AuthenticationFailed("This account is switched off. Ask an admin.")


class AdminSessionAuthentication(authentication.SessionAuthentication):
    """Somebody signed in to the admin, such as a person who tries the API in /docs.

    A session without the CSRF token counts as no credentials. Refusing it would break the GUI for an admin when both
    are served from one origin: the GUI's requests then carry the admin's cookie, but never the token.
    """

    def authenticate(self, request: Request) -> tuple[Any, None] | None:
        try:
            return super().authenticate(request)
        except exceptions.PermissionDenied:
            return None
