"""The forms of the commands. A form decides which fields people see; only the API's serializers validate the values.

A form converts its fields to the body of an API request, and assigns the serializer's errors to its fields.
"""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms
from django.contrib.auth.models import User
from django.http import HttpRequest

from profiles import parameters
from profiles.accounts import person_of
from profiles.exceptions import InvalidProfile
from profiles.forms import CHOOSE, EMPTY, open_parameter
from profiles.models import RunnerProfile, UserSettings
from runners.commands.create_experiment import CREATE_EXPERIMENT
from runners.commands.create_job_list import CREATE_JOB_LIST
from runners.commands.set_job_status import SET_JOB_STATUS, STATUSES
from runners.commands.update_description import UPDATE_DESCRIPTION
from runners.exceptions import InvalidRequest, ProfileNotFound, RunnerServiceError
from runners.pages.base import usable_profiles
from runners.printable import quoted
from runners.services import access
from runners.web import requests
from runners.web.problems import flatten, sentence

PARAM = "param-"  # prefix of the field names of open parameters


class CommandForm(forms.Form):
    """The form of a command that runs with a profile: the fields of the command and the profile's open parameters.

    `validated`: the serializer's validated data, after `is_valid`. `profiles`: the profiles that the person may choose.
    """

    serializer_class: ClassVar[type[requests.ProfiledSerializer]]
    params: ClassVar[tuple[str, ...]] = ()  # the fields that go into `command_params`
    more: ClassVar[tuple[str, ...]] = ()  # the fields that few people need

    def __init__(self, request: HttpRequest, data: Any = None, initial: dict[str, Any] | None = None) -> None:
        super().__init__(data, initial=initial, label_suffix="")
        self.request = request
        self.validated: dict[str, Any] = {}
        given = data if data is not None else initial or {}
        self.profiles = usable_profiles(request.user, self.serializer_class.action)
        self.named = given.get("profile_name") or (self.profiles[0].name if len(self.profiles) == 1 else "")
        self.profile = next((profile for profile in self.profiles if profile.name == self.named), None)
        self._refusal: InvalidProfile | RunnerServiceError | None = None
        for field in self.fields.values():
            field.error_messages["required"] = CHOOSE if isinstance(field, forms.ChoiceField) else EMPTY
        if self.profile:
            self._add_open_parameters(self.profile, given)

    def _add_open_parameters(self, profile: RunnerProfile, given: Any) -> None:
        """Add a field for each open parameter that can matter with the types that are fixed or chosen so far."""
        fixed = profile.values()
        chosen = {
            path: given[PARAM + path]
            for path in parameters.TYPES
            if path not in fixed and given.get(PARAM + path) in parameters.table()[path].choices()
        }
        asked = [item for item in parameters.requirements(fixed) if item["parameter"] in parameters.TYPES]
        asked += [item for item in parameters.requirements(fixed | chosen) if item["parameter"] not in parameters.TYPES]
        preferred = preferred_username(self.request.user)
        for item in asked:
            path = item["parameter"]
            if path not in parameters.TYPES and item.get("required_when"):
                continue  # the field comes after the choice that decides whether it is required
            field = open_parameter(item, profile)
            if path in parameters.TYPES:  # a choice fetches the form with the fields that it makes necessary
                field.widget.attrs |= {"hx-post": self.request.path, "hx-trigger": "change"}
            elif parameters.table()[path].limit == parameters.USERS:
                field.initial = preferred
            elif path == parameters.MODULES:
                field.label = parameters.loader_of(fixed | chosen).field_label
            self.fields[PARAM + path] = field

    # --- for the templates ---

    @property
    def open_fields(self) -> list[forms.BoundField]:
        return [self[name] for name in self.fields if name.startswith(PARAM)]

    @property
    def own_fields(self) -> list[forms.BoundField]:
        return [self[name] for name in self.fields if not name.startswith(PARAM) and name not in self.more]

    @property
    def more_fields(self) -> list[forms.BoundField]:
        return [self[name] for name in self.more]

    @property
    def has_more_errors(self) -> bool:
        """True if one of the folded fields has an error or a value."""
        return any(self[name].errors or (self.is_bound and self[name].data) for name in self.more)

    # --- judging ---

    def body(self) -> dict[str, Any]:
        """Return the body of the equivalent API request."""
        # Browsers send CR LF as the line ends of text areas.
        values = {
            name: value.replace("\r\n", "\n") if isinstance(value, str) else value
            for name, value in self.cleaned_data.items()
        }
        given = parameters.nested({name.removeprefix(PARAM): values[name] for name in values if name.startswith(PARAM)})
        own = {name: values[name] for name in values if not name.startswith(PARAM) and name not in self.params}
        body = {**own, "profile_name": self.profile.name if self.profile else "", "profile_params": given}
        if self.params:
            body["command_params"] = {name: values[name] for name in self.params if name in values}
        return body

    def clean(self) -> dict[str, Any]:
        if not self.named:
            raise forms.ValidationError(
                "Choose a profile." if self.profiles else "There is no profile that you may use."
            )
        # Validate the whole body even if single fields have errors already, so that people see all errors at once.
        # `_add` adds no second error to a field.
        missing = {name: "" for name in self.fields if name not in self.cleaned_data}
        self.cleaned_data.update(missing)
        body = self.body()
        serializer = self.serializer_class(data=body, context={"request": self.request})
        try:
            if self.profile is None:  # not one of the offered profiles: raise the error that the API would give
                access.require(
                    self.request.user,
                    requests.enabled_profile(self.named, self.request.user),
                    self.serializer_class.action,
                )
                raise ProfileNotFound(f"The profile {quoted(self.named)} has just changed. Try again.")
            if serializer.is_valid():
                self.validated = serializer.validated_data
            else:
                self._add(flatten(serializer.errors))
                self.profile.resolve(body["profile_params"], person_of(self.request.user))
        except InvalidProfile as error:
            self._refusal = error
            self._add(error.errors, PARAM)
        except RunnerServiceError as error:
            self._refusal = error
            self.add_error(None, error.detail)
        return self.cleaned_data

    @property
    def refusal(self) -> tuple[str, str]:
        """The error code of an invalid form, and all its errors in one text, for the audit."""
        code = self._refusal.code if self._refusal else InvalidRequest.code
        found = {
            "" if name == "__all__" else name: [str(text) for text in texts] for name, texts in self.errors.items()
        }
        return code, sentence(found)

    def _add(self, errors: dict[str, list[str]], prefix: str = "") -> None:
        for path, texts in errors.items():
            name = prefix + path.removeprefix("command_params.")
            parts = name.split(".")  # such as job_names_list.3
            field = name if name in self.fields else parts[0] if parts[0] in self.fields else None
            if field is None:
                self.add_error(None, [f"{path}: {text}" if path else text for text in texts])
            elif field not in self.errors:
                self.add_error(field, texts)


def preferred_username(user: Any) -> str:
    """Return the account on machines that a person has chosen in the user settings; empty if none."""
    if not isinstance(user, User):
        return ""
    row = UserSettings.objects.filter(user=user).first()
    return row.preferred_username if row else ""


# --- the commands -----------------------------------------------------------------------------------------------------


def expid_field() -> forms.CharField:
    attrs = {"autocomplete": "off", "autocapitalize": "off", "spellcheck": "false", "placeholder": "a000"}
    return forms.CharField(
        label="Experiment", max_length=16, help_text="Its id, such as a000.", widget=forms.TextInput(attrs=attrs)
    )


def flag(label: str, help_text: str = "") -> forms.BooleanField:
    return forms.BooleanField(label=label, required=False, help_text=help_text)


def text(label: str, help_text: str = "", *, rows: int = 0, placeholder: str = "") -> forms.CharField:
    """Return an optional text field. The serializer checks its limits."""
    attrs: dict[str, Any] = {"spellcheck": "false", "placeholder": placeholder}
    widget = forms.Textarea(attrs={**attrs, "rows": rows}) if rows else forms.TextInput(attrs=attrs)
    return forms.CharField(label=label, required=False, help_text=help_text, widget=widget)


class RunForm(CommandForm):
    serializer_class = requests.RunExperimentRequest
    expid = expid_field()


class JobListForm(CommandForm):
    serializer_class = requests.request_of(CREATE_JOB_LIST)
    params = ("force", "check_wrapper", "update_version")
    more = ("check_wrapper", "update_version")
    expid = expid_field()
    force = flag("Ignore the old job list", "For a damaged job list. All jobs are reset, with and without this option.")
    check_wrapper = flag("Also check the wrappers")
    update_version = flag(
        "Change the experiment to this Autosubmit version", "For an experiment that was created with another version."
    )


class SetStatusForm(CommandForm):
    serializer_class = requests.request_of(SET_JOB_STATUS)
    params = (
        *("final_status", "job_names_list", "filter_status", "filter_type", "filter_chunks", "filter_type_chunk"),
        *("filter_type_chunk_split", "check_wrapper", "update_version"),
    )
    more = ("filter_chunks", "filter_type_chunk", "filter_type_chunk_split", "check_wrapper", "update_version")
    expid = expid_field()
    final_status = forms.ChoiceField(
        label="New status",
        choices=[("", "Choose…"), *((status, status) for status in STATUSES)],
        help_text="Autosubmit does not accept other statuses.",
    )
    job_names_list = text("Jobs by name", "Full names, separated by blanks or lines.", rows=3, placeholder="a000_SIM")
    filter_status = text("Jobs by status", "Jobs that have one of these statuses now.", placeholder="FAILED WAITING")
    filter_type = text("Jobs by section", "The names of job sections; splits in brackets.", placeholder="DN [1-2], SIM")
    filter_chunks = text("Jobs by chunk", placeholder="[ 20000101 [ fc0 [1-2] ] ]")
    filter_type_chunk = text("Jobs by chunk and section", placeholder="[ 20000101 [ fc0 [1] ] ],SIM")
    filter_type_chunk_split = text("Jobs by chunk, section and split", placeholder="[ 20000101 [ fc0 [1] ] ],SIM")
    check_wrapper = flag("Also check the wrappers")
    update_version = flag(
        "Change the experiment to this Autosubmit version", "For an experiment that was created with another version."
    )

    def clean_job_names_list(self) -> list[str]:
        return self.cleaned_data["job_names_list"].replace(",", " ").split()


class CreateExperimentForm(CommandForm):
    serializer_class = requests.request_of(CREATE_EXPERIMENT)
    params = (
        *("description", "hpc", "copy", "dummy", "minimal", "use_local_minimal", "git_repo", "git_branch"),
        *("config_path", "operational", "testcase", "evaluation"),
    )
    more = params[3:]
    description = forms.CharField(label="Description", widget=forms.Textarea(attrs={"rows": 2}), strip=False)
    hpc = text("Platform", "Where its jobs run by default; empty: local. Autosubmit does not check the name here.")
    copy = text("Copy of", "An experiment whose configuration is copied.", placeholder="a000")
    dummy = flag("With example jobs", "Jobs that only sleep, for tests.")
    minimal = flag("Minimal configuration", "One small file, minimal.yml.")
    use_local_minimal = flag("With a local project", "With a minimal configuration: no git repository.")
    git_repo = text("Git repository", "URL or path, without user and password.")
    git_branch = text("Git branch")
    config_path = text("Configuration in the repository", "The path of its configuration files.")
    operational = flag("Operational", "The id begins with o.")
    testcase = flag("Test case", "The id begins with t.")
    evaluation = flag("Evaluation", "The id begins with e.")


class DescriptionForm(CommandForm):
    serializer_class = requests.request_of(UPDATE_DESCRIPTION)
    expid = expid_field()
    description = forms.CharField(
        label="New description", required=False, strip=False, widget=forms.Textarea(attrs={"rows": 4})
    )
