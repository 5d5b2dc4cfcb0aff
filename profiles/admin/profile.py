"""The profiles in the admin."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from profiles.admin.import_page import NEEDED, import_view
from profiles.admin.profile_form import (
    ProfileForm,
    copy_of,
    form_class,
    other_parameters,
    preview,
    preview_of_form,
    rules_of_form,
)
from profiles.limits import BOUND
from profiles.models import RunnerProfile
from profiles.numbers import number
from profiles.readiness import missing_of, summary
from profiles.rules import RUNNERS
from profiles.yaml.format import Configuration
from profiles.yaml.importer import export_configuration, settings_of
from profiles.yaml.writer import dump

if TYPE_CHECKING:
    ProfileAdmin = admin.ModelAdmin[RunnerProfile]
else:
    ProfileAdmin = admin.ModelAdmin

OPEN = "(open)"


@admin.register(RunnerProfile)
class RunnerProfileAdmin(ProfileAdmin):
    list_display = ("name", "enabled", "target", "acts_as", "environment", "still_open", "still_needs")
    list_filter = ("enabled", "runner_type", "module_loader_type")
    search_fields = ("name", "description", "modules", "ssh_host", "ssh_user")
    search_help_text = "Name, description, modules, SSH host or user"
    list_per_page = list_max_show_all = 25  # each needs three queries and reads files: what it still needs
    actions = ("duplicate", "export", "enable", "disable")
    form = ProfileForm
    fieldsets = (
        (
            None,
            {
                "fields": ("name", "enabled", "description"),
                "description": "A profile defines where and how commands run. An empty field is <em>open</em>: a "
                "request may or must give its value in profile_params. A field with a value is fixed: requests cannot "
                "change it. People who may change profiles can run programs as the account of this service (with a "
                "LOCAL profile and their own environment), read its database and SSH key, and act as every account "
                "that accepts the key. Give this permission only to people who may do all of that. RUNNERS_VENV_ROOTS "
                "and RUNNERS_ALLOW_LOCAL limit it.",
            },
        ),
        (
            "Where",
            {
                "fields": ("runner_type", "ssh_host", "ssh_port", "ssh_user"),
                "description": "LOCAL runs commands as the account of this service and needs no SSH fields. SSH needs "
                "a host with a trusted host key, and an account that accepts one of the published keys.",
            },
        ),
        (
            "Environment of Autosubmit",
            {
                "fields": ("module_loader_type", "modules", "installation"),
                "description": "It must contain the command <code>autosubmit</code>, and the account that runs it "
                "needs a configured Autosubmit database.",
            },
        ),
        (
            "Watch",
            {
                "fields": ("silent_after",),
                "description": "A run may hang without output, for example if a machine or a file system hangs.",
            },
        ),
        (
            "Who may",
            {
                "fields": ("run_groups", "stop_groups", "status_groups", "view_groups"),
                "description": "Add people to groups under Authentication. Superusers may always do everything.",
            },
        ),
        (
            "Limits of open parameters",
            {
                "fields": ("allowed_hosts", "allowed_users", "venv_roots"),
                "description": "Allowed values for the fields that you leave open above.",
            },
        ),
    )

    class Media:
        js = ("profiles/admin_form.js",)

    # Pages of one profile that other applications add, by name: `<pk>/<name>/`. Each gets the admin, the request and
    # the primary key. People who may change the profile find them on its page, by the template variable `<name>_url`.
    pages: ClassVar[dict[str, Callable[[RunnerProfileAdmin, HttpRequest, int], HttpResponseBase]]] = {}

    # --- the form ---

    def get_form(
        self, request: HttpRequest, obj: RunnerProfile | None = None, change: bool = False, **kwargs: Any
    ) -> Any:
        return super().get_form(request, obj, change, **{"form": form_class(), **kwargs})

    def get_fieldsets(self, request: HttpRequest, obj: RunnerProfile | None = None) -> Any:
        """Add the parameters that have no column to the section "Where", for people who may change them."""
        fieldsets = super().get_fieldsets(request, obj)
        may = self.has_change_permission(request, obj) if obj else self.has_add_permission(request)
        others = tuple(parameter.path for parameter in other_parameters()) if may else ()
        return [
            (title, {**options, "fields": (*options["fields"], *others)} if title == "Where" else options)
            for title, options in fieldsets
        ]

    # --- pages ---

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        name = "profiles_runnerprofile_{}".format
        return [
            path("import/", view(self.import_page), name=name("import")),
            path("export/", view(self.export_all), name=name("export")),
            path("preview/", view(self.preview), name=name("preview")),
            path("<int:pk>/preview/", view(self.preview), name=name("preview")),
            path("<int:pk>/export/", view(self.export_one), name=name("export")),
            *(path(f"<int:pk>/{key}/", view(partial(page, self)), name=name(key)) for key, page in self.pages.items()),
            *super().get_urls(),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        may_import = request.user.has_perms(NEEDED)
        return super().changelist_view(request, {"may_import": may_import, **(extra_context or {})})

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        profile = self.get_object(request, object_id) if object_id else None
        context = {
            "preview": preview(profile) if profile else None,
            "preview_url": reverse("admin:profiles_runnerprofile_preview", args=[profile.pk] if profile else []),
            "rules": json.dumps(rules_of_form()),
            "missing": missing_of(profile) if profile else [],
        }
        if profile and self.has_change_permission(request, profile):
            for name in self.pages:
                context[f"{name}_url"] = reverse(f"admin:profiles_runnerprofile_{name}", args=[profile.pk])
        return super().changeform_view(request, object_id, form_url, {**context, **(extra_context or {})})

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        if copied := number(request.GET.get("copy_of")):
            if not self.has_view_permission(request):
                raise PermissionDenied
            if profile := RunnerProfile.objects.filter(pk=copied).first():
                return copy_of(profile)
        # By default, a new profile binds SSH.USER to the person who makes the request. An admin may change that.
        return {"allowed_users": "\n".join(BOUND), **super().get_changeform_initial_data(request)}

    def save_model(self, request: HttpRequest, obj: RunnerProfile, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        for text in obj.warnings:
            self.message_user(request, text, messages.WARNING)

    def preview(self, request: HttpRequest, pk: int | None = None) -> HttpResponse:
        """Return the preview of the posted form as an HTML fragment. Nothing is written."""
        profile = get_object_or_404(RunnerProfile, pk=pk) if pk else None
        may = self.has_change_permission(request, profile) if profile else self.has_add_permission(request)
        if not may:
            raise PermissionDenied
        form = self.get_form(request, profile, change=profile is not None)(request.POST, instance=profile)
        context = {"preview": preview_of_form(form)}
        return TemplateResponse(request, "admin/profiles/runnerprofile/_preview.html", context)

    def import_page(self, request: HttpRequest) -> HttpResponse:
        return import_view(request, self)

    def export_all(self, request: HttpRequest) -> HttpResponse:
        """Return the whole configuration as a YAML file."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        return _yaml_file("runner-configuration", export_configuration())

    def export_one(self, request: HttpRequest, pk: int) -> HttpResponse:
        profile = get_object_or_404(RunnerProfile, pk=pk)
        if not self.has_view_permission(request, profile):
            raise PermissionDenied
        return _yaml_of([profile])

    # --- the list ---

    @admin.display(description="where", ordering="ssh_host")
    def target(self, profile: RunnerProfile) -> str:
        if profile.runner_type in RUNNERS and not RUNNERS[profile.runner_type].parameters:
            return profile.runner_type
        user = f"{profile.ssh_user}@" if profile.ssh_user else ""
        port = f":{profile.ssh_port}" if profile.ssh_port else ""
        host = f"[{profile.ssh_host}]" if port and ":" in profile.ssh_host else profile.ssh_host
        is_named = bool(user or host or port)
        return " ".join(filter(None, [profile.runner_type or OPEN, f"{user}{host or OPEN}{port}" if is_named else ""]))

    @admin.display(description="acts as")
    def acts_as(self, profile: RunnerProfile) -> str | SafeString:
        if profile.is_anybody:
            return format_html('<span class="badge failed">{}</span>', "anybody as anybody")
        if profile.runner_type in RUNNERS and RUNNERS[profile.runner_type].is_local:
            return "the service's account"
        return profile.ssh_user or ", ".join(profile.limits.users)

    @admin.display(description="environment", ordering="modules")
    def environment(self, profile: RunnerProfile) -> str:
        return f"{profile.module_loader_type or OPEN} {', '.join(profile.module_list)}"

    @admin.display(description="to be given")
    def still_open(self, profile: RunnerProfile) -> str:
        """Return the parameters that a request must give. `?` marks those that only some values of others require."""
        return ", ".join(
            f"{item['parameter']}{'' if item['required'] else '?'}"
            for item in profile.requirements()
            if item["required"] or item.get("required_when")
        )

    @admin.display(description="still needs")
    def still_needs(self, profile: RunnerProfile) -> str:
        """Return what is missing before commands can succeed. The page of the profile says how to add it."""
        return summary(missing_of(profile))

    @admin.action(description="Duplicate the selected profile", permissions=["add"])
    def duplicate(self, request: HttpRequest, queryset: QuerySet[RunnerProfile]) -> HttpResponseBase | None:
        if len(queryset) != 1:
            self.message_user(request, "Select the one profile to duplicate.", messages.ERROR)
            return None
        return redirect(f"{reverse('admin:profiles_runnerprofile_add')}?copy_of={queryset[0].pk}")

    @admin.action(description="Export the selected profiles as YAML", permissions=["view"])
    def export(self, request: HttpRequest, queryset: QuerySet[RunnerProfile]) -> HttpResponseBase:
        return _yaml_of(queryset)

    @admin.action(description="Enable the selected profiles", permissions=["change"])
    def enable(self, request: HttpRequest, queryset: QuerySet[RunnerProfile]) -> None:
        self._switch(request, queryset, True)

    @admin.action(description="Disable the selected profiles", permissions=["change"])
    def disable(self, request: HttpRequest, queryset: QuerySet[RunnerProfile]) -> None:
        self._switch(request, queryset, False)

    def _switch(self, request: HttpRequest, queryset: QuerySet[RunnerProfile], enabled: bool) -> None:
        changed = list(queryset.exclude(enabled=enabled))
        for profile in changed:  # one by one, so that each gets an entry in its history
            profile.enabled = enabled
            profile.save(update_fields=["enabled"])
            self.log_change(request, profile, [{"changed": {"fields": ["enabled"]}}])
        self.message_user(
            request, f"{len(changed)} profile(s) {'enabled' if enabled else 'disabled'}.", messages.SUCCESS
        )


def _yaml_of(profiles: Iterable[RunnerProfile]) -> HttpResponse:
    """Return YAML with only these profiles. Importing it changes no others, unless the import prunes."""
    rows = list(profiles)
    configuration = Configuration(profiles={row.name: settings_of(row) for row in rows})
    return _yaml_file(rows[0].name if len(rows) == 1 else "profiles", configuration)


def _yaml_file(name: str, configuration: Configuration) -> HttpResponse:
    response = HttpResponse(dump(configuration), content_type="application/yaml; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{name}.yml"'
    return response
