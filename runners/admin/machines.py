"""Machines and their announced maintenance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from runners.admin.base import ReadOnlyAdmin, badge, clipped, short
from runners.exceptions import MachineNotFound
from runners.models import Machine, Maintenance
from runners.services import machine_list, maintenance
from runners_project import clock

if TYPE_CHECKING:
    MaintenanceModelForm = forms.ModelForm[Maintenance]
else:
    MaintenanceModelForm = forms.ModelForm


@admin.register(Machine)
class MachineAdmin(ReadOnlyAdmin):
    """The machines that the service has contacted. Their pages ask, stop and forget."""

    list_display = ("listed_name", "state", "seen_since", "answered", "failed", "page")
    search_fields = ("name__icontains",)
    fields = ("name", "state", "seen_since", "answered", "failed", "last_error", "page")
    readonly_fields = ("state", "seen_since", "answered", "failed", "page")

    @admin.display(description="name", ordering="name")
    def listed_name(self, machine: Machine) -> SafeString:
        return clipped(machine.name)

    @admin.display(description="state", ordering="is_answering")
    def state(self, machine: Machine) -> SafeString:
        match machine_list.SeenMachine(machine.name, machine).state:
            case machine_list.ANSWERS:
                return badge("answers", "completed")
            case machine_list.NO_ANSWER:
                return badge("no answer", "failed")
            case machine_list.LOGIN_FAILS:
                return badge("login fails", "failed")
        return badge("not asked yet", "unsure")

    @admin.display(description="since", ordering="since")
    def seen_since(self, machine: Machine) -> SafeString | str:
        return short(machine.since)

    @admin.display(description="last answer", ordering="last_answer")
    def answered(self, machine: Machine) -> SafeString | str:
        return short(machine.last_answer)

    @admin.display(description="time of the last error", ordering="last_error_at")
    def failed(self, machine: Machine) -> SafeString | str:
        return short(machine.last_error_at)

    @admin.display(description="page")
    def page(self, machine: Machine) -> SafeString:
        url = reverse("pages:machine", args=[machine.name])
        label = '<a href="{}">runs, ask again, forget<span class="visually-hidden"> {}</span></a>'
        return format_html(label, url, machine)


class MaintenanceForm(MaintenanceModelForm):
    class Meta:
        model = Maintenance
        fields = ("machine", "text", "starts", "ends")
        widgets = {"text": forms.Textarea(attrs={"rows": 3})}

    def clean_machine(self) -> str:
        try:
            return machine_list.known_name(self.cleaned_data["machine"])
        except MachineNotFound as error:
            raise forms.ValidationError(error.detail) from None

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if data.get("starts") and data.get("text"):  # else the field has an error of its own
            row = Maintenance(text=data["text"], starts=data["starts"], ends=data.get("ends"))
            for name, words in maintenance.mistakes_in(row).items():
                self.add_error(name, words)
        return data


@admin.register(Maintenance)
class MaintenanceAdmin(admin.ModelAdmin):
    """Announcements. Deleting one ends it."""

    form = MaintenanceForm
    list_display = ("listed_machine", "state", "starting", "ending", "listed_text", "announcer")
    search_fields = ("machine", "text")
    search_help_text = "Part of the machine's name or of the text"

    def save_model(self, request: HttpRequest, obj: Maintenance, form: Any, change: bool) -> None:
        if not change:
            obj.announced_by = request.user.get_username()
        super().save_model(request, obj, form, change)

    @admin.display(description="machine", ordering="machine")
    def listed_machine(self, row: Maintenance) -> SafeString:
        return clipped(row.machine)

    @admin.display(description="text")
    def listed_text(self, row: Maintenance) -> SafeString:
        return clipped(row.text)

    @admin.display(description="announced by", ordering="announced_by")
    def announcer(self, row: Maintenance) -> SafeString:
        return clipped(row.announced_by)

    @admin.display(description="state")
    def state(self, row: Maintenance) -> SafeString:
        if row.applies:
            return badge("applies now", "stopped")
        return badge("announced", "active") if row.starts > clock.now() else badge("over", "unsure")

    @admin.display(description="from", ordering="starts")
    def starting(self, row: Maintenance) -> SafeString | str:
        return short(row.starts)

    @admin.display(description="until", ordering="ends")
    def ending(self, row: Maintenance) -> SafeString | str:
        return short(row.ends) if row.ends else "an admin ends it"
