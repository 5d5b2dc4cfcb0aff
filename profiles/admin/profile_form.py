"""The admin form of a profile, and its preview: the YAML of the profile and its open parameters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.forms.models import model_to_dict

from profiles import parameters
from profiles.models import OPEN, RunnerProfile
from profiles.parameter import Parameter
from profiles.rules import MODULE_LOADERS, RUNNERS
from profiles.validators import MAX_NAME, one_of
from profiles.yaml.format import Configuration
from profiles.yaml.importer import settings_of
from profiles.yaml.writer import dump

if TYPE_CHECKING:
    ProfileModelForm = forms.ModelForm[RunnerProfile]
else:
    ProfileModelForm = forms.ModelForm


class ProfileForm(ProfileModelForm):
    """The form of a profile. `RunnerProfile.clean` has all its rules, and also serves the import and the API."""

    class Meta:
        model = RunnerProfile
        fields = "__all__"
        widgets: ClassVar[dict[str, forms.Widget]] = {
            **{
                name: forms.Textarea(attrs={"rows": rows, "cols": 60, "spellcheck": "false"})
                for name, rows in {"modules": 3, "allowed_hosts": 2, "allowed_users": 2, "venv_roots": 2}.items()
            },
            **{name: forms.CheckboxSelectMultiple() for name in RunnerProfile.ACCESS.values()},
            "description": forms.Textarea(attrs={"rows": 2, "cols": 60}),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if modules := self.fields.get("modules"):
            taken = " ".join(f"{name}: {loader.what or 'nothing'}." for name, loader in MODULE_LOADERS.items())
            modules.help_text = f"{taken} {modules.help_text}"
        for path, value in self.instance.other_parameters.items():
            self.initial.setdefault(path, value)

    def clean(self) -> dict[str, Any]:
        """Take the parameters that have no column into the row, before the row's own rules are checked."""
        super().clean()
        given = {each.path: self.cleaned_data.get(each.path) for each in other_parameters() if each.path in self.fields}
        if given:
            values, errors = parameters.parse(parameters.nested({path: text or "" for path, text in given.items()}))
            for path, texts in errors.items():
                self.add_error(path, texts)
            self.instance.other_parameters = values
        return self.cleaned_data


def other_parameters() -> list[Parameter]:
    """Return the parameters that have no column, such as those of runners that a site has added."""
    return [parameter for parameter in parameters.table().values() if not parameter.column]


def form_class() -> type[ProfileForm]:
    """Return the form with a field for each of `other_parameters`. A field has the path of its parameter as name."""
    fields: dict[str, Any] = {parameter.path: _field_of(parameter) for parameter in other_parameters()}
    return type("ProfileForm", (ProfileForm,), fields) if fields else ProfileForm


def _field_of(parameter: Parameter) -> forms.Field:
    helps = [f"{parameter.help.rstrip('.')}." if parameter.help else "", OPEN if parameter.is_open else ""]
    options: dict[str, Any] = {"label": parameter.label, "required": False, "help_text": " ".join(filter(None, helps))}
    if parameter.type == "choice":
        return forms.ChoiceField(
            choices=[("", "---------"), *((name, name) for name in parameter.choices())], **options
        )
    return forms.CharField(**options)


def rules_of_form() -> dict[str, Any]:
    """Return what admin_form.js has to know to show the fields that matter for the chosen runner and loader."""
    limits = RunnerProfile.LIMITS
    rows = parameters.table().values()
    return {
        "runners": {name: [each.field_name for each in runner.parameters] for name, runner in RUNNERS.items()},
        "loaders": {
            name: {"takes": loader.takes, "mayBePath": loader.may_be_path} for name, loader in MODULE_LOADERS.items()
        },
        "limits": {
            limits[limit]: [each.field_name for each in rows if each.limit == limit]
            for limit in (parameters.HOSTS, parameters.USERS)
        },
    }


@dataclass(frozen=True, slots=True)
class OpenParameter:
    """A parameter that a profile leaves open: its path, when a request gives it, and the allowed values."""

    path: str
    when: str
    what: str


@dataclass(frozen=True, slots=True)
class Preview:
    """The preview of a profile, saved or not. `problems`: field label and message of each validation error."""

    yaml: str
    open: list[OpenParameter]
    problems: list[tuple[str, str]]
    warnings: list[str]


def preview(profile: RunnerProfile) -> Preview:
    """Return the preview of a stored profile."""
    return _preview(profile, {})


def preview_of_form(form: forms.ModelForm[RunnerProfile]) -> Preview:
    """Return the preview of the values in a form, valid or not. Nothing is written."""
    form.is_valid()  # fills form.instance with the valid values
    access = {
        name: tuple(sorted(group.name for group in form.cleaned_data.get(field) or ()))
        for name, field in RunnerProfile.ACCESS.items()
    }
    problems = [
        ("" if name == "__all__" else str(form.fields[name].label).capitalize(), str(text))
        for name, texts in form.errors.items()
        for text in texts
    ]
    return replace(_preview(form.instance, access), problems=problems)


def _preview(profile: RunnerProfile, access: dict[str, tuple[str, ...]]) -> Preview:
    settings = settings_of(profile)
    settings = replace(settings, access=access) if access else settings
    text = dump(Configuration(profiles={profile.name or "NAME": settings}))
    return Preview(text, [_open(item, profile) for item in profile.requirements()], [], profile.warnings)


def _open(item: parameters.Requirement, profile: RunnerProfile) -> OpenParameter:
    path = item["parameter"]
    if item["required"]:
        when = "has to be given"
    elif needed := item.get("required_when"):
        when = "has to be given when " + " and ".join(f"{name} is {one_of(words)}" for name, words in needed.items())
    else:
        when = "may be given"
    what = [one_of(item["choices"])] if "choices" in item else []
    if "minimum" in item:
        what.append(f"{item['minimum']} to {item['maximum']}")
    if "help" in item:
        what.append(item["help"])
    limit = RunnerProfile.LIMITS.get(parameters.table()[path].limit)
    if limit and (limits := getattr(profile, limit).split("\n")) != [""]:
        what.append(("a path within " if path == parameters.MODULES else "") + one_of(limits))
    if "default" in item:
        what.append(f"otherwise {item['default']}")
    return OpenParameter(path, when, "; ".join(what))


def copy_of(profile: RunnerProfile) -> dict[str, Any]:
    """Return the initial form data for a copy of this profile, under a name that is not taken."""
    taken = set(RunnerProfile.objects.values_list("name", flat=True))
    base = f"{profile.name[: MAX_NAME - 10]}_COPY"
    names = [base, *(f"{base}_{number}" for number in range(2, len(taken) + 3))]
    fields = model_to_dict(profile, exclude=["id"])
    return {**fields, **profile.other_parameters, "name": next(name for name in names if name not in taken)}
