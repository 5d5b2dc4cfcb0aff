"""The views that tell what a profile needs, and whether it works."""

from __future__ import annotations

from rest_framework.request import Request
from rest_framework.response import Response

from profiles.models import RunnerProfile
from runners.api.base import CommandViewSet, ReadOnlyAPIView, viewer
from runners.api.profiles import schema
from runners.api.profiles.serializers import CheckAnswer, CheckProfileRequest, RequirementsAnswer
from runners.services.audit import begin
from runners.services.check import check_profile
from runners.services.machines.bulkheads import BULKHEADS
from runners.services.machines.registry import get_runner
from runners.web.audit import identify
from runners.web.requests import ProfiledSerializer, enabled_profile, usable_profile


class ProfileRequirementsView(ReadOnlyAPIView):
    @schema.get_profile_requirements
    def get(self, request: Request, name: str) -> Response:
        profile = usable_profile(name, viewer(request))
        answer = {"profile_name": profile.name, "requirements": profile.requirements()}
        return Response(RequirementsAnswer(answer).data)


class ProfileCheck(CommandViewSet):
    """Check a profile step by step. It changes nothing, but is a command, because it connects and starts a process."""

    serializer_class = CheckProfileRequest
    command = "check-profile"

    @schema.check_profile
    def check(self, request: Request, name: str) -> Response:
        identify(self.audit, profile_name=name)
        profile = enabled_profile(name, viewer(request))
        body = self.validated(request)
        serializer = ProfiledSerializer(data={**body, "profile_name": name}, context=self.get_serializer_context())
        serializer.is_valid(raise_exception=True)
        config = serializer.validated_data["config"]
        BULKHEADS.admit(get_runner(config).target, get_runner(config).where)
        begin(self.audit)
        stages = list(check_profile(config, RunnerProfile.usable_by(request.user)))
        failed = [stage.name for stage in stages if stage.ok is False]
        self.audit.detail = f"failed: {', '.join(failed)}" if failed else ""
        answer = {
            "profile_name": name,
            "ok": not failed,
            "milliseconds": sum(stage.milliseconds for stage in stages),
            "stages": stages,
            "warnings": profile.warnings,
        }
        return Response(CheckAnswer(answer).data)
