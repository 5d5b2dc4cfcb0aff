"""The request bodies: one serializer for each command. `request_of` makes those of the one-shot commands.

All serializers are strict. They reject an unknown member and suggest the nearest known name, because a misspelt option
that is silently ignored would run something else than the client meant.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from profiles.accounts import person_of
from profiles.api.serializers import ModulesField, SectionsMixin
from profiles.exceptions import ForbiddenParameter, InvalidProfile
from profiles.models import RunnerProfile
from profiles.rules import MODULE_LOADERS, RUNNERS
from profiles.validators import one_of
from runners.commands.base import Command
from runners.commands.parameters import InvalidParams
from runners.commands.run_experiment import RUN_EXPERIMENT
from runners.commands.stop_experiment import STOP_EXPERIMENT
from runners.exceptions import ProfileForbidden, ProfileNotFound
from runners.models import RunnerRun
from runners.printable import quoted
from runners.services import access, foreign_runs, lookup, restart_plans
from runners.web.fields import (
    MAX_NAMED,
    ExpidField,
    FlagField,
    NoParamsField,
    OptionalTextField,
    ProfileParamsField,
    StrictTextField,
    field_of,
)


class StrictSerializer(serializers.Serializer[Any]):
    """A serializer that rejects unknown members, with an error for each of them."""

    default_error_messages = {"invalid": "Give an object, as in {{}}."}

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, Mapping):
            self.fail("invalid")
        strange = [name for name in data if name not in self.fields]
        unknown = {name: [self._unknown(name)] for name in strange[:MAX_NAMED]}
        try:
            values: dict[str, Any] = super().to_internal_value(data)
        except serializers.ValidationError as error:
            raise serializers.ValidationError({**unknown, **error.detail}) from None  # type: ignore[dict-item]
        if unknown:
            raise serializers.ValidationError(unknown)
        return values

    def _unknown(self, name: str) -> str:
        near = difflib.get_close_matches(name.lower()[:60], list(self.fields), n=1)
        known = ", ".join(self.fields)
        remedy = f"Did you mean '{near[0]}'?" if near else f"Known here: {known}."
        return f"{quoted(name)} is not a known member. {remedy}"


class ProfileParamsSerializer(SectionsMixin, serializers.Serializer[Any]):
    """Open parameters of the profile. null and an empty text mean "not given". Fixed ones cannot be changed."""

    # This class only describes profile_params in the OpenAPI document: `RunnerProfile.resolve` parses and validates the
    # values. Its schema leaves out null: drf-spectacular adds it, because of `allow_null`.
    is_request = True
    RUNNER_TYPE = serializers.CharField(required=False, allow_null=True, help_text=f"{one_of(list(RUNNERS))}.")
    MODULE_LOADER_TYPE = serializers.CharField(
        required=False, allow_null=True, help_text=f"{one_of(list(MODULE_LOADERS))}."
    )
    MODULES = ModulesField(
        required=False, allow_null=True, help_text="Modules, a conda environment, or the path of a venv."
    )


@extend_schema_field(ProfileParamsSerializer)
class TypedProfileParamsField(ProfileParamsField):
    """ProfileParamsField with its members in the OpenAPI document."""


def enabled_profile(name: str, user: Any) -> RunnerProfile:
    """Return an enabled profile. Raises ProfileNotFound, with the nearest name of the profiles that `user` may use."""
    known = "\0" not in name  # PostgreSQL's driver rejects a text with a NUL
    profile = RunnerProfile.objects.filter(name=name, enabled=True).first() if known else None
    if profile is None:
        raise _no_profile(name, [row.name for row in RunnerProfile.usable_by(user)])
    return profile


def usable_profile(name: str, user: Any) -> RunnerProfile:
    """Return a profile that `configuration/profiles` lists for `user`. Raises ProfileNotFound for all others."""
    rows = {row.name: row for row in RunnerProfile.usable_by(user)}
    if name not in rows:
        raise _no_profile(name, list(rows))
    return rows[name]


def _profile_of_runs(name: str, expid: str, user: Any) -> RunnerProfile:
    """Return a profile that `user` may use, or with which a run of `expid` was started that `user` may see.

    So the runs of a disabled profile are found. Raises ProfileNotFound for all others.
    """
    profile = RunnerProfile.objects.filter(name=name).first()
    if profile:
        if profile.enabled and any(access.user_may(user, profile, action) for action in access.Action):
            return profile
        if access.visible(RunnerRun.objects.filter(expid=expid, profile_id=profile.pk), user).exists():
            return profile
    return usable_profile(name, user)


def _no_profile(name: str, names: list[str]) -> ProfileNotFound:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    remedy = f"Did you mean '{near[0]}'?" if near else "GET configuration/profiles lists them."
    return ProfileNotFound(f"Profile {quoted(name)} does not exist. {remedy}")


DRY_RUN = "Return what would be executed (the resolved profile, argv and script) and execute nothing."


PREVIEW = (
    "Ask Autosubmit on the machine what would change, and save nothing. The response is that of the command, and may "
    "be wrong by the time the command is executed. Unlike `dry_run` it takes as long as the command."
)


class ProfiledSerializer(StrictSerializer):
    """A command that runs with a profile. `config` in the validated data is its RunnerConfig."""

    profile_name = StrictTextField(max_length=100, help_text="The name of a profile, see configuration/profiles.")
    profile_params = TypedProfileParamsField(help_text="Values of the open parameters of the profile.")
    dry_run = FlagField(help_text=DRY_RUN)

    action = access.Action.RUN

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Add `config`, the resolved profile. Raises ProfileNotFound, ProfileForbidden and InvalidProfile."""
        user = self.context["request"].user
        profile = enabled_profile(attrs["profile_name"], user)
        access.require(user, profile, self.action)
        attrs["config"] = profile.resolve(attrs["profile_params"], person_of(user))
        return attrs


class WhichRun(StrictSerializer):
    """Which experiment, where several installations may have one of this id.

    `scope` in the validated data says where to look for the run.
    """

    expid = ExpidField()
    profile_name = OptionalTextField(
        max_length=100,
        help_text="Search only in the installation of this profile. Required if several installations have an "
        "experiment with this id.",
    )
    profile_params = TypedProfileParamsField(
        help_text="With profile_name: the account and the machine, if the profile leaves them open."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Add `scope`; None without profile_name. Raises ProfileNotFound and InvalidProfile.

        The errors of `profile_params` and the runs that the scope finds tell the fixed values of the profile. So
        the person has to be able to use the profile, or to see a run of this experiment with it.
        """
        name, params = attrs.pop("profile_name"), attrs.pop("profile_params")
        attrs["scope"] = None
        if name is None and params:
            raise serializers.ValidationError({"profile_name": "Required together with profile_params."})
        if name is not None:
            user = self.context["viewer"]
            profile = _profile_of_runs(name, attrs["expid"], user)
            attrs["scope"] = lookup.of_profile(profile, params, person_of(user))
        return attrs


class RunStatusRequest(WhichRun):
    """Which experiment."""


class StopExperimentRequest(WhichRun):
    __doc__ = STOP_EXPERIMENT.request_text

    force, cancel_jobs, foreign = map(field_of, STOP_EXPERIMENT.parameters)
    dry_run = FlagField(help_text=DRY_RUN)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Add `place`: where to look for a run that this service has not started; None if that is not known.

        With `foreign`, raises ProfileForbidden and InvalidProfile if the profile cannot be used.
        """
        name, params = attrs["profile_name"], attrs["profile_params"]
        attrs = super().validate(attrs)
        attrs["place"] = None
        if name is not None:
            user = self.context["viewer"]
            try:
                profile = enabled_profile(name, user)
                access.require(user, profile, access.Action.STOP)
                attrs["place"] = foreign_runs.Place(profile.resolve(params, person_of(user)), name)
            except (InvalidProfile, ForbiddenParameter, ProfileForbidden, ProfileNotFound):
                if attrs["foreign"]:
                    raise
        return attrs


# --- from the registry ------------------------------------------------------------------------------------------------


class ParamsSerializer(StrictSerializer):
    """The `command_params` of a command."""

    command: ClassVar[Command]

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        try:
            self.command.validate(attrs)
        except InvalidParams as error:
            raise serializers.ValidationError(error.errors) from None
        return attrs


class CommandRequest(ProfiledSerializer):
    """The request of a command with a profile. `params` in the validated data has the values of its parameters."""

    command: ClassVar[Command]

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Add `config` and `params`. Raises the errors of ProfiledSerializer."""
        own = {each.name: attrs.pop(each.name) for each in self.command.parameters if each.in_body}
        params = own | (attrs.pop("command_params", None) or {})
        try:
            self.command.validate_for(attrs.get("expid", ""), params)
        except InvalidParams as error:
            raise serializers.ValidationError(self._placed(error.errors)) from None
        attrs = super().validate(attrs)
        return {**attrs, "params": params}

    def _placed(self, errors: dict[str, str]) -> dict[str, Any]:
        """Return the errors at the members of the request that they concern."""
        own = {each.name for each in self.command.parameters if each.in_body}
        nested = {name: text for name, text in errors.items() if name not in own}
        placed: dict[str, Any] = {name: text for name, text in errors.items() if name in own}
        return placed | ({"command_params": nested} if nested else {})


@cache
def request_of(command: Command) -> type[CommandRequest]:
    """Return the serializer of a command's request body, made of its parameters."""
    members: dict[str, Any] = {"expid": ExpidField()} if command.needs_expid else {}
    members |= {each.name: field_of(each) for each in command.parameters if each.in_body}
    members["command_params"] = params_field(command)
    if getattr(command, "preview_name", ""):
        members["preview"] = FlagField(help_text=PREVIEW)
    more = {"command": command, "action": command.action, "__doc__": command.request_text}
    return type(f"{_camel(command)}Request", (CommandRequest,), {**members, **more, "__module__": __name__})


def params_field(command: Command) -> serializers.Field[Any, Any, Any, Any]:
    """Return the field `command_params` of a command."""
    parameters = [each for each in command.parameters if not each.in_body]
    if not parameters:
        return NoParamsField()
    made = _params_of(command)
    if any(each.is_required for each in parameters):
        return made()
    return made(required=False, allow_null=True)


@cache
def _params_of(command: Command) -> type[ParamsSerializer]:
    members = {each.name: field_of(each) for each in command.parameters if not each.in_body}
    more = {"command": command, "__doc__": command.params_text, "__module__": __name__}
    return type(f"{_camel(command)}ParamsSerializer", (ParamsSerializer,), {**members, **more})


def _camel(command: Command) -> str:
    """Return the name of a command as the name of a class: SetJobStatus."""
    return command.name.title().replace("-", "")


RESTART_CAUSES = list(restart_plans.CAUSES.items())


class RestartRequest(StrictSerializer):
    """When the run is to be started again automatically, as the same person and with the same configuration."""

    on = serializers.ListField(
        child=serializers.ChoiceField(choices=RESTART_CAUSES),
        allow_empty=False,
        max_length=len(restart_plans.CAUSES),
        help_text="lost: the machine was rebooted during the run and answers again. platform: Autosubmit gave up "
        "because it could not reach a platform.",
    )
    attempts = serializers.IntegerField(
        min_value=1,
        max_value=restart_plans.MOST_ATTEMPTS,
        default=restart_plans.DEFAULT_ATTEMPTS,
        help_text="How many restarts there may be, one after the other.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Sort the causes and remove duplicates."""
        return {**attrs, "on": sorted(set(attrs["on"]))}


class RunExperimentRequest(request_of(RUN_EXPERIMENT)):  # type: ignore[misc]
    __doc__ = RUN_EXPERIMENT.request_text

    restart = RestartRequest(required=False, allow_null=True)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Add `restart`, None if the run is never started again."""
        return {"restart": None, **super().validate(attrs)}
