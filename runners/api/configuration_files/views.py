"""The views of the configuration files of experiments."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from rest_framework.request import Request
from rest_framework.response import Response

from profiles.accounts import person_of
from profiles.config import RunnerConfig
from profiles.toggles import EDIT_CONFIGURATION
from runners.api.base import CommandViewSet, ReadOnlyAPIView, query_of, viewer
from runners.api.configuration_files import schema
from runners.api.configuration_files.serializers import (
    FileQuery,
    FilesQuery,
    ReadFileQuery,
    RestoreFileRequest,
    WriteFileRequest,
    change_fields,
    etag_of,
    facts_fields,
    file_fields,
    version_fields,
)
from runners.exceptions import InvalidRequest, PreconditionRequired
from runners.models import TokenScope
from runners.services import access, configuration_files
from runners.services.configuration_files import DIGEST_PATTERN, Change
from runners.web.audit import identify
from runners.web.fields import ExpidField
from runners.web.requests import StrictSerializer, enabled_profile

# `W/`: a proxy or our own compression makes a strong ETag weak, but it still is a digest of the content.
_IF_MATCH = re.compile(rf'(?:W/)?"({DIGEST_PATTERN})"')


def reached(request: Request, expid: str, serializer_class: type[FilesQuery]) -> tuple[str, dict[str, Any]]:
    """Return the expid, and the query with `config`, the resolved profile, instead of the profile's members.

    Raises ValidationError, ProfileNotFound, ProfileForbidden and InvalidProfile.
    """
    expid = _WithExpid.checked(expid)
    _, query = query_of(request, serializer_class)
    user = viewer(request)
    profile = enabled_profile(query.pop("profile_name"), user)
    access.require(user, profile, access.Action.RUN)
    config: RunnerConfig = profile.resolve(query.pop("profile_params", None), person_of(user))
    return expid, {"config": config, **query}


class _WithExpid(StrictSerializer):
    expid = ExpidField()

    @classmethod
    def checked(cls, expid: str) -> str:
        serializer = cls(data={"expid": expid})
        serializer.is_valid(raise_exception=True)
        return str(serializer.validated_data["expid"])


class ConfigurationFilesView(ReadOnlyAPIView):
    required_scope: ClassVar[str] = TokenScope.RUN

    @schema.list_files
    def get(self, request: Request, expid: str) -> Response:
        expid, query = reached(request, expid, FilesQuery)
        found = configuration_files.list_files(expid=expid, **query)
        return Response({"expid": expid, "files": [facts_fields(each) for each in found.files], "others": found.others})


class ConfigurationVersionsView(ReadOnlyAPIView):
    required_scope: ClassVar[str] = TokenScope.RUN

    @schema.list_versions
    def get(self, request: Request, expid: str) -> Response:
        expid, query = reached(request, expid, FileQuery)
        found = configuration_files.versions(expid=expid, **query)
        return Response({"path": query["path"], "versions": [version_fields(each) for each in found]})


class _Changing(CommandViewSet):
    """A change of a file. The query names the file, the header If-Match its content, and the body the change."""

    required_scope: ClassVar[str] = TokenScope.RUN
    endpoint = EDIT_CONFIGURATION.name

    def check_permissions(self, request: Request) -> None:
        identify(self.audit, expid=self.kwargs["expid"], profile_name=request.query_params.get("profile_name"))
        super().check_permissions(request)

    def answer(self, change: Change, *, is_dry: bool) -> Response:
        if is_dry:
            message = "Dry run: nothing was written."
        elif change.is_changed:
            message = f"conf/{change.path} was written."
        else:
            message = f"conf/{change.path} already has this content."
        return Response(change_fields(change, message), headers={} if is_dry else {"ETag": etag_of(change.digest)})


class ConfigurationFile(_Changing):
    serializer_class = WriteFileRequest
    command = "write-configuration"
    audited = ("PUT",)

    @schema.read_file
    def read(self, request: Request, expid: str) -> Response:
        expid, query = reached(request, expid, ReadFileQuery)
        found = configuration_files.read_file(expid=expid, **query)
        return Response(file_fields(found, query.get("version", "")), headers={"ETag": etag_of(found.digest)})

    @schema.write_file
    def write(self, request: Request, expid: str) -> Response:
        body = self.validated(request)
        expid, query = reached(request, expid, FileQuery)
        how = configuration_files.preview if body["dry_run"] else configuration_files.write_file
        change = how(expid=expid, content=body["content"], expected=if_match(request), audit=self.audit, **query)
        return self.answer(change, is_dry=body["dry_run"])


class RestoreConfigurationFile(_Changing):
    serializer_class = RestoreFileRequest
    command = "restore-configuration"

    @schema.restore_file
    def restore(self, request: Request, expid: str) -> Response:
        body = self.validated(request)
        expid, query = reached(request, expid, FileQuery)
        change = configuration_files.restore(
            expid=expid,
            version=body["version"],
            expected=if_match(request),
            audit=self.audit,
            is_dry=body["dry_run"],
            **query,
        )
        return self.answer(change, is_dry=body["dry_run"])


def if_match(request: Request) -> str:
    """Return the digest in the header If-Match. Raises PreconditionRequired and InvalidRequest."""
    header = request.headers.get("If-Match")
    if header is None:
        raise PreconditionRequired(
            "Send the ETag of the content that is replaced as If-Match: GET the file to get it. Nothing was written."
        )
    found = _IF_MATCH.fullmatch(header.strip())
    if not found:
        raise InvalidRequest(
            "If-Match has to be the one ETag that GET has returned, in double quotes. Nothing was written.",
            {"If-Match": ["Send the ETag of the file, in double quotes."]},
        )
    return found[1]
