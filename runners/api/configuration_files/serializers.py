"""The queries, bodies and answers of configuration files."""

from __future__ import annotations

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from runners.api.parsers import strict_json
from runners.services.configuration_files import (
    MOST_BYTES,
    PATH_LIMIT,
    PATH_PATTERN,
    PATH_RULE,
    VERSION_PATTERN,
    Change,
    File,
    FileFacts,
    Version,
)
from runners.services.representations import iso_time
from runners.web.fields import FlagField, StrictTextField
from runners.web.requests import StrictSerializer

PARAMS_LIMIT = 1000  # characters; servers accept lines of about 4,000, and a quote takes three in an address


@extend_schema_field(OpenApiTypes.STR)
class JsonParamsField(StrictTextField):
    """The open parameters of a profile in a query: an object, as JSON."""

    REMEDY = 'Give an object as JSON, such as {"SSH": {"USER": "ana"}}.'

    def to_internal_value(self, data: object) -> Any:
        text = super().to_internal_value(data)
        try:
            params = strict_json(text)
        except ValueError as error:
            raise serializers.ValidationError(f"This is not valid JSON: {error}. {self.REMEDY}") from None
        if not isinstance(params, dict):
            raise serializers.ValidationError(self.REMEDY)
        return params


class FilesQuery(StrictSerializer):
    """With which profile the files are reached."""

    profile_name = StrictTextField(max_length=100, help_text="The name of a profile, see configuration/profiles.")
    profile_params = JsonParamsField(
        required=False,
        max_length=PARAMS_LIMIT,
        help_text='Values of the open parameters of the profile, as JSON: {"SSH": {"USER": "ana"}}.',
    )


class FileQuery(FilesQuery):
    path = StrictTextField(
        max_length=PATH_LIMIT, pattern=PATH_PATTERN, rule=PATH_RULE, help_text="Below conf, as in the list of files."
    )


class ReadFileQuery(FileQuery):
    version = StrictTextField(
        required=False,
        max_length=50,
        pattern=VERSION_PATTERN,
        rule="give a version as in the list of versions.",
        help_text="A former version of the file; without it, the present content.",
    )


class ContentField(StrictTextField):
    """A text without the limits of other fields: its size is checked in bytes."""


class WriteFileRequest(StrictSerializer):
    """The new content of a file."""

    content = ContentField(
        allow_blank=True, help_text=f"The whole new content, written as given. At most {MOST_BYTES} bytes in UTF-8."
    )
    dry_run = FlagField(help_text="Check the content and return the difference, and write nothing.")


class RestoreFileRequest(StrictSerializer):
    """The version that becomes the content of the file again."""

    version = StrictTextField(max_length=50, pattern=VERSION_PATTERN, rule="give a version as in the list of versions.")
    dry_run = FlagField(help_text="Return the difference, and write nothing.")


class FileFactsAnswer(serializers.Serializer[Any]):
    path = serializers.CharField(help_text="Below conf.")
    size = serializers.IntegerField(help_text="Bytes.")
    mode = serializers.CharField(help_text="Permission bits in octal, such as 0644.")
    modified = serializers.CharField(allow_null=True, help_text="By the machine's clock.")


class FilesAnswer(serializers.Serializer[Any]):
    """The configuration files of an experiment."""

    expid = serializers.CharField()
    files = FileFactsAnswer(many=True)
    others = serializers.IntegerField(
        help_text="Names in conf that are not listed: links, other kinds of files, folders deeper than four levels."
    )


class FileAnswer(FileFactsAnswer):
    """A configuration file. The header `ETag` has the same value as `etag`."""

    content = serializers.CharField()
    etag = serializers.CharField(help_text="Send it as If-Match to replace this content.")
    version = serializers.CharField(help_text="Empty for the present content.")


class VersionAnswer(serializers.Serializer[Any]):
    version = serializers.CharField()
    replaced = serializers.CharField(help_text="When this content was replaced, by the machine's clock.")
    size = serializers.IntegerField(help_text="Bytes.")


class VersionsAnswer(serializers.Serializer[Any]):
    """The former versions of a file, the newest first."""

    path = serializers.CharField()
    versions = VersionAnswer(many=True)


class ChangeAnswer(serializers.Serializer[Any]):
    """What was written; with `dry_run`, what would be."""

    message = serializers.CharField()
    path = serializers.CharField()
    etag = serializers.CharField(help_text="Of the new content.")
    version = serializers.CharField(help_text="The version that holds the former content; empty: nothing was replaced.")
    difference = serializers.CharField(help_text="A unified diff. Values that look like secrets are masked.")
    is_changed = serializers.BooleanField(help_text="False: the content was the same before.")


def etag_of(digest: str) -> str:
    return f'"{digest}"'


def facts_fields(facts: FileFacts) -> dict[str, Any]:
    return {
        "path": facts.path,
        "size": facts.size,
        "mode": f"{facts.mode:04o}",
        "modified": iso_time(facts.modified),
    }


def file_fields(file: File, version: str) -> dict[str, Any]:
    return {**facts_fields(file.facts), "content": file.content, "etag": etag_of(file.digest), "version": version}


def version_fields(version: Version) -> dict[str, Any]:
    replaced = version.replaced.isoformat(timespec="seconds")
    return {"version": version.version, "replaced": replaced, "size": version.size}


def change_fields(change: Change, message: str) -> dict[str, Any]:
    return {
        "message": message,
        "path": change.path,
        "etag": etag_of(change.digest),
        "version": change.version,
        "difference": change.difference,
        "is_changed": change.is_changed,
    }
