"""The bodies of the configuration and user settings endpoints."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from drf_spectacular.drainage import set_override
from drf_spectacular.extensions import OpenApiSerializerExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import Direction, extend_schema_field
from rest_framework import serializers

from profiles import parameters
from profiles.parameter import Parameter
from profiles.rules import loader_choices, runner_choices
from profiles.toggles import toggles
from profiles.validators import MAX_USER, validate_preferred_username

if TYPE_CHECKING:
    BaseSerializer = serializers.Serializer[Any]
else:
    BaseSerializer = serializers.Serializer


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


@cache  # one class, so one component of the document
def section_serializer(section: str, *, is_request: bool) -> type[BaseSerializer]:
    """Return the serializer of a section of the parameters, such as SSH, from their table.

    It only describes the section in the OpenAPI document: `profiles.parameters` parses and validates the values.
    """
    rows = [
        each for each in parameters.table().values() if each.section == section and (each.is_open or not is_request)
    ]
    sentences = ["How to reach the machine."] if is_request else [f"Where {section} profiles connect."]
    members: dict[str, Any] = {}
    for each in rows:
        name = each.path.rpartition(".")[2]
        help_text = (each.description or each.help or None) if is_request else None
        members[name] = _member(each, help_text, is_request)
        if each.alias:
            other = each.alias.rpartition(".")[2]
            words = (
                f"Another word for {name}." if is_request else f"The same as {name}, which today's GUI does not read."
            )
            members[other] = _member(each, words, is_request)
            sentences += [f"{name} and {other} mean the same."] if is_request else []
    sentences += [] if is_request else ["Open parameters are absent."]
    title = f"Profile{section}{'Params' if is_request else ''}Serializer"
    return type(title, (serializers.Serializer,), {"__doc__": " ".join(sentences), "__module__": __name__, **members})


def _member(parameter: Parameter, help_text: str | None, is_request: bool) -> serializers.Field[Any, Any, Any, Any]:
    options: dict[str, Any] = {"required": False, "allow_null": is_request, "help_text": help_text}
    if parameter.type != "integer":
        return serializers.CharField(**options)
    bounds: dict[str, Any] = {"min_value": parameter.minimum, "max_value": parameter.maximum}
    if not is_request:
        return serializers.IntegerField(**options, **bounds)
    number = {"type": "integer", "minimum": parameter.minimum, "maximum": parameter.maximum}
    schema = {"oneOf": [number, {"type": "string", "pattern": "^[0-9]*$"}]}  # a number, or a text of digits
    return extend_schema_field(schema)(type("NumberField", (serializers.IntegerField,), {}))(**options)


class SectionsMixin:
    """Adds a member for each section of the parameters, such as SSH, behind MODULES."""

    is_request = False

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        found: dict[str, serializers.Field[Any, Any, Any, Any]] = {}
        for name, field in super().get_fields().items():  # type: ignore[misc]  # of the serializer
            found[name] = field
            if name == parameters.MODULES:
                for section in parameters.sections():
                    serializer = section_serializer(section, is_request=self.is_request)
                    found[section] = serializer(required=False, allow_null=self.is_request)
        return found


class ProfileSerializer(SectionsMixin, BaseSerializer):
    """A template of a runner configuration. Open parameters are absent: give them in `profile_params`."""

    RUNNER_TYPE = serializers.ChoiceField(choices=runner_choices(), required=False)
    MODULE_LOADER_TYPE = serializers.ChoiceField(choices=loader_choices(), required=False)
    MODULES = ModulesField(required=False, help_text="A text for one module, a list for several.")
    INSTALLATION = serializers.CharField(
        required=False,
        help_text="The Autosubmit database that it uses, by its name; absent: the installation 'default'.",
    )
    SILENT_AFTER = serializers.IntegerField(
        required=False,
        help_text="Seconds without output after which its runs are marked as silent; absent: off.",
    )
    RUN_DIRECTORY = serializers.CharField(
        required=False,
        help_text="The directory on the machine that has the directory of runs of each account; absent: the home.",
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
