"""The request bodies: one serializer for each command.

All serializers are strict. They reject an unknown member and suggest the nearest known name, because a misspelt option
that is silently ignored would run something else than the client meant.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from drf_spectacular.utils import extend_schema_field, extend_schema_serializer
from rest_framework import serializers

from profiles.api.serializers import ModulesField
from profiles.models import RunnerProfile
from profiles.people import person_of
from runners.commands.autosubmit import STATUSES, CreateExperimentParams, CreateJobListParams, SetJobStatusParams
from runners.exceptions import ProfileNotFound
from runners.services import access, lookup
from runners.web.fields import (
    MAX_NAMED,
    ConfigPathField,
    DescriptionField,
    ExpidField,
    FilterField,
    FinalStatusField,
    FlagField,
    JobNamesField,
    NoParamsField,
    OptionalExpidField,
    OptionalTextField,
    ProfileParamsField,
    RepositoryField,
    SectionsField,
    StrictTextField,
    WordsField,
    quoted,
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
        return f"{quoted(name)} is not known here. {remedy}"


# The next three classes only describe profile_params in the OpenAPI document: `RunnerProfile.resolve` reads and
# validates the values. Their schemas leave out null: drf-spectacular adds it, because of `allow_null`.


@extend_schema_field(
    {"oneOf": [{"type": "integer", "minimum": 1, "maximum": 65535}, {"type": "string", "pattern": "^[0-9]*$"}]}
)
class PortField(serializers.IntegerField):
    """A number, or a text of digits."""


class ProfileSSHParamsSerializer(serializers.Serializer[Any]):
    """How to reach the machine. USER and USERNAME mean the same."""

    HOST = serializers.CharField(
        required=False, allow_null=True, help_text="A host name, an address, or an alias of the SSH config."
    )
    PORT = PortField(required=False, allow_null=True, help_text="22 if nobody says another.")
    USER = serializers.CharField(required=False, allow_null=True, help_text="The account there.")
    USERNAME = serializers.CharField(required=False, allow_null=True, help_text="Another word for USER.")


class ProfileParamsSerializer(serializers.Serializer[Any]):
    """What the profile leaves open. null and an empty text mean "not given"; what it fixes cannot be changed."""

    RUNNER_TYPE = serializers.CharField(required=False, allow_null=True, help_text="LOCAL or SSH.")
    MODULE_LOADER_TYPE = serializers.CharField(
        required=False, allow_null=True, help_text="CONDA, VENV, LMOD or NO_MODULE."
    )
    MODULES = ModulesField(
        required=False, allow_null=True, help_text="Modules, a conda environment, or the path of a venv."
    )
    SSH = ProfileSSHParamsSerializer(required=False, allow_null=True)


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


def _no_profile(name: str, names: list[str]) -> ProfileNotFound:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    remedy = f"Did you mean '{near[0]}'?" if near else "GET configuration/profiles lists them."
    return ProfileNotFound(f"There is no profile {quoted(name)}. {remedy}")


DRY_RUN = "Answer what would be done (the resolved profile, argv and script) and do nothing."


class ProfiledSerializer(StrictSerializer):
    """A command that runs with a profile. `config` in the validated data is its RunnerConfig."""

    profile_name = StrictTextField(max_length=100, help_text="The name of a profile, see configuration/profiles.")
    profile_params = TypedProfileParamsField(help_text="What the profile leaves open.")
    dry_run = FlagField(help_text=DRY_RUN)

    action = access.Action.RUN

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Add `config`, the resolved profile. Raises ProfileNotFound, ProfileForbidden and InvalidProfile."""
        user = self.context["request"].user
        profile = enabled_profile(attrs["profile_name"], user)
        access.require(user, profile, self.action)
        attrs["config"] = profile.resolve(attrs["profile_params"], person_of(user))
        return attrs


class RunExperimentRequest(ProfiledSerializer):
    """Which experiment, and how its machine is reached."""

    expid = ExpidField()
    command_params = NoParamsField()


class WhichRun(StrictSerializer):
    """Which experiment, where several installations may have one of this id.

    `scope` in the validated data says where to look for the run.
    """

    expid = ExpidField()
    profile_name = OptionalTextField(
        max_length=100,
        help_text="Look in the installation of this profile only. Needed when several installations have an experiment "
        "of this id.",
    )
    profile_params = TypedProfileParamsField(
        help_text="With profile_name: the account and the machine, where the profile leaves them open."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Add `scope`; None without profile_name. Raises ProfileNotFound and InvalidProfile."""
        name, params = attrs.pop("profile_name"), attrs.pop("profile_params")
        attrs["scope"] = None
        if name is None and params:
            raise serializers.ValidationError({"profile_name": "Give it, too: profile_params belong to a profile."})
        if name is not None:
            user = self.context["viewer"]
            profile = RunnerProfile.objects.filter(name=name).first() or enabled_profile(name, user)
            attrs["scope"] = lookup.of_profile(profile, params, person_of(user))
        return attrs


class RunStatusRequest(WhichRun):
    """Which experiment."""


class StopExperimentRequest(WhichRun):
    """Which experiment, and how hard. The run itself knows its machine."""

    force = FlagField(help_text="End it at once (KILL) instead of asking it first.")
    cancel_jobs = FlagField(
        help_text="Also cancel the jobs that it has submitted. When nothing runs: those that the last run has left."
    )
    dry_run = FlagField(help_text=DRY_RUN)


class SetJobStatusParamsSerializer(StrictSerializer):
    """Which jobs get which status. At least one filter has to be given; several are combined with AND."""

    final_status = FinalStatusField(help_text="The new status. Not every version of Autosubmit sets jobs to each.")
    job_names_list = JobNamesField(help_text="Full job names, such as a001_SIM.")
    filter_chunks = FilterField(help_text="Such as [ 20000101 [ fc0 [1-2] ] ].")
    filter_status = WordsField(
        words=(*STATUSES, "ANY"),
        rule="use Autosubmit's statuses, such as READY or FAILED.",
        help_text="Jobs that have one of these statuses now. Autosubmit refuses a status that no job has.",
    )
    filter_type = SectionsField(help_text="Jobs of these sections, such as SIM, or DN [1-2] for some of its splits.")
    filter_type_chunk = FilterField(help_text="Such as [ 20000101 [ fc0 [1] ] ],SIM.")
    filter_type_chunk_split = FilterField(help_text="Such as [ 20000101 [ fc0 [1] ] ],SIM.")
    check_wrapper = FlagField(help_text="Also generate and check the wrappers.")
    update_version = FlagField(help_text="Set the experiment's Autosubmit version to the one that runs the command.")

    FILTERS = ("job_names_list", "filter_chunks", "filter_status", "filter_type", "filter_type_chunk")
    CHUNK_FILTERS = ("filter_chunks", "filter_type_chunk", "filter_type_chunk_split")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if not any(attrs[name] for name in (*self.FILTERS, "filter_type_chunk_split")):
            raise serializers.ValidationError(
                {"job_names_list": "Say which jobs: give job_names_list or at least one filter."}
            )
        given = [name for name in self.CHUNK_FILTERS if attrs[name]]
        if len(given) > 1:
            raise serializers.ValidationError(
                {given[1]: f"Give only one of {' and '.join(given)}: Autosubmit would ignore all but one."}
            )
        return attrs

    def as_params(self, attrs: dict[str, Any]) -> SetJobStatusParams:
        return SetJobStatusParams(
            **{
                **attrs,
                "job_names_list": tuple(attrs["job_names_list"]),
                "filter_type": ",".join(attrs["filter_type"]) or None,
            }
        )


class SetJobStatusRequest(ProfiledSerializer):
    """Which experiment, which of its jobs, and their new status."""

    action = access.Action.SET_STATUS

    expid = ExpidField()
    command_params = SetJobStatusParamsSerializer()

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        expid, params = attrs["expid"], attrs["command_params"]
        foreign = [name for name in params["job_names_list"] if not name.startswith(f"{expid}_")]
        if foreign:
            raise serializers.ValidationError(
                {
                    "command_params": {
                        "job_names_list": f"{quoted(foreign[0])} is no job of {expid}: its jobs begin with {expid}_."
                    }
                }
            )
        attrs = super().validate(attrs)
        attrs["params"] = SetJobStatusParamsSerializer().as_params(params)
        return attrs


class CreateExperimentParamsSerializer(StrictSerializer):
    """How the new experiment is made.

    At most one of operational, testcase and evaluation; dummy neither with minimal nor with copy.
    """

    description = DescriptionField(help_text="Any text of at most 32,000 characters.")
    hpc = OptionalTextField(
        pattern=r"[A-Za-z0-9][A-Za-z0-9_.-]*",
        rule="a platform is named by letters, digits and _ . -, such as local.",
        max_length=100,
        help_text="The default platform, HPCARCH. Autosubmit accepts unknown names here; a run would fail later.",
    )
    git_repo = RepositoryField(help_text="The URL or path of a git repository, without user and password.")
    git_branch = OptionalTextField(
        pattern=r"[A-Za-z0-9_][A-Za-z0-9._/+@#=-]*",
        rule="use the name of a branch or tag, without blanks or shell characters.",
        max_length=255,
    )
    config_path = ConfigPathField(
        help_text="Where the repository keeps the configuration files. Several paths are separated by commas; all but "
        "the first begin with %PROJDIR%/ (the repository), as in conf/a.yml,%PROJDIR%/conf/b.yml."
    )
    copy = OptionalExpidField(help_text="An experiment whose configuration is copied.")
    minimal = FlagField(help_text="Only one small configuration file, minimal.yml.")
    use_local_minimal = FlagField(help_text="With minimal: a local project instead of a git repository.")
    dummy = FlagField(help_text="With example jobs that only sleep.")
    operational = FlagField(help_text="The id begins with o.")
    testcase = FlagField(help_text="The id begins with t.")
    evaluation = FlagField(help_text="The id begins with e.")

    EXCLUSIVE = (("operational", "testcase", "evaluation"), ("minimal", "dummy"), ("copy", "dummy"))

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        for group in self.EXCLUSIVE:
            given = [name for name in group if attrs[name]]
            if len(given) > 1:
                raise serializers.ValidationError({given[1]: f"Give only one of {' and '.join(given)}."})
        if attrs["minimal"] and attrs["use_local_minimal"]:
            for name in ("git_repo", "git_branch"):
                if attrs[name]:
                    raise serializers.ValidationError(
                        {name: f"Leave out {name} or use_local_minimal: Autosubmit would drop {name} without a word."}
                    )
        return attrs


class CreateExperimentRequest(ProfiledSerializer):
    """Where and how a new experiment is made."""

    command_params = CreateExperimentParamsSerializer()

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        attrs = super().validate(attrs)
        attrs["params"] = CreateExperimentParams(**attrs["command_params"])
        return attrs


class CreateJobListParamsSerializer(StrictSerializer):
    """How the job list is made."""

    check_wrapper = FlagField(help_text="Also generate and check the wrappers.")
    update_version = FlagField(help_text="Set the experiment's Autosubmit version to the one that runs the command.")
    force = FlagField(
        help_text="Read nothing of the old job list, such as when its file is damaged. With and without it all jobs "
        "begin anew: COMPLETED ones become READY or WAITING."
    )


class CreateJobListRequest(ProfiledSerializer):
    """Which experiment, and how its job list is made."""

    expid = ExpidField()
    command_params = CreateJobListParamsSerializer(required=False, allow_null=True)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        attrs = super().validate(attrs)
        attrs["params"] = CreateJobListParams(**(attrs.get("command_params") or {}))
        return attrs


@extend_schema_serializer(component_name="UpdateExperimentDescriptionRequest")
class UpdateDescriptionRequest(ProfiledSerializer):
    """Which experiment, and its new description."""

    expid = ExpidField()
    description = DescriptionField(allow_blank=True, help_text="Any text of at most 32,000 characters; may be empty.")
    command_params = NoParamsField()
