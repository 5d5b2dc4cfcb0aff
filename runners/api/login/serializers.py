"""The bodies of the login of the command line."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from runners.models import TokenScope
from runners.services.device_login import HOST_LIMIT, SCOPES
from runners.web.fields import StrictTextField
from runners.web.requests import StrictSerializer

LOGIN_SCOPES = [(scope.value, scope.label) for scope in SCOPES]
LOGIN_STATUSES = [
    ("pending", "nobody has decided yet"),
    ("approved", "the answer has the token"),
    ("denied", "the person has denied it"),
    ("expired", "it has expired, or its token was handed out"),
]


class StartLoginRequest(StrictSerializer):
    """Which program asks for a token."""

    host = StrictTextField(
        max_length=HOST_LIMIT, help_text="The name of the program's machine. The person sees it on the page."
    )
    scope = serializers.ChoiceField(
        choices=LOGIN_SCOPES, default=TokenScope.RUN.value, help_text="What the token may do."
    )


class LoginStarted(serializers.Serializer[Any]):
    """The codes of a login."""

    device_code = serializers.CharField(help_text="A secret of the program. `poll_login` takes it.")
    user_code = serializers.CharField(help_text="The person enters it on the page.")
    verification_uri = serializers.CharField(help_text="The page.")
    verification_uri_complete = serializers.CharField(help_text="The page, with the code filled in.")
    expires_in = serializers.IntegerField(help_text="Seconds until the codes expire.")
    interval = serializers.IntegerField(help_text="Seconds between two requests of `poll_login`, at least.")


class PollLoginRequest(StrictSerializer):
    """Which login."""

    device_code = StrictTextField(max_length=128, help_text="As `start_login` returned it.")


class TokenFacts(serializers.Serializer[Any]):
    """A token of the person, without the secret."""

    key = serializers.CharField(help_text="The first characters of the token.")
    name = serializers.CharField()
    scope = serializers.ChoiceField(choices=TokenScope.choices)
    expires = serializers.DateTimeField(allow_null=True, help_text="null: never.")


class LoginPolled(serializers.Serializer[Any]):
    """The outcome of a login."""

    status = serializers.ChoiceField(choices=LOGIN_STATUSES)
    token = serializers.CharField(help_text="Only if approved, and only once; else empty.")
    username = serializers.CharField(help_text="The person who has approved it; else empty.")
    facts = TokenFacts(allow_null=True, help_text="The token's name, scope and expiry; null without a token.")


class WhoAmI(serializers.Serializer[Any]):
    """The person of a request."""

    username = serializers.CharField()
    is_staff = serializers.BooleanField(help_text="May use the administration.")
    token = TokenFacts(allow_null=True, help_text="The token of the request; null for other credentials.")


class LoggedOut(serializers.Serializer[Any]):
    """The token was revoked."""

    message = serializers.CharField()
