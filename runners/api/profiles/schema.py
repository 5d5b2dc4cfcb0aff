"""The OpenAPI descriptions of the requirements and of the check of a profile."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema

from runners.api.openapi.describe import BUSY, COMMON, problems, reading
from runners.api.profiles.serializers import CheckAnswer, CheckProfileRequest, RequirementsAnswer

get_profile_requirements = reading(
    "get_profile_requirements",
    "List the open parameters of a profile",
    "The parameters that the profile leaves open, with types and limits, in the order of a form.",
    answer=RequirementsAnswer,
    codes=("profile_not_found",),
    tag="configuration",
)
check_profile = extend_schema(
    operation_id="check_profile",
    summary="Test a profile step by step",
    description="From the address of the machine to its directory of runs: which steps work, their durations, and the "
    "remedy for the first failed step. A failed step is a normal response, not an error.",
    tags=["configuration"],
    request=CheckProfileRequest,
    responses={
        200: CheckAnswer,
        **problems(*COMMON, "invalid_profile", "profile_forbidden", "profile_not_found", *BUSY),
    },
)
