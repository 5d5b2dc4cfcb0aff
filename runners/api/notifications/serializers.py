"""The bodies of the settings of mail."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from runners.services.mail import MOST_SUBSCRIPTIONS
from runners.web.fields import FlagField, StrictTextField
from runners.web.requests import StrictSerializer


class NotificationsRequest(StrictSerializer):
    """What the person wants mail about. It replaces what was stored before."""

    mine = FlagField(help_text="Runs that the person has started.")
    profiles = serializers.ListField(
        child=StrictTextField(max_length=100),
        required=False,
        default=list,
        max_length=MOST_SUBSCRIPTIONS,
        help_text="Names of profiles: all runs that are started with them.",
    )
    runs = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=2**63 - 1),
        required=False,
        default=list,
        max_length=MOST_SUBSCRIPTIONS,
        help_text="Numbers of runs (`runner_id`).",
    )


class NotificationsAnswer(serializers.Serializer[Any]):
    """What the person gets mail about."""

    is_on = serializers.BooleanField(
        help_text="False: the service sends no mail, because no mail server is configured."
    )
    address = serializers.CharField(help_text="Of the person's account. Empty: it has none, so no mail is sent.")
    mine = serializers.BooleanField()
    profiles = serializers.ListField(child=serializers.CharField())
    runs = serializers.ListField(child=serializers.IntegerField())


class TestMailAnswer(serializers.Serializer[Any]):
    """The test message was queued."""

    message = serializers.CharField()
