"""The OpenAPI descriptions of configuration files."""

from __future__ import annotations

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema

from runners.api.configuration_files.serializers import (
    ChangeAnswer,
    FileAnswer,
    FileQuery,
    FilesAnswer,
    FilesQuery,
    ReadFileQuery,
    RestoreFileRequest,
    VersionsAnswer,
    WriteFileRequest,
)
from runners.api.openapi.describe import BUSY, COMMON, EXPID_IN_PATH, LOG_ERRORS, problems, reading

# The codes of reading a file, which include those of reading a log.
_USE: tuple[str, ...] = ("invalid_request", "permission_denied", "invalid_profile", "profile_forbidden")
_USE += ("profile_not_found", "experiment_not_found", "file_not_found", "file_rejected", "command_failed", *LOG_ERRORS)
_CHANGE: tuple[str, ...] = (
    "endpoint_disabled",
    "already_running",
    "precondition_required",
    "precondition_failed",
    "machine_in_maintenance",
    *BUSY,
)
_ETAG = OpenApiParameter(
    "ETag", OpenApiTypes.STR, OpenApiParameter.HEADER, response=[200], description="Of the content in this answer."
)
_IF_MATCH = OpenApiParameter(
    "If-Match",
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    required=True,
    description="The ETag of the content that is replaced. Without it: 428. If the file has changed since: 412.",
)
_NOTE = " Needs the scope `run`, because the machine is asked with the account of the profile."


def _reading(operation_id: str, summary: str, text: str, answer: Any, query: Any, *, etag: bool = False) -> Any:
    return reading(
        operation_id,
        summary,
        text + _NOTE,
        answer=answer,
        codes=_USE,
        tag="experiments",
        query=query,
        headers=[EXPID_IN_PATH, *([_ETAG] if etag else [])],
    )


list_files = _reading(
    "list_configuration_files",
    "List the configuration files of an experiment",
    "The .yml, .yaml and .conf files in the folder conf of the experiment and in folders below it.",
    FilesAnswer,
    FilesQuery,
)
read_file = _reading(
    "read_configuration_file",
    "Read a configuration file, or a former version of it",
    "The content, with the ETag that a change has to send as If-Match. Links are not followed.",
    FileAnswer,
    ReadFileQuery,
    etag=True,
)
list_versions = _reading(
    "list_configuration_versions",
    "List the former versions of a configuration file",
    "At most 20 contents that this service has replaced, newest first. They are in the experiment, below conf, and "
    "only the account that has replaced them can read them.",
    VersionsAnswer,
    FileQuery,
)


def _changing(operation_id: str, summary: str, text: str, body: Any, *, never: str = "") -> Any:
    """Describe a change. `never`: a code of `_USE` that it cannot answer."""
    codes = [code for code in (*_USE, *_CHANGE) if code != never]
    return extend_schema(
        operation_id=operation_id,
        summary=summary,
        description=text,
        tags=["experiments"],
        parameters=[EXPID_IN_PATH, FileQuery, _IF_MATCH, _ETAG],
        request=body,
        responses={200: ChangeAnswer, **problems(*COMMON, *codes)},
    )


write_file = _changing(
    "write_configuration_file",
    "Replace the content of a configuration file",
    "The content is checked first: a .yml or .yaml file has to be valid YAML (400 with `line` and `column`). The "
    "machine compares If-Match with the file right before it replaces the file atomically. The file keeps its mode; "
    "the former content becomes a version. 409 while a run uses the experiment, or while it is not known whether one "
    "does. After `outcome_unknown` read the file, or repeat the request: it replaces only the content that If-Match "
    "names. Off until an admin switches EDIT_CONFIGURATION on.",
    WriteFileRequest,
    never="command_timed_out",  # it is then not known whether the file was replaced
)
restore_file = _changing(
    "restore_configuration_file",
    "Restore a former version of a configuration file",
    "Like replacing the content by that of the version. The present content becomes a version, too.",
    RestoreFileRequest,
)
