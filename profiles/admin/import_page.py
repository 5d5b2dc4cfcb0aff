"""The import page of the admin: paste or upload YAML, see what it changes, confirm."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
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

from profiles.models import EndpointToggle, RunnerProfile
from profiles.validators import is_public_key
from profiles.yaml.format import MAX_CHARACTERS, PROFILES, Configuration, InvalidConfiguration, Mistake
from profiles.yaml.importer import Change, ImportPlan, import_configuration
from profiles.yaml.reader import parse

NEEDED = (  # an import writes all of these
    *("profiles.add_runnerprofile", "profiles.change_runnerprofile"),
    *("profiles.add_publishedsshkey", "profiles.change_endpointtoggle"),
    *("profiles.add_accountmap", "profiles.change_accountmap"),
)
WORDS = {"add": (ADDITION, "Imported."), "remove": (DELETION, "Removed by an import.")}  # for a row's history
NEEDED_TO_PRUNE = (*("profiles.delete_runnerprofile", "profiles.delete_publishedsshkey", "profiles.delete_accountmap"),)


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
        label="Also remove profiles and keys that are not in the YAML",
        required=False,
        help_text="Only for the sections that the YAML has. Otherwise they are kept.",
    )

    def __init__(self, *args: Any, may_prune: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not may_prune:  # do not offer what the server would reject
            del self.fields["prune"]

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = self.cleaned_data
        upload = data.get("file")
        if isinstance(upload, UploadedFile):
            if upload.size and upload.size > 4 * MAX_CHARACTERS:
                raise forms.ValidationError(f"{upload.name} is too large.")
            try:
                data["text"] = upload.read().decode("utf-8-sig")
            except UnicodeDecodeError as error:
                raise forms.ValidationError(f"Byte {error.start} of {upload.name} is not valid UTF-8.") from None
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
        """Return the action for a profile, "" for another section. An added or removed profile has a single change."""
        return self.changes[0].action if self.is_profile else ""

    @property
    def lines(self) -> list[Change]:
        """Return one change per field. The single change of an added or removed profile is split into its fields."""
        if self.action == "add":
            return [Change("add", path, after=value) for path, value in self.changes[0].fields]
        if self.action == "remove":
            return [Change("remove", path, before=value) for path, value in self.changes[0].fields]
        return self.changes


def parts_of(plan: ImportPlan, configuration: Configuration) -> list[Part]:
    """Group the changes of a plan by profile or section. `change.path` becomes relative to its part."""
    known = {*(configuration.profiles or {}), *RunnerProfile.objects.values_list("name", flat=True)}
    parts: dict[str, Part] = {}
    for change in plan.changes:
        name = profile_of(change.path, known)
        title = name or change.path.partition(".")[0]
        part = parts.setdefault(title, Part(title, is_profile=bool(name)))
        prefix = f"{PROFILES}.{name}" if name else title
        part.changes.append(replace(change, path=change.path.removeprefix(prefix).lstrip(".")))
    return list(parts.values())


def profile_of(path: str, names: set[str]) -> str:
    """Return the profile that a path of a plan belongs to; "" for other sections.

    Names may contain dots, so the longest match wins.
    """
    found = [name for name in names if f"{path}.".startswith(f"{PROFILES}.{name}.")]
    return max(found, key=len, default="")


def import_view(request: HttpRequest, model_admin: admin.ModelAdmin[RunnerProfile]) -> HttpResponse:
    """Show the page. Without `confirm`, it only shows the plan. `confirm` holds the fingerprints of text and plan."""
    if not request.user.has_perms(NEEDED):
        raise PermissionDenied
    is_sent = request.method == "POST"
    may_prune = request.user.has_perms(NEEDED_TO_PRUNE)
    form = ImportForm(*((request.POST, request.FILES) if is_sent else ()), may_prune=may_prune)
    context: dict[str, Any] = {
        **model_admin.admin_site.each_context(request),
        "opts": RunnerProfile._meta,
        "title": "Import profiles",
        "form": form,
    }
    if form.is_valid():
        text, prune = form.cleaned_data["text"], form.cleaned_data.get("prune", False)
        # Put the uploaded text into the form, so that the confirmation sends the same text.
        context["form"] = shown = ImportForm(initial={"text": text, "prune": prune}, may_prune=may_prune)
        shown.fields["text"].widget.attrs["rows"] = 12
        try:
            done = _look_or_import(request, context, text, prune)
        except InvalidConfiguration as error:
            context["mistakes"] = [(mistake, line_of(text, mistake)) for mistake in error.mistakes]
        except IntegrityError:
            messages.error(
                request, "Nothing was imported: the configuration was changed concurrently. Review the changes again."
            )
        else:
            if done:
                return redirect("admin:profiles_runnerprofile_changelist")
    return TemplateResponse(request, "admin/profiles/runnerprofile/import.html", context)


@transaction.atomic  # no concurrent change between the comparison of the plans and the import
def _look_or_import(request: HttpRequest, context: dict[str, Any], text: str, prune: bool) -> bool:
    """Import a confirmed plan and return True; otherwise describe the plan in the context and return False.

    Raises InvalidConfiguration.
    """
    configuration = parse(text)
    plan = import_configuration(configuration, prune=prune, dry_run=True)
    of_text, of_plan = fingerprint([*text.splitlines(), str(prune)]), fingerprint(map(str, plan.changes))
    confirmed = request.POST.get("confirm", "")
    seen_text, _, seen_plan = confirmed.partition(".")
    if plan and seen_plan == of_plan:
        _remember(request, [change for change in plan.changes if change.action == "remove"])
        plan.carry_out()
        _remember(request, [change for change in plan.changes if change.action != "remove"])
        messages.success(
            request,
            f"Imported: {plan.count('add')} added, {plan.count('change')} changed, {plan.count('remove')} removed.",
        )
        return True
    if confirmed:
        who = (
            "The configuration has changed in the meantime"
            if seen_text == of_text
            else "You have edited the YAML after the preview"
        )
        messages.warning(request, f"{who}. Nothing was imported yet. The changes below are up to date.")
    keys = configuration.ssh_public_keys or ()
    context |= {
        "looked": True,
        "plan": plan,
        "counts": {f"{action}s": plan.count(action) for action in ("add", "change", "remove")},
        "parts": parts_of(plan, configuration),
        "fingerprint": f"{of_text}.{of_plan}",
        "no_keys": [key[:60] for key in keys if not is_public_key(key)],
    }
    return False


def fingerprint(lines: Iterable[str]) -> str:
    """Return the SHA-256 of the lines of a text or of a plan. It ignores line ends, because forms change them."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def line_of(text: str, mistake: Mistake) -> str:
    """Return the line of the text that has the mistake, or "" if it is not known."""
    lines = text.splitlines()
    return lines[mistake.line - 1].strip()[:200] if mistake.line and mistake.line <= len(lines) else ""


def _remember(request: HttpRequest, changes: list[Change]) -> None:
    """Add an entry to the history of each row that an import writes, as for an edit by hand.

    Call it before rows are deleted: afterwards they have no primary key.
    """
    by_row: dict[int, list[Change]] = {}
    for change in changes:
        by_row.setdefault(id(change.row), []).append(change)
    for several in by_row.values():
        row: Any = several[0].row
        flag, message = WORDS.get(several[0].action, (CHANGE, ""))
        if isinstance(row, EndpointToggle):
            message = f"{switched(row.enabled)} by an import."
        elif not message:
            paths = ", ".join(change.path.removeprefix(f"{PROFILES}.{row}.") for change in several)
            message = f"Changed by an import: {paths}."
        assert request.user.pk  # admin_view admits only users who are signed in
        LogEntry.objects.log_actions(request.user.pk, [row], flag, change_message=message, single_object=True)


def switched(enabled: bool) -> str:
    """Return the history text of a toggle. The name of the changed field alone would not tell on from off."""
    return "Switched on" if enabled else "Switched off"
