"""The OpenAPI descriptions of the requirements and of the check of a profile."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema

from runners.api.openapi.describe import BUSY, COMMON, problems, reading
from runners.api.profiles.serializers import CheckAnswer, CheckProfileRequest, RequirementsAnswer

get_profile_requirements = reading(
    "get_profile_requirements",
    "What a launch with a profile still needs",
    "The parameters that the profile leaves open, with types and limits, in the order of a form.",
    answer=RequirementsAnswer,
    codes=("profile_not_found",),
    tag="configuration",
)
check_profile = extend_schema(
    operation_id="check_profile",
    summary="Try a profile step by step",
    description="From the address of the machine to its directory of runs: which steps work, how long each takes, and "
    "what to do about the first that fails. A failed step is an answer, not an error.",
    tags=["configuration"],
    request=CheckProfileRequest,
    responses={
        200: CheckAnswer,
        **problems(*COMMON, "invalid_profile", "profile_forbidden", "profile_not_found", *BUSY),
    },
)
