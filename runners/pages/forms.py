"""The forms of the commands. A form decides which fields people see; only the API's serializers validate the values.

A form converts its fields to the body of an API request, and assigns the serializer's errors to its fields.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.auth.models import User
from django.http import HttpRequest

from profiles import parameters
from profiles.accounts import person_of
from profiles.config import RunnerConfig
from profiles.exceptions import InvalidProfile
from profiles.forms import CHOOSE, EMPTY, open_parameter
from profiles.models import RunnerProfile, UserSettings
from runners.commands.base import Command
from runners.commands.parameters import Choice, Flag, Parameter, Text, TextList
from runners.exceptions import InvalidRequest, ProfileNotFound, RunnerServiceError
from runners.pages.base import usable_profiles
from runners.printable import quoted
from runners.services import access, experiments
from runners.web import requests
from runners.web.problems import flatten, sentence

PARAM = "param-"  # prefix of the field names of open parameters


class CommandForm(forms.Form):
    """The form of a command that runs with a profile: the fields of the command and the profile's open parameters.

    `validated`: the serializer's validated data, after `is_valid`. `profiles`: the profiles that the person may choose.
    """

    def __init__(
        self,
        command: Command,
        serializer_class: type[requests.ProfiledSerializer],
        request: HttpRequest,
        data: Any = None,
        initial: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(data, initial=initial, label_suffix="")
        self.command = command
        self.serializer_class = serializer_class
        self.params = [each.name for each in command.parameters if not each.in_body]  # they go into `command_params`
        self.rare = [each.name for each in command.parameters if each.is_rare]
        self.request = request
        self.validated: dict[str, Any] = {}
        given = data if data is not None else initial or {}
        self.profiles = usable_profiles(request.user, command.action)
        self.named = given.get("profile_name") or (self.profiles[0].name if len(self.profiles) == 1 else "")
        self.profile = next((profile for profile in self.profiles if profile.name == self.named), None)
        self._refusal: InvalidProfile | RunnerServiceError | None = None
        if command.needs_expid:
            self.fields["expid"] = expid_field()
        self.fields |= {each.name: own_field(each) for each in command.parameters}
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

    def config(self) -> RunnerConfig | None:
        """Return the configuration that the fields of a bound form give so far; None if they are not valid yet."""
        if self.profile is None:
            return None
        given = {}
        for name, field in self.fields.items():
            if not name.startswith(PARAM):
                continue
            try:
                given[name.removeprefix(PARAM)] = field.clean(field.widget.value_from_datadict(self.data, {}, name))
            except forms.ValidationError:
                return None
        try:
            return self.profile.resolve(parameters.nested(given), person_of(self.request.user))
        except (InvalidProfile, RunnerServiceError):
            return None

    # --- for the templates ---

    @property
    def known_experiments(self) -> list[str]:
        """The experiments of runs that this service knows, for the list of the field."""
        return experiments.of_known_runs(self.request.user)

    @property
    def open_fields(self) -> list[forms.BoundField]:
        return [self[name] for name in self.fields if name.startswith(PARAM)]

    @property
    def own_fields(self) -> list[forms.BoundField]:
        return [self[name] for name in self.fields if not name.startswith(PARAM) and name not in self.rare]

    @property
    def more_fields(self) -> list[forms.BoundField]:
        return [self[name] for name in self.rare]

    @property
    def has_more_errors(self) -> bool:
        """True if one of the folded fields has an error, or a value that is not the usual one."""
        return any(
            self[name].errors or self[name].value() not in (None, "", False, self.fields[name].initial)
            for name in self.rare
        )

    # --- validation ---

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
                    self.command.action,
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


# --- the fields of a command ------------------------------------------------------------------------------------------

NO_HELP_FROM_BROWSERS = {"autocomplete": "off", "autocapitalize": "off", "spellcheck": "false"}


def expid_field() -> forms.CharField:
    widget = forms.TextInput(attrs={**NO_HELP_FROM_BROWSERS, "placeholder": "a000", "list": "experiments"})
    return forms.CharField(
        label="Experiment", max_length=16, help_text="Choose it, or type its id, such as a000.", widget=widget
    )


class WordsField(forms.CharField):
    """Several words, with blanks, commas or line ends between them. The value is a list."""

    def to_python(self, value: Any) -> Any:
        return (super().to_python(value) or "").replace(",", " ").split()


def own_field(parameter: Parameter) -> forms.Field:
    """Return the form field of a command's parameter. The serializer checks its rules."""
    common: dict[str, Any] = {
        "label": parameter.label or parameter.name.replace("_", " ").capitalize(),
        "help_text": parameter.hint,
        "required": parameter.is_required and not (isinstance(parameter, Text) and parameter.allow_blank),
    }
    if isinstance(parameter, Flag):
        return forms.BooleanField(**{**common, "required": False})
    if isinstance(parameter, Choice):
        return forms.ChoiceField(choices=[("", "Choose…"), *((word, word) for word in parameter.choices)], **common)
    is_prose = isinstance(parameter, Text) and not parameter.pattern  # any text, exactly as it is typed
    attrs = {} if is_prose else {"spellcheck": "false", "placeholder": parameter.placeholder}
    rows = parameter.rows if isinstance(parameter, Text | TextList) else 0
    common["widget"] = forms.Textarea(attrs={**attrs, "rows": rows}) if rows else forms.TextInput(attrs=attrs)
    if isinstance(parameter, TextList):
        return WordsField(**common)
    return forms.CharField(strip=not is_prose, **common)
