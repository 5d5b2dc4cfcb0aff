"""The endpoint toggles in the admin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from profiles.admin.import_page import switched
from profiles.models import EndpointToggle
from profiles.toggles import commands_of, toggles

if TYPE_CHECKING:
    ToggleAdmin = admin.ModelAdmin[EndpointToggle]
else:
    ToggleAdmin = admin.ModelAdmin


class ToggleForm(forms.ModelForm):
    """One row of the list. The checkbox has no visible label, so it gets an `aria-label` for screen readers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["enabled"].widget.attrs["aria-label"] = f"{self.instance} is enabled"


@admin.register(EndpointToggle)
class EndpointToggleAdmin(ToggleAdmin):
    """The toggles of the commands. The list always has all of them; none can be added or deleted."""

    list_display = ("name", "enabled", "covers", "history")
    list_editable = ("enabled",)
    list_display_links = None
    readonly_fields = ("name",)
    actions = None

    @admin.display(description="commands")
    def covers(self, toggle: EndpointToggle) -> str:
        return ", ".join(commands_of(toggle.name))

    @admin.display(description="who switched it")
    def history(self, toggle: EndpointToggle) -> SafeString:
        url = reverse("admin:profiles_endpointtoggle_history", args=[toggle.pk])
        return format_html('<a href="{}">History<span class="visually-hidden"> of {}</span></a>', url, toggle)

    def construct_change_message(self, request: HttpRequest, form: Any, formsets: Any, add: bool = False) -> Any:
        if "enabled" in form.changed_data:
            return f"{switched(form.cleaned_data['enabled'])}."
        return super().construct_change_message(request, form, formsets, add)

    def get_changelist_form(self, request: HttpRequest, **kwargs: Any) -> Any:
        return super().get_changelist_form(request, **{**kwargs, "form": ToggleForm})

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        # Create the missing rows, so that each family can be switched here.
        rows = [EndpointToggle(name=name, enabled=toggle.is_enabled) for name, toggle in toggles().items()]
        EndpointToggle.objects.bulk_create(rows, ignore_conflicts=True)
        title = "Endpoint toggles"  # instead of "Select ... to change": there is nothing to select
        return super().changelist_view(request, {"title": title, **(extra_context or {})})

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: EndpointToggle | None = None) -> bool:
        return False
