"""Authentication: our own tokens, the credentials of the Autosubmit API, or a session of the admin.

PROTECTION_LEVEL decides which requests need credentials. Its values are those of the Autosubmit API:
ALL        every request needs credentials
WRITEONLY  reading is open (status and configuration), commands need credentials
NONE       everything is open

The Autosubmit API has two kinds of credentials (seen on 4.2.0): JWTs, which it signs with its SECRET_KEY when somebody
logs in, and one fixed token for scripts, its AS_API_SECRET_TOKEN, which is compared as a text.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any

import jwt
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError
from rest_framework import authentication, exceptions
from rest_framework.request import Request

from runners.models.token import TOKEN_PREFIX, ApiToken, TokenScope, hash_token
from runners_project import clock
from runners_project.secrets_in_use import in_use, is_secret

LAST_USED_PRECISION = timedelta(minutes=5)  # writing `last_used` for each request would cost too much
JWT_LEEWAY = 10  # seconds that the clocks of the two services may differ
SCRIPT_USER = "User"  # the user name that the Autosubmit API gives to requests with its fixed token


def required_scope(request: Request) -> str:
    """Return the scope that a request needs: the view's `required_scope`, else `read` for safe methods, else `run`."""
    scope = getattr(request.parser_context["view"], "required_scope", None)
    return scope or (TokenScope.READ if request.method in ("GET", "HEAD", "OPTIONS") else TokenScope.RUN)


def is_open(request: Request) -> bool:
    """Return True if PROTECTION_LEVEL allows this request without credentials."""
    level = settings.PROTECTION_LEVEL
    return level == "NONE" or (level == "WRITEONLY" and required_scope(request) == TokenScope.READ)


class BearerAuthentication(authentication.BaseAuthentication):
    """`Authorization: Bearer ...` with one of our tokens (they begin with asr_) or a credential of the Autosubmit API.

    On an open endpoint, invalid credentials count as none, because today's GUI keeps sending an old token when
    protection is off.
    """

    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        header = authentication.get_authorization_header(request)
        try:
            return user_of(header)
        except exceptions.AuthenticationFailed:
            if is_open(request):
                return None
            raise

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="Autosubmit Runners"'


def user_of(header: bytes) -> tuple[Any, Any] | None:
    """Return the user and the token, or the claims, of a header `Authorization`. None: it has no bearer credentials.

    Raises AuthenticationFailed.
    """
    words = header.split()
    if not words or words[0].lower() not in (b"bearer", b"token"):
        return None
    if len(words) != 2:
        raise exceptions.AuthenticationFailed("Write the header as 'Authorization: Bearer TOKEN'.")
    credential = words[1].decode("ascii", "replace")
    if credential.startswith(TOKEN_PREFIX):
        return _by_token(credential)
    if is_secret("AS_API_SECRET_TOKEN", credential.encode()):
        return _api_user(SCRIPT_USER), {"user_id": SCRIPT_USER}
    return _by_jwt(credential)


def _by_token(credential: str) -> tuple[Any, ApiToken]:
    token = ApiToken.objects.with_digest(hash_token(credential))
    now = clock.now()
    if token is None:
        raise exceptions.AuthenticationFailed("Invalid token. Ask an admin for a new one.")
    if token.expiry and token.expiry < now:
        raise exceptions.AuthenticationFailed(f"This token expired on {token.expiry:%Y-%m-%d}. Ask for a new one.")
    _require_active(token.user)
    if token.last_used is None or now - token.last_used > LAST_USED_PRECISION:
        ApiToken.objects.filter(pk=token.pk).update(last_used=now)
    return token.user, token


def _by_jwt(credential: str) -> tuple[Any, dict[str, Any]]:
    if not settings.AS_API_JWT_SECRET:
        raise exceptions.AuthenticationFailed("This is not a token of this service (they begin with asr_).")
    try:
        claims = _claims(credential)
        is_expired = _is_expired(claims)
    except (jwt.InvalidTokenError, ValueError, TypeError, OverflowError):
        raise exceptions.AuthenticationFailed("Invalid token. Sign in again.") from None
    if is_expired:
        raise exceptions.AuthenticationFailed("The login has expired. Sign in again.")
    return _api_user(claims["user_id"]), claims


def _claims(credential: str) -> dict[str, Any]:
    """Return the claims of a JWT that was signed with AS_API_JWT_SECRET or a fallback. Raises jwt.InvalidTokenError.

    Its times are not checked: see `_is_expired`.
    """
    *others, last = in_use("AS_API_JWT_SECRET")
    for secret in others:
        with suppress(jwt.InvalidSignatureError):
            return _decoded(credential, secret)
    return _decoded(credential, last)


def _decoded(credential: str, secret: str) -> dict[str, Any]:
    return jwt.decode(
        credential,
        secret,
        algorithms=["HS256"],
        options={
            "require": ["exp", "user_id"],
            "verify_aud": False,
            "verify_exp": False,
            "verify_iat": False,
            "verify_nbf": False,
        },
    )


def _is_expired(claims: dict[str, Any]) -> bool:
    """Return True if a login is over. Raises ValueError, TypeError, OverflowError if it is not valid yet or malformed.

    PyJWT would compare with the clock of this node.
    """
    now = clock.now().timestamp()
    if max(int(claims.get("iat", 0)), int(claims.get("nbf", 0))) > now + JWT_LEEWAY:
        raise ValueError("The token is not valid yet.")
    return int(claims["exp"]) <= now - JWT_LEEWAY


def _api_user(user_id: object) -> AbstractBaseUser:
    """Return the user whom the Autosubmit API names. A new name gets a user without a password.

    The user's groups apply. The flags `is_staff` and `is_superuser` are off for the request: the claim of another
    service, or a shared secret, must not override the groups of a profile.
    """
    model = get_user_model()
    # No database can look up a name with an unpaired surrogate, and PostgreSQL none with a NUL: both are not printable.
    is_text = isinstance(user_id, str) and user_id.isprintable()
    user = model.objects.filter(username=user_id).first() if is_text else None
    if user is None:
        try:
            if not isinstance(user_id, str):
                raise ValidationError("no text")
            name = model._meta.get_field("username").clean(user_id, None)
        except ValidationError:
            raise exceptions.AuthenticationFailed(
                "The user name in the token is invalid, or too similar to the name of another account."
            ) from None
        user, _ = model.objects.get_or_create(username=name, defaults={"password": make_password(None)})
    _require_active(user)
    user.is_staff = user.is_superuser = False  # for this request only; the row is not saved
    return user


def _require_active(user: AbstractBaseUser) -> None:
    if not user.is_active:
        raise exceptions.AuthenticationFailed("This account is deactivated. Ask an admin.")


class AdminSessionAuthentication(authentication.SessionAuthentication):
    """The session of a person who is signed in to the admin, for example to try the API in /docs.

    A session without the CSRF token counts as no credentials. Rejecting it would break the GUI for an admin if both are
    served from one origin: then the GUI's requests have the admin's cookie, but never the CSRF token.
    """

    def authenticate(self, request: Request) -> tuple[Any, None] | None:
        try:
            return super().authenticate(request)
        except exceptions.PermissionDenied:
            return None
