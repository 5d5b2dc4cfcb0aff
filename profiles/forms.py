"""Form fields of the parameters that a profile leaves open."""

from __future__ import annotations

from typing import Any

from django import forms

from profiles import parameters
from profiles.models import RunnerProfile
from profiles.rules import loader_choices, runner_choices

TYPE_CHOICES = {parameters.RUNNER_TYPE: runner_choices, parameters.MODULE_LOADER_TYPE: loader_choices}
EMPTY = "This field is required."
CHOOSE = "Choose one."


def open_parameter(item: parameters.Requirement, profile: RunnerProfile) -> forms.Field:
    """Return the form field of an open parameter, with its limits."""
    path = item["parameter"]
    required = item.get("required", False)
    helps = [f"{item['help'][0].upper()}{item['help'][1:]}."] if item.get("help") else []
    parameter = parameters.table()[path]
    if limits := profile.limits.patterns(parameter.limit):
        helps.append(f"Allowed: {', '.join(limits)}.")
    if path == parameters.MODULES and profile.limits.venv_roots:
        helps.append(f"A path has to lie within {' or '.join(profile.limits.venv_roots)}.")
    attrs: dict[str, Any] = {"autocomplete": "off", "autocapitalize": "off", "spellcheck": "false"}
    common: dict[str, Any] = {"label": parameter.label, "required": required}
    if path in parameters.TYPES:
        choices = [("", "Choose…"), *TYPE_CHOICES[path]()]
        field: forms.Field = forms.ChoiceField(choices=choices, **common)
    elif item["type"] == "integer":
        attrs |= {"min": item["minimum"], "max": item["maximum"], "inputmode": "numeric"}
        helps.append(f"{item['minimum']} to {item['maximum']}. Empty: {item['default']}.")
        field = forms.CharField(widget=forms.NumberInput(attrs=attrs), max_length=18, **common)
    elif item["type"] == "strings":
        helps.append("One per line.")
        field = forms.CharField(widget=forms.Textarea(attrs={**attrs, "rows": 2}), **common)
    else:
        if "default" in item:
            helps.append(f"Empty: {item['default']}.")
        field = forms.CharField(widget=forms.TextInput(attrs=attrs), max_length=item.get("max_length"), **common)
    field.help_text = " ".join(helps)
    field.error_messages["required"] = CHOOSE if path in parameters.TYPES else EMPTY
    return field
