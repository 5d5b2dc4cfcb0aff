"""The bodies of requests and answers about machines."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from rest_framework import serializers

from runners.models import Maintenance
from runners.models.machine import MAX_TEXT
from runners.services import machine_list
from runners.services.maintenance import fields_of
from runners.web.fields import StrictTextField, UtcTimeField
from runners.web.requests import StrictSerializer

STATES = (
    (machine_list.ANSWERS, "it answered the last time it was asked"),
    (machine_list.NO_ANSWER, "it did not answer, or its host key is not trusted"),
    (machine_list.LOGIN_FAILS, "it answers, and rejected the last login"),
    (machine_list.UNKNOWN, "it was not asked yet"),
)


class MomentField(UtcTimeField):
    """A time in ISO 8601 with its offset. Without one, the time could mean another zone than the sender's."""

    default_error_messages = {
        "naive": "Give the offset, too, such as 2026-03-01T18:00:00+01:00.",
        "invalid": "Give a time in ISO 8601, such as 2026-03-01T18:00:00+01:00.",
    }

    def to_internal_value(self, value: str | datetime | date) -> datetime:
        if not isinstance(value, str) or len(value) > 40:
            self.fail("invalid", format="")
        return super().to_internal_value(value)

    def enforce_timezone(self, value: datetime) -> datetime:
        if value.tzinfo is None:
            self.fail("naive")
        return super().enforce_timezone(value)


class AnnounceRequest(StrictSerializer):
    """A maintenance of the machine in the path."""

    text = StrictTextField(
        max_length=MAX_TEXT, help_text="What people read when their command is refused: the reason, and whom to ask."
    )
    starts = MomentField(required=False, allow_null=True, default=None, help_text="null: now.")
    ends = MomentField(required=False, allow_null=True, default=None, help_text="null: until an admin ends it.")


class MaintenanceSerializer(serializers.Serializer[Any]):
    """An announced maintenance of a machine."""

    id = serializers.IntegerField()
    machine = serializers.CharField()
    text = serializers.CharField()
    starts = serializers.DateTimeField()
    ends = serializers.DateTimeField(allow_null=True, help_text="null: until an admin ends it.")
    announced_by = serializers.CharField(allow_blank=True)

    def to_representation(self, instance: Maintenance | dict[str, Any]) -> dict[str, Any]:
        return instance if isinstance(instance, dict) else fields_of(instance)


class LastError(serializers.Serializer[Any]):
    """The last failure to reach a machine."""

    code = serializers.CharField(help_text="Such as runner_unreachable or authentication_failed.")
    title = serializers.CharField(help_text="The meaning of the code.")
    at = serializers.DateTimeField()


class MachineSerializer(serializers.Serializer[Any]):
    """A machine, as it was seen last."""

    name = serializers.CharField(help_text="Its host name in lower case; localhost: the machine of this service.")
    state = serializers.ChoiceField(choices=STATES)
    since = serializers.DateTimeField(allow_null=True, help_text="Since when it is in this state.")
    last_answer = serializers.DateTimeField(allow_null=True)
    last_error = LastError(allow_null=True)
    profiles = serializers.ListField(
        child=serializers.CharField(), help_text="Profiles that you may use and that lead there."
    )
    active_runs = serializers.IntegerField(help_text="Number of active runs there that you may see.")
    maintenance = MaintenanceSerializer(many=True, help_text="Announced and not over, the first to start first.")


class MachinesAnswer(serializers.Serializer[Any]):
    """The machines that you may see, by name."""

    machines = MachineSerializer(many=True)


class MaintenanceEnded(serializers.Serializer[Any]):
    """The maintenance is over, or was withdrawn."""

    message = serializers.CharField()


class MachineForgotten(serializers.Serializer[Any]):
    """The service knows nothing of the machine any more."""

    message = serializers.CharField()
