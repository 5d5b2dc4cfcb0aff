"""The login of the command line, its end, and who is signed in."""

from __future__ import annotations

from typing import Any

from django.core.cache import caches
from django.urls import reverse
from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from runners.api.login.serializers import (
    LoggedOut,
    LoginPolled,
    LoginStarted,
    PollLoginRequest,
    StartLoginRequest,
    WhoAmI,
)
from runners.api.openapi.describe import BODY, READING, problems
from runners.exceptions import TooManyRequests
from runners.models import ApiToken, TokenScope
from runners.models.token import hash_token
from runners.services import device_login
from runners.web.client_address import client_address

_TAGS = ["user settings"]
_OPEN = ("throttled", "database_unavailable", *BODY)  # the errors of requests that need no credentials


class OpenAPIView(APIView):
    """A view that nobody needs credentials for, and that reads none."""

    authentication_classes = []
    permission_classes = []


class StartLoginView(OpenAPIView):
    @extend_schema(
        operation_id="start_login",
        summary="Begin a login with a browser",
        description="For programs without a browser, as in RFC 8628. Show the person `verification_uri` and "
        "`user_code`, and send `poll_login` until its status is no longer `pending`. Needs no credentials. At most "
        "10 logins per minute and address.",
        tags=_TAGS,
        request=StartLoginRequest,
        responses={200: LoginStarted, **problems(*_OPEN)},
    )
    def post(self, request: Request) -> Response:
        serializer = StartLoginRequest(data=request.data)
        serializer.is_valid(raise_exception=True)
        started = device_login.start(**serializer.validated_data, address=client_address(request))
        page = request.build_absolute_uri(reverse("pages:device"))
        return Response(
            {
                "device_code": started.device_code,
                "user_code": started.user_code,
                "verification_uri": page,
                "verification_uri_complete": f"{page}?code={started.user_code}",
                "expires_in": device_login.SECONDS,
                "interval": device_login.INTERVAL,
            },
            headers={"Cache-Control": "no-store"},
        )


class PollLoginView(OpenAPIView):
    @extend_schema(
        operation_id="poll_login",
        summary="Get the token of an approved login",
        description="`approved` has the token, once: the login is then `expired`. An unknown code is `expired`, "
        "too. The token is listed with the person's other tokens, and can be revoked there. Needs no credentials.",
        tags=_TAGS,
        request=PollLoginRequest,
        responses={200: LoginPolled, **problems(*_OPEN)},
    )
    def post(self, request: Request) -> Response:
        serializer = PollLoginRequest(data=request.data)
        serializer.is_valid(raise_exception=True)
        code = serializer.validated_data["device_code"]
        # Each server process counts for itself, so the interval is a protection against loops, not a promise.
        if not caches["login-polls"].add(hash_token(code), True, device_login.INTERVAL - 1):
            raise TooManyRequests(
                f"Wait {device_login.INTERVAL} s between two requests.", retry_after=device_login.INTERVAL
            )
        polled = device_login.poll(code, address=client_address(request))
        return Response(
            {
                "status": polled.status,
                "token": polled.text,
                "username": polled.token.user.get_username() if polled.token else "",
                "facts": facts_of(polled.token) if polled.token else None,
            },
            headers={"Cache-Control": "no-store"},
        )


class WhoAmIView(APIView):
    @extend_schema(
        operation_id="who_am_i",
        summary="Who sends this request",
        description="The person, and the token if the request has one. 404 without a signed-in person.",
        tags=_TAGS,
        responses={200: WhoAmI, **problems(*READING, "not_found")},
    )
    def get(self, request: Request) -> Response:
        user = request.user
        if not user.is_authenticated:
            raise NotFound("Not signed in. Send a token.")
        token = request.auth if isinstance(request.auth, ApiToken) else None
        return Response(
            {
                "username": user.get_username(),
                "is_staff": bool(user.is_staff),
                "token": facts_of(token) if token else None,
            }
        )


class LogoutView(APIView):
    required_scope = TokenScope.READ

    @extend_schema(
        operation_id="revoke_this_token",
        summary="Revoke the token of this request",
        description="404 if the request has no token of this service.",
        tags=_TAGS,
        request=None,
        responses={200: LoggedOut, **problems(*READING, "not_found")},
    )
    def post(self, request: Request) -> Response:
        if not isinstance(request.auth, ApiToken):
            raise NotFound("The request has no token of this service.")
        request.auth.delete()
        return Response({"message": f"The token {request.auth.token_key}… was revoked."})


def facts_of(token: ApiToken) -> dict[str, Any]:
    return {"key": token.token_key, "name": token.name, "scope": token.scope, "expires": token.expiry}
