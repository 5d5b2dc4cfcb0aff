"""The settings of mail about runs, for the signed-in person."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from runners.api.notifications.serializers import NotificationsAnswer, NotificationsRequest, TestMailAnswer
from runners.api.openapi.describe import COMMON, READING, problems
from runners.services import mail

_TAGS = ["user settings"]


def person(request: Request) -> Any:
    """Return the signed-in person. Raises NotFound."""
    if not request.user.is_authenticated:
        raise NotFound("Not signed in. User settings need a signed-in person.")
    return request.user


def fields_of(user: Any) -> dict[str, Any]:
    found = list(mail.subscriptions_of(user))
    names = {profile.pk: profile.name for profile in mail.profiles_for(user)}
    return {
        "is_on": mail.is_on(),
        "address": user.email,
        "mine": any(not each.profile_id and not each.run_id for each in found),
        "profiles": sorted(names[each.profile_id] for each in found if each.profile_id in names),
        "runs": sorted(each.run_id for each in found if each.run_id),
    }


class NotificationsView(APIView):
    @extend_schema(
        operation_id="get_notifications",
        summary="Which runs you get mail about",
        description="A message is sent when a run ends, is silent, or is started again. 404 without a signed-in "
        "person.",
        tags=_TAGS,
        responses={200: NotificationsAnswer, **problems(*READING, "not_found")},
    )
    def get(self, request: Request) -> Response:
        return Response(fields_of(person(request)))

    @extend_schema(
        operation_id="set_notifications",
        summary="Choose which runs you get mail about",
        description="Replaces the stored choice of the signed-in person; 404 without one.",
        tags=_TAGS,
        request=NotificationsRequest,
        responses={200: NotificationsAnswer, **problems(*COMMON, "not_found")},
    )
    def post(self, request: Request) -> Response:
        user = person(request)
        serializer = NotificationsRequest(data=request.data)
        serializer.is_valid(raise_exception=True)
        mail.subscribe(user, **serializer.validated_data)
        return Response(fields_of(user))


class TestMailView(APIView):
    @extend_schema(
        operation_id="send_test_mail",
        summary="Send yourself a test message",
        description="Queues a message to the address of your account, at most one per minute. The page "
        "/account shows its outcome. 404 without a signed-in person.",
        tags=_TAGS,
        request=None,
        responses={200: TestMailAnswer, **problems(*READING, "not_found", "permission_denied", "invalid_request")},
    )
    def post(self, request: Request) -> Response:
        user = person(request)
        mail.send_test(user)
        return Response({"message": f"A test message to {user.email} was queued."})
