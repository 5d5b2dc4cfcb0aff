"""The queries and answers of job scripts."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from runners.api.pagination import number_of
from runners.services.job_scripts import MOST_LISTED
from runners.web.fields import StrictTextField
from runners.web.requests import StrictSerializer

PAGE_SIZE = 100
SCRIPT_BYTES, MOST_SCRIPT_BYTES, FEWEST_SCRIPT_BYTES = 65_536, 1_000_000, 16
LARGEST_NUMBER = 2**63 - 1


class WhoseScripts(StrictSerializer):
    """The profile with whose account the files are read."""

    profile_name = StrictTextField(max_length=100, help_text="The profile with whose account the files are read.")


class JobScriptsQuery(WhoseScripts):
    """Which page."""

    page_size = serializers.IntegerField(min_value=1, max_value=MOST_LISTED, default=PAGE_SIZE)
    cursor = StrictTextField(required=False, max_length=64, help_text="`next_cursor` of the previous page.")

    def validate_cursor(self, value: str) -> int:
        return number_of(value)


class JobScriptQuery(WhoseScripts):
    """Which part of the script."""

    offset = serializers.IntegerField(
        min_value=0, max_value=LARGEST_NUMBER, default=0, help_text="The first byte. Continue with `next_offset`."
    )
    limit = serializers.IntegerField(
        min_value=FEWEST_SCRIPT_BYTES,
        max_value=MOST_SCRIPT_BYTES,
        default=SCRIPT_BYTES,
        help_text="Maximum number of bytes.",
    )


class JobScriptFacts(serializers.Serializer[Any]):
    """A generated script."""

    name = serializers.CharField(help_text="The name of the file: the name of the job and .cmd.")
    size = serializers.IntegerField(help_text="Bytes.")
    modified = serializers.DateTimeField(
        allow_null=True, help_text="When it was generated, by the clock of the machine; null if that is wrong."
    )


class JobScriptsAnswer(serializers.Serializer[Any]):
    """Scripts by name."""

    total = serializers.IntegerField(help_text="All scripts of the experiment.")
    results = JobScriptFacts(many=True, help_text="The scripts of this page.")
    next_cursor = serializers.CharField(allow_null=True, help_text="null on the last page.")
    next = serializers.CharField(allow_null=True, help_text="The same as a relative link.")


class JobScriptAnswer(serializers.Serializer[Any]):
    """A part of a script. Ask again with `offset=next_offset` until `ended` is true."""

    name = serializers.CharField(help_text="The name of the file.")
    offset = serializers.IntegerField(help_text="The first byte of this part.")
    next_offset = serializers.IntegerField(help_text="The first byte after this part.")
    size = serializers.IntegerField(help_text="Size of the script in bytes.")
    ended = serializers.BooleanField(help_text="This part reaches the end of the script.")
    text = serializers.CharField(help_text="Whole characters only; invalid UTF-8 is replaced by U+FFFD.")
