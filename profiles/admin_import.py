"""The import page of the admin: paste or upload YAML, see what it changes, confirm."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.models import ADDITION, CHANGE, DELETION, LogEntry
from django.core.exceptions import PermissionDenied
from django.core.files.uploadedfile import UploadedFile
from django.db import IntegrityError, transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse

from profiles.importer import Change, Plan, import_configuration
from profiles.models import RunnerProfile
from profiles.validators import is_public_key
from profiles.yaml_config import MAX_CHARACTERS, PROFILES, Configuration, InvalidConfiguration, Mistake, parse

NEEDED = (  # an import writes all of these
    *("profiles.add_runnerprofile", "profiles.change_runnerprofile"),
    *("profiles.add_publishedsshkey", "profiles.change_endpointtoggle"),
)
NEEDED_TO_PRUNE = ("profiles.delete_runnerprofile", "profiles.delete_publishedsshkey")


class ImportForm(forms.Form):
    text = forms.CharField(
        label="YAML",
        required=False,
        strip=False,
        max_length=MAX_CHARACTERS,
        widget=forms.Textarea(attrs={"rows": 20, "cols": 100, "spellcheck": "false", "class": "yaml-text"}),
        help_text="A file with RUNNER_CONFIGURATION, such as profiles.example.yml. Other sections are left alone.",
    )
    file = forms.FileField(
        label="or a file", required=False, help_text="It replaces the text above.", allow_empty_file=True
    )
    prune = forms.BooleanField(
        label="Also remove what the YAML does not name",
        required=False,
        help_text="Profiles and published keys, of those sections that the YAML has. Without this they are kept.",
    )

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = self.cleaned_data
        upload = data.get("file")
        if isinstance(upload, UploadedFile):
            if upload.size and upload.size > 4 * MAX_CHARACTERS:
                raise forms.ValidationError(f"{upload.name} is too large.")
            try:
                data["text"] = upload.read().decode("utf-8-sig")
            except UnicodeDecodeError as error:
                raise forms.ValidationError(f"Byte {error.start} of {upload.name} is no UTF-8.") from None
        if not data.get("text", "").strip() and not self.errors:
            raise forms.ValidationError("Paste YAML, or choose a file.")
        return data


@dataclass(slots=True)
class Part:
    """The changes of one profile, or of one of the other sections."""

    title: str
    changes: list[Change] = field(default_factory=list)
    is_profile: bool = False

    @property
    def action(self) -> str:
        """Of the whole part: a profile that is added or removed is one change."""
        return self.changes[0].action if self.is_profile else ""


def parts_of(plan: Plan, configuration: Configuration) -> list[Part]:
    """The plan, profile by profile. `change.path` is shortened to what stands inside of its part."""
    known = {*(configuration.profiles or {}), *RunnerProfile.objects.values_list("name", flat=True)}
    parts: dict[str, Part] = {}
    for change in plan.changes:
        name = profile_of(change.path, known)
        title = name or change.path.partition(".")[0].partition(":")[0]
        part = parts.setdefault(title, Part(title, is_profile=bool(name)))
        prefix = f"{PROFILES}.{name}" if name else title
        path = change.path.removeprefix(prefix).lstrip(".: ")
        part.changes.append(Change(change.action, path, change.before, change.after))
    return list(parts.values())


def profile_of(path: str, names: set[str]) -> str:
    """The profile that a path of a plan belongs to; "" for other sections. Names may hold dots: the longest counts."""
    found = [name for name in names if f"{path}.".startswith(f"{PROFILES}.{name}.")]
    return max(found, key=len, default="")


def import_view(request: HttpRequest, model_admin: admin.ModelAdmin[RunnerProfile]) -> HttpResponse:
    """The page. Without `confirm` it only looks; `confirm` carries the fingerprint of the changes that were shown."""
    if not request.user.has_perms(NEEDED):
        raise PermissionDenied
    is_sent = request.method == "POST"
    form = ImportForm(request.POST, request.FILES) if is_sent else ImportForm()
    context: dict[str, Any] = {
        **model_admin.admin_site.each_context(request),
        "opts": RunnerProfile._meta,
        "title": "Import profiles",
        "form": form,
    }
    if form.is_valid():
        text, prune = form.cleaned_data["text"], form.cleaned_data["prune"]
        # What was uploaded is shown from now on, and is what the confirmation sends.
        context["form"] = shown = ImportForm(initial={"text": text, "prune": prune})
        shown.fields["text"].widget.attrs["rows"] = 12
        if prune and not request.user.has_perms(NEEDED_TO_PRUNE):
            raise PermissionDenied
        try:
            done = _look_or_import(request, context, text, prune)
        except InvalidConfiguration as error:
            context["mistakes"] = [(mistake, line_of(text, mistake)) for mistake in error.mistakes]
        except IntegrityError:
            messages.error(request, "Nothing was imported: somebody changed the same rows just now. Look again.")
        else:
            if done:
                return redirect("admin:profiles_runnerprofile_changelist")
    return TemplateResponse(request, "admin/profiles/runnerprofile/import.html", context)


@transaction.atomic  # between the comparison with what was shown and the import nobody changes anything
def _look_or_import(request: HttpRequest, context: dict[str, Any], text: str, prune: bool) -> bool:
    """Whether it was imported; otherwise the context says what would be. Raises InvalidConfiguration."""
    configuration = parse(text)
    plan = import_configuration(configuration, prune=prune, dry_run=True)
    confirmed = request.POST.get("confirm")
    if confirmed == fingerprint(plan) and plan:
        known = {*(configuration.profiles or {}), *RunnerProfile.objects.values_list("name", flat=True)}
        rows = {row.name: row for row in RunnerProfile.objects.all()}
        import_configuration(configuration, prune=prune)
        _remember(request, plan, known, rows)
        messages.success(
            request,
            f"Imported: {plan.count('add')} added, {plan.count('change')} changed, {plan.count('remove')} removed.",
        )
        return True
    if confirmed:
        messages.warning(request, "The configuration was changed meanwhile. This is what the import would change now.")
    keys = configuration.ssh_public_keys or ()
    context |= {
        "looked": True,
        "plan": plan,
        "counts": {f"{action}s": plan.count(action) for action in ("add", "change", "remove")},
        "parts": parts_of(plan, configuration),
        "fingerprint": fingerprint(plan),
        "no_keys": [key[:60] for key in keys if not is_public_key(key)],
    }
    return False


def fingerprint(plan: Plan) -> str:
    """Of what a plan changes."""
    return hashlib.sha256("\n".join(str(change) for change in plan.changes).encode()).hexdigest()


def line_of(text: str, mistake: Mistake) -> str:
    """The line that a mistake is in."""
    lines = text.splitlines()
    return lines[mistake.line - 1].strip()[:200] if mistake.line and mistake.line <= len(lines) else ""


def _remember(request: HttpRequest, plan: Plan, known: set[str], before: dict[str, RunnerProfile]) -> None:
    """A line in the history of each profile that an import has made, changed or removed."""
    changed: dict[str, list[Change]] = {}
    for change in plan.changes:
        if name := profile_of(change.path, known):
            changed.setdefault(name, []).append(change)
    after = {row.name: row for row in RunnerProfile.objects.filter(name__in=changed)}
    flags = {"add": (ADDITION, "Imported."), "remove": (DELETION, "Removed by an import.")}
    for name, changes in changed.items():
        paths = ", ".join(change.path.removeprefix(f"{PROFILES}.{name}.") for change in changes)
        flag, message = flags.get(changes[0].action, (CHANGE, f"Changed by an import: {paths}."))
        row: Any = after.get(name) or before[name]
        assert request.user.pk  # admin_view lets nobody else in
        LogEntry.objects.log_actions(request.user.pk, [row], flag, change_message=message, single_object=True)
