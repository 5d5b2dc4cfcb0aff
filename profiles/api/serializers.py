"""The bodies of the configuration and user settings endpoints."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from drf_spectacular.drainage import set_override
from drf_spectacular.extensions import OpenApiSerializerExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import Direction, extend_schema_field
from rest_framework import serializers

from profiles.rules import loader_choices, runner_choices
from profiles.toggles import toggles
from profiles.validators import MAX_USER, validate_preferred_username

if TYPE_CHECKING:
    BaseSerializer = serializers.Serializer[Any]
else:
    BaseSerializer = serializers.Serializer


class ProfileSSHSerializer(BaseSerializer):
    """Where an SSH profile connects. Open parameters are absent."""

    HOST = serializers.CharField(required=False)
    PORT = serializers.IntegerField(required=False, min_value=1, max_value=65535)
    USER = serializers.CharField(required=False)
    USERNAME = serializers.CharField(required=False, help_text="The same as USER, which today's GUI does not read.")


F = TypeVar("F", bound=type)


def text_or_texts(field: F) -> F:
    """Describe a field as one text or a list of texts.

    All such fields share one named component, so that generated clients have one type.
    """
    schema = {
        "oneOf": [
            {"type": "string", "maxLength": 10_000},
            {"type": "array", "items": {"type": "string"}, "maxItems": 1_000},
        ],
        "description": "One text, or a list of texts.",
    }
    set_override(field, "suppress_collision_warning", True)  # several fields share the component
    described: F = extend_schema_field(schema, component_name="TextOrTexts")(field)
    return described


@text_or_texts
class ModulesField(serializers.JSONField):
    """A text for one module, a list for several."""


class ProfileSerializer(BaseSerializer):
    """A template of a runner configuration. Open parameters are absent: give them in `profile_params`."""

    RUNNER_TYPE = serializers.ChoiceField(choices=runner_choices(), required=False)
    MODULE_LOADER_TYPE = serializers.ChoiceField(choices=loader_choices(), required=False)
    MODULES = ModulesField(required=False, help_text="A text for one module, a list for several.")
    SSH = ProfileSSHSerializer(required=False)
    INSTALLATION = serializers.CharField(
        required=False,
        help_text="The Autosubmit database that it uses, by its name; absent: the installation 'default'.",
    )


class ProfileMapSerializer(BaseSerializer):
    """The profiles by name."""


class ProfileMapSchema(OpenApiSerializerExtension):
    """A mapping with free names, for which DRF has no serializer."""

    target_class = ProfileMapSerializer

    def map_serializer(self, auto_schema: AutoSchema, direction: Direction) -> dict[str, Any]:
        profile = auto_schema.resolve_serializer(ProfileSerializer, direction)
        return {"type": "object", "additionalProperties": profile.ref, "description": "The profiles by name."}


class EndpointStateSerializer(BaseSerializer):
    """Whether an admin has left a command family switched on."""

    ENABLED = serializers.BooleanField()


# One member per family, so that the OpenAPI document names all of them.
EndpointsSerializer = type(
    "EndpointsSerializer",
    (serializers.Serializer,),
    {
        "__doc__": "The state of every command family.",
        "__module__": __name__,
        **{name: EndpointStateSerializer() for name in toggles()},
    },
)


class TextField(serializers.CharField):
    """A field that takes only text. DRF's CharField would convert a number."""

    def to_internal_value(self, data: object) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class PreferredUsernameSerializer(BaseSerializer):
    """What a person wants to be offered as SSH user. It is trimmed."""

    preferred_username = TextField(
        max_length=MAX_USER,
        validators=[validate_preferred_username],
        error_messages={
            "required": "Give a name.",
            "null": "Give a name, not null.",
            "blank": "Give a name that is not empty.",
            "invalid": "Give a text, in quotes.",
            "max_length": "Give at most {max_length} characters.",
        },
    )


class IsoTimeField(serializers.DateTimeField):
    """A time in ISO 8601 with offset, in whole seconds. DRF's own field gives microseconds."""

    def to_representation(self, value: datetime) -> str:
        return value.isoformat(timespec="seconds")


class NullIfBlankField(serializers.CharField):
    """A stored text. Blank gives null."""

    def to_representation(self, value: str) -> Any:
        return value or None


class UserSettingsSerializer(BaseSerializer):
    """A person's settings. All but `user_id` are null until something was stored."""

    user_id = serializers.CharField(source="user.get_username", help_text="The name that the person signs in with.")
    preferred_username = NullIfBlankField(allow_null=True)
    created = IsoTimeField(allow_null=True, help_text="ISO 8601 with offset, whole seconds.")
    modified = IsoTimeField(allow_null=True)
