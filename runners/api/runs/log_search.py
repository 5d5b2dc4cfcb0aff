"""The query and the response of a search in the log of a run."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from runners.api.logs import LARGEST_NUMBER
from runners.api.runs.serializers import QueryFlag
from runners.services import log_search
from runners.services.machines.log_search import CONTEXT, MOST_MATCHES, LogMatches
from runners.web.fields import StrictTextField
from runners.web.requests import StrictSerializer

MOST_CHARACTERS = 200  # of the text
MATCHES = 20
NO_CONTROL_CHARACTERS = r"[^\x00-\x1f\x7f]+"


class LogSearchQuery(StrictSerializer):
    """Search for `text`, or for errors. From `offset` on, or backward from `before`."""

    # `offset` has no `default`: generated clients would send it, also together with `before`.
    text = StrictTextField(
        required=False,
        max_length=MOST_CHARACTERS,
        pattern=NO_CONTROL_CHARACTERS,
        rule="give a text of one line, without control characters.",
        help_text="A fixed text, not a pattern.",
    )
    errors = QueryFlag(  # type: ignore[assignment]  # a member, not the attribute of a serializer
        required=False,
        help_text="true: search for the marks of an error in Autosubmit's log: `[CRITICAL]`, a traceback, a job "
        "that becomes FAILED.",
    )
    ignore_case = QueryFlag(default=False, help_text="true: A to Z match a to z.")
    offset = serializers.IntegerField(
        min_value=0,
        max_value=LARGEST_NUMBER,
        required=False,
        help_text="Return the first matches that begin at this byte or later; default 0.",
    )
    before = serializers.IntegerField(
        min_value=0,
        max_value=LARGEST_NUMBER,
        required=False,
        help_text="Return the last matches that begin before this byte; not allowed together with offset.",
    )
    limit = serializers.IntegerField(
        min_value=1, max_value=MOST_MATCHES, default=MATCHES, help_text="Maximum number of matches."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        is_for_errors = attrs.pop("errors", False)
        if is_for_errors == ("text" in attrs):
            raise serializers.ValidationError({"text": "Give either text or errors=true."})
        if "before" in attrs and "offset" in attrs:
            raise serializers.ValidationError({"offset": "Give either offset or before: before searches backward."})
        return attrs


class LogMatchAnswer(serializers.Serializer[Any]):
    """One match, with its line."""

    offset = serializers.IntegerField(help_text="The byte at which the match begins.")
    length = serializers.IntegerField(help_text="Its bytes.")
    line = serializers.IntegerField(
        allow_null=True, help_text="The number of its line, from 1. null: counting the lines would take too long."
    )
    before = serializers.CharField(
        allow_blank=True, help_text=f"What its line has before the match, at most {CONTEXT} bytes, without colours."
    )
    match = serializers.CharField(help_text="The text that was found.")
    after = serializers.CharField(
        allow_blank=True, help_text=f"What its line has behind the match, at most {CONTEXT} bytes, without colours."
    )


class LogSearchAnswer(serializers.Serializer[Any]):
    """The matches in ascending order, and where to continue."""

    matches = LogMatchAnswer(many=True)
    size = serializers.IntegerField(help_text="Size of the log in bytes.")
    resume = serializers.IntegerField(
        allow_null=True,
        help_text="Continue with it as `offset`, or as `before` if the search was backward: there are more matches, or "
        "the time was over. null: everything was searched.",
    )


def search_answer(found: LogMatches) -> dict[str, Any]:
    return {
        "matches": [log_search.match_fields(match) for match in found.matches],
        "size": found.size,
        "resume": found.resume,
    }
