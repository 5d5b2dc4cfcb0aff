"""What all command endpoints share: the order of the checks, the audit record, the validated body."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase
from django.utils.functional import SimpleLazyObject
from rest_framework import exceptions, viewsets
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from profiles.config import Endpoint
from runners.api.authentication import is_open
from runners.api.exception_handler import KINDS_BY_CODE, PROBLEM_TYPE, problem
from runners.api.permissions import CommandThrottle, EndpointEnabled, ScopeAllowed
from runners.models import AuditRecord
from runners.models_auth import ApiToken
from runners.models_operations import IdempotencyRecord
from runners.services.audit import as_known, audited
from runners.services.bulkheads import BULKHEADS, Command
from runners.services.dry_run import Plan
from runners.services.strangers import STRANGERS

STRANGE = ("not_authenticated", "invalid_credentials")  # outcomes of requests by nobody known


def viewer(request: Request) -> Any:
    """Who looks. Credentials are looked at only when a profile hides its runs from somebody."""
    return SimpleLazyObject(lambda: request.user)


class Reading(APIView):
    """A view that changes nothing: while reading is open to everybody, it looks at no credentials."""

    def perform_authentication(self, request: Request) -> None:
        if not is_open(request):
            super().perform_authentication(request)


class CommandViewSet(viewsets.GenericViewSet[Any]):
    """One POST, one use case. Every request leaves an audit record, whatever becomes of it.

    The order: credentials, scope, toggle, rate, body, use case. `command` is the name on the wire, `endpoint`
    the toggle that covers it (None: always on).
    """

    permission_classes = [ScopeAllowed, EndpointEnabled]
    throttle_classes = [CommandThrottle]
    pagination_class = None
    filter_backends = []

    command: str = ""
    endpoint: Endpoint | None = None
    audit: AuditRecord
    body_error: exceptions.APIException | None = None
    record: IdempotencyRecord | None = None  # of a request with an Idempotency-Key

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.method != "POST":  # 405, or 401 before it: no command was asked for
            self.audit = AuditRecord(endpoint=self.command)
            return super().dispatch(request, *args, **kwargs)
        address = BaseThrottle().get_ident(request)  # type: ignore[arg-type]  # it reads only META
        if self._is_of_nobody(request) and (wait := STRANGERS.refuses(address)):
            kind = KINDS_BY_CODE["throttled"]
            body = problem(kind, f"Too many requests without credentials. Try again in {wait} s, or send a token.")
            headers = {"Retry-After": str(wait)}
            return JsonResponse(body, status=kind.status, content_type=PROBLEM_TYPE, headers=headers)

        def is_listed(record: AuditRecord) -> bool:
            return record.outcome not in STRANGE or STRANGERS.counts(address)

        with (
            audited(endpoint=self.command, address=address[:64], is_listed=is_listed) as self.audit,
            BULKHEADS.command(self.command) as self.room,
        ):
            return super().dispatch(request, *args, **kwargs)

    @staticmethod
    def _is_of_nobody(request: HttpRequest) -> bool:
        """Whether a request has no credentials at all, where it needs some."""
        return not (
            settings.PROTECTION_LEVEL == "NONE"
            or "HTTP_AUTHORIZATION" in request.META
            or settings.SESSION_COOKIE_NAME in request.COOKIES
        )

    def perform_authentication(self, request: Request) -> None:
        user = request.user
        if user.is_authenticated:
            self.audit.actor = user.get_username()
        if isinstance(request.auth, ApiToken):
            self.audit.token = request.auth.token_key

    room: Command  # at the machine

    def check_permissions(self, request: Request) -> None:
        """Reads the body first, so that the record of a refusal says what was refused; its errors come later."""
        body: Any
        try:
            body = request.data
        except exceptions.APIException as error:
            self.body_error, body = error, {}
        self.audit.expid = plain(body.get("expid"), 16)
        self.audit.profile_name = plain(body.get("profile_name"), 100)
        if hasattr(self, "room"):
            self.room.person, self.room.profile_name = self.audit.actor, self.audit.profile_name
        super().check_permissions(request)

    def handle_exception(self, exc: Exception) -> Response:
        response = super().handle_exception(as_known(exc, self.audit))
        self.audit.outcome, self.audit.detail = response.data["code"], response.data["detail"]
        return response

    def validated(self, request: Request) -> dict[str, Any]:
        """The body, checked by the action's serializer. Raises what `check_permissions` put off."""
        if self.body_error:
            raise self.body_error
        serializer = self.get_serializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        data: dict[str, Any] = serializer.validated_data
        return data

    def get_serializer_context(self) -> dict[str, Any]:
        return {**super().get_serializer_context(), "viewer": self.request.user}

    def planned(self, plan: Plan) -> Response:
        """The answer to `dry_run`."""
        self.audit.argv, self.audit.outcome = plan.argv, "dry_run"
        return Response({"message": "Nothing was executed: this is what would be.", **plan.as_dict()})


def plain(value: object, limit: int) -> str:
    """A claimed name as the database takes it: printable text of bounded length."""
    return "".join(c if c.isprintable() else "?" for c in value[:limit]) if isinstance(value, str) else ""
