"""The OpenAPI descriptions of job scripts."""

from __future__ import annotations

from drf_spectacular.utils import OpenApiParameter

from runners.api.job_scripts.serializers import JobScriptAnswer, JobScriptQuery, JobScriptsAnswer, JobScriptsQuery
from runners.api.openapi.describe import EXPID_IN_PATH, LOG_ERRORS, reading

NAME = OpenApiParameter("name", str, OpenApiParameter.PATH, description="The name of the file, as a001_SIM.cmd.")
CODES = (
    *("invalid_request", "permission_denied", "profile_not_found", "profile_forbidden", "invalid_profile"),
    *("experiment_not_found", *LOG_ERRORS),
)

list_job_scripts = reading(
    "list_job_scripts",
    "The generated scripts of an experiment",
    "The files that inspect-experiment and runs have generated in `tmp/` of the experiment, by name. Needs a token "
    "with the scope `run`, because the account of the profile reads them.",
    answer=JobScriptsAnswer,
    codes=CODES,
    tag="commands",
    query=JobScriptsQuery,
    headers=[EXPID_IN_PATH],
)

read_job_script = reading(
    "read_job_script",
    "A generated script",
    "A part of the script of one job. Links are not followed. Needs a token with the scope `run`.",
    answer=JobScriptAnswer,
    codes=(*CODES, "script_not_found"),
    tag="commands",
    query=JobScriptQuery,
    headers=[EXPID_IN_PATH, NAME],
)
