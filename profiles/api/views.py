"""What an admin has configured, for clients to read; and each person's own settings."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from profiles.api.serializers import (
    EndpointsSerializer,
    PreferredUsernameSerializer,
    ProfileMapSerializer,
    UserSettingsSerializer,
)
from profiles.models import EndpointToggle, PublishedSSHKey, RunnerProfile, UserSettings

CONFIGURATION, USER_SETTINGS = ["configuration"], ["user settings"]


class ProfilesView(APIView):
    """The profiles that are switched on and that the caller may use for something, by name."""

    @extend_schema(
        operation_id="list_profiles",
        summary="List the profiles",
        description="The profiles that you may use, by name. A parameter that a profile leaves out is open: give it "
        "in `profile_params`.",
        tags=CONFIGURATION,
        responses=OpenApiResponse(
            ProfileMapSerializer,
            description="The profiles by name.",
        ),
    )
    def get(self, request: Request) -> Response:
        return Response({row.name: row.as_wire() for row in RunnerProfile.usable_by(request.user)})


class EndpointsView(APIView):
    """The switches of the command families."""

    @extend_schema(
        operation_id="list_endpoints",
        summary="List which commands are enabled",
        description="All command families. Commands of a disabled family get 403.",
        tags=CONFIGURATION,
        responses=OpenApiResponse(
            EndpointsSerializer,
            description="The state of every command family.",
        ),
    )
    def get(self, request: Request) -> Response:
        return Response({name: {"ENABLED": enabled} for name, enabled in EndpointToggle.states().items()})


class SSHPublicKeysView(APIView):
    """The keys that people add to their authorized_keys."""

    @extend_schema(
        operation_id="list_ssh_public_keys",
        summary="List the service's public SSH keys",
        description="Add one of these lines to your `~/.ssh/authorized_keys` on the machines where the service runs "
        "commands as you.",
        tags=CONFIGURATION,
        responses=OpenApiResponse(
            {"type": "array", "items": {"type": "string"}},
            description="OpenSSH public key lines.",
        ),
    )
    def get(self, request: Request) -> Response:
        return Response(list(PublishedSSHKey.objects.values_list("line", flat=True)))


class PreferredUsernameView(APIView):
    """The SSH user that the GUI offers a person where a profile leaves it open."""

    @extend_schema(
        operation_id="get_preferred_username",
        summary="Get the preferred username",
        description="`preferred_username` is null if none is stored. 404 without a signed-in person.",
        tags=USER_SETTINGS,
        responses=UserSettingsSerializer,
    )
    def get(self, request: Request) -> Response:
        user = self._person(request)
        row = UserSettings.objects.filter(user=user).first() or UserSettings(user=user)
        return Response(UserSettingsSerializer(row).data)

    @extend_schema(
        operation_id="set_preferred_username",
        summary="Set the preferred username",
        description="Stored for the signed-in person; 404 without one.",
        tags=USER_SETTINGS,
        request=PreferredUsernameSerializer,
        responses=UserSettingsSerializer,
    )
    def post(self, request: Request) -> Response:
        user = self._person(request)
        serializer = PreferredUsernameSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        row, _ = UserSettings.objects.update_or_create(user=user, defaults=serializer.validated_data)
        return Response(UserSettingsSerializer(row).data)

    def _person(self, request: Request) -> Any:
        """Return the user. Raises NotFound if nobody is signed in.

        For a 404, today's GUI says that the option is not available, instead of offering a field that fails.
        """
        if not request.user.is_authenticated:
            raise NotFound("Not signed in. User settings need a signed-in person.")
        return request.user
