"""The base classes of the API views. CommandViewSet has the order of the checks, the audit record, and validation."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase
from django.utils.functional import SimpleLazyObject
from rest_framework import exceptions, viewsets
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from profiles.models import EndpointToggle
from runners.api.authentication import is_open
from runners.api.permissions import ScopeAllowed
from runners.api.throttling import CommandThrottle
from runners.exceptions import EndpointDisabled
from runners.models import ApiToken, AuditRecord
from runners.services.audit import as_outcome_unknown
from runners.services.execute import Plan
from runners.services.strangers import STRANGERS
from runners.web.audit import audit_command, identify
from runners.web.client_address import client_address
from runners.web.problems import PROBLEM_CONTENT_TYPE, PROBLEM_TYPES_BY_CODE, problem
from runners.web.requests import StrictSerializer

STRANGE = ("not_authenticated", "invalid_credentials")  # audit outcomes of requests without valid credentials


def viewer(request: Request) -> Any:
    """Return the user of a request, lazily: credentials are checked only if a profile hides its runs from somebody."""
    return SimpleLazyObject(lambda: request.user)


class ReadOnlyAPIView(APIView):
    """A read-only view. It does not check credentials while PROTECTION_LEVEL leaves reading open to everybody."""

    def perform_authentication(self, request: Request) -> None:
        if not is_open(request):
            super().perform_authentication(request)


class CommandViewSet(viewsets.GenericViewSet[Any]):
    """A set of commands. Each command is one request with a method of `audited` and one use case.

    Every such request leaves an audit record, whatever its outcome, except requests without valid credentials beyond
    the rate of STRANGERS. The order of the checks: credentials, scope, toggle, rate, body, use case.

    `command` is the command's name on the wire. `endpoint` is the name of the toggle that can disable it; empty: always
    enabled.
    """

    permission_classes = [ScopeAllowed]
    throttle_classes = [CommandThrottle]
    pagination_class = None
    filter_backends = []

    command: str = ""
    endpoint: str = ""
    audited: tuple[str, ...] = ("POST",)
    holds_changes = False  # as in `services.audit.audited`
    audit: AuditRecord
    body_error: exceptions.APIException | None = None

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.method not in self.audited:  # not a command, so there is no audit record
            self.audit = AuditRecord(endpoint=self.command)
            return super().dispatch(request, *args, **kwargs)
        address = client_address(request)
        if self._is_of_nobody(request) and (wait := STRANGERS.refuses(address)):
            problem_type = PROBLEM_TYPES_BY_CODE["throttled"]
            body = problem(
                problem_type, f"Too many requests without credentials. Try again in {wait} s, or send a token."
            )
            headers = {"Retry-After": str(wait)}
            return JsonResponse(body, status=problem_type.status, content_type=PROBLEM_CONTENT_TYPE, headers=headers)

        def is_listed(record: AuditRecord) -> bool:
            return record.outcome not in STRANGE or STRANGERS.counts(address)

        with audit_command(request, self.command, holds_changes=self.holds_changes, is_listed=is_listed) as self.audit:
            return super().dispatch(request, *args, **kwargs)

    @staticmethod
    def _is_of_nobody(request: HttpRequest) -> bool:
        """Return True if a request has no credentials, not even invalid ones, where it needs some."""
        return not (
            settings.PROTECTION_LEVEL == "NONE"
            or "HTTP_AUTHORIZATION" in request.META
            or settings.SESSION_COOKIE_NAME in request.COOKIES
        )

    def perform_authentication(self, request: Request) -> None:
        identify(self.audit, actor=request.user.get_username())  # "" if nobody is signed in
        if isinstance(request.auth, ApiToken):
            self.audit.token = request.auth.token_key

    def check_permissions(self, request: Request) -> None:
        """Check the scope and the toggle.

        Parse the body first, so that the audit record of a rejected command has its expid and profile. An
        error in the body is kept in `body_error`, and `validated` raises it after the permission checks.
        """
        body: Any
        try:
            body = request.data
        except exceptions.APIException as error:
            self.body_error, body = error, {}
        identify(self.audit, expid=body.get("expid"), profile_name=body.get("profile_name"))
        super().check_permissions(request)
        is_switched = self.endpoint and (request.method in self.audited or request.method not in self.allowed_methods)
        if is_switched and not EndpointToggle.is_enabled(self.endpoint):
            raise EndpointDisabled(f"The {self.command} endpoint is currently disabled.")

    def handle_exception(self, exc: Exception) -> Response:
        response = super().handle_exception(as_outcome_unknown(exc, self.audit))
        self.audit.outcome, self.audit.detail = response.data["code"], response.data["detail"]
        return response

    def validated(self, request: Request) -> dict[str, Any]:
        """Return the body, validated by the action's serializer. Raises `body_error` if the body was not parsed."""
        if self.body_error:
            raise self.body_error
        serializer = self.get_serializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        data: dict[str, Any] = serializer.validated_data
        return data

    def get_serializer_context(self) -> dict[str, Any]:
        return {**super().get_serializer_context(), "viewer": self.request.user}

    def planned(self, plan: Plan) -> Response:
        """Return the response to a request with `dry_run`."""
        self.audit.argv, self.audit.outcome = plan.argv, "dry_run"
        return Response({"message": "Dry run: nothing was executed.", **plan.as_dict()})


def query_of(request: Request, serializer_class: type[StrictSerializer]) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the query as it was sent, and validated. Raises ValidationError, with the errors of each parameter."""
    sent = request.query_params
    twice = {name: ["Give this parameter only once."] for name, values in sent.lists() if len(values) > 1}
    if twice:
        raise ValidationError(twice)
    serializer = serializer_class(data=sent.dict())
    serializer.is_valid(raise_exception=True)
    understood: dict[str, Any] = serializer.validated_data
    return sent.dict(), understood
