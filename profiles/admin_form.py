"""The form of a profile in the admin, and what it stands for: its YAML, and what it leaves to requests."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.forms.models import model_to_dict

from profiles import parameters
from profiles.importer import settings_of
from profiles.models import RunnerProfile
from profiles.validators import MAX_NAME
from profiles.yaml_config import Configuration, dump

if TYPE_CHECKING:
    ProfileModelForm = forms.ModelForm[RunnerProfile]
else:
    ProfileModelForm = forms.ModelForm

LIMITED = {
    parameters.SSH_HOST: "allowed_hosts",
    parameters.SSH_USER: "allowed_users",
    parameters.MODULES: "venv_roots",
}


class ProfileForm(ProfileModelForm):
    """Judges nothing itself: `RunnerProfile.clean` has the rules, for the import and the API, too."""

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


@dataclass(frozen=True, slots=True)
class OpenParameter:
    """What a request gives: the parameter's path, when, and what it may be."""

    path: str
    when: str
    what: str


@dataclass(frozen=True, slots=True)
class Preview:
    """What a profile, saved or not, stands for. `problems`: label and sentence of each mistake."""

    yaml: str
    open: list[OpenParameter]
    problems: list[tuple[str, str]]
    warnings: list[str]


def preview(profile: RunnerProfile) -> Preview:
    """Of a profile as it is stored."""
    return _preview(profile, {})


def preview_of_form(form: forms.ModelForm[RunnerProfile]) -> Preview:
    """Of what stands in a form, wrong or not. Nothing is written."""
    form.is_valid()  # makes form.instance, as far as that is possible
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
        when = "has to be given when " + " and ".join(f"{name} is {_or(words)}" for name, words in needed.items())
    else:
        when = "may be given"
    what = [_or(item["choices"])] if "choices" in item else []
    if "minimum" in item:
        what.append(f"{item['minimum']} to {item['maximum']}")
    if "help" in item:
        what.append(item["help"])
    if path in LIMITED and (limits := getattr(profile, LIMITED[path]).split("\n")) != [""]:
        what.append(("a path within " if path == parameters.MODULES else "") + _or(limits))
    if "default" in item:
        what.append(f"otherwise {item['default']}")
    return OpenParameter(path, when, "; ".join(what))


def _or(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def copy_of(profile: RunnerProfile) -> dict[str, Any]:
    """The initial data of a form for a profile like this one, under a name that is free."""
    taken = set(RunnerProfile.objects.values_list("name", flat=True))
    base = f"{profile.name[: MAX_NAME - 10]}_COPY"
    names = [base, *(f"{base}_{number}" for number in range(2, len(taken) + 3))]
    fields = model_to_dict(profile, exclude=["id"])
    return {**fields, "name": next(name for name in names if name not in taken)}
