"""Host keys: scan a machine, compare its keys, approve them. Keys of machines are never typed in or edited.

An authority of host certificates has no machine to scan, so an admin pastes its public key.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.safestring import SafeString

from profiles import validators
from profiles.models import RunnerProfile
from profiles.numbers import number
from runners.admin.base import ReadOnlyAdmin
from runners.exceptions import InvalidRequest, RunnerServiceError
from runners.models import TrustedHostKey
from runners.services import host_keys
from runners.services.host_keys import ScannedKey, fingerprint_of
from runners.services.machines.ssh.known_hosts import HostKey
from runners.templatetags.formatting import local_time
from runners.web.client_address import AUDIT_LIMIT, client_address


class ScanForm(forms.Form):
    host = forms.CharField(
        max_length=validators.MAX_HOST,
        validators=[validators.validate_host],
        help_text="A host name, an IP address, or an alias of the service's ~/.ssh/config.",
        widget=forms.TextInput(attrs={"size": 40, "spellcheck": "false", "autocapitalize": "off"}),
    )
    port = forms.IntegerField(
        min_value=1,
        max_value=65535,
        required=False,
        help_text="Empty: the port in ~/.ssh/config, or 22.",
    )


class AuthorityForm(forms.Form):
    """The form of an authority. `found`, after `is_valid`: its key."""

    found: HostKey
    hosts = forms.CharField(
        max_length=host_keys.MAX_PATTERNS_TEXT,
        help_text="Real host names with * and ?, separated by commas, such as *.hpc.example.org,login.example.org.",
        widget=forms.TextInput(attrs={"size": 60, "spellcheck": "false", "autocapitalize": "off"}),
    )
    key = forms.CharField(
        label="Public key",
        max_length=validators.MAX_KEY,
        help_text="The line of the authority's .pub file.",
        widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false"}),
    )

    def clean(self) -> dict[str, Any]:
        data = dict(self.cleaned_data)
        try:
            if "hosts" in data:
                data["hosts"] = host_keys.hosts_of_authority(data["hosts"])
            if "key" in data:
                self.found = host_keys.authority_of(data["key"])
        except InvalidRequest as error:
            for name, texts in error.errors.items():
                self.add_error(name, texts)
        return data


@admin.register(TrustedHostKey)
class TrustedHostKeyAdmin(ReadOnlyAdmin):
    list_display = ("host", "key_type", "is_authority", "fingerprint", "approved_by", "approved")
    list_filter = ("is_authority",)
    search_fields = ("host__icontains", "approved_by__exact")
    search_help_text = "Part of the host name, person who approved it"
    fields = ("host", "key_type", "is_authority", "fingerprint", "key", "approved_by", "approved")
    readonly_fields = ("fingerprint", "approved")

    @admin.display(description="fingerprint")
    def fingerprint(self, row: TrustedHostKey) -> str:
        return fingerprint_of(row) or "not a valid key: it matches nothing"

    @admin.display(description="approved", ordering="created")
    def approved(self, row: TrustedHostKey) -> SafeString | str:
        return local_time(row.created)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("runners.delete_trustedhostkey")

    def delete_model(self, request: HttpRequest, obj: TrustedHostKey) -> None:
        host_keys.forget(obj, request.user.get_username(), address=address_of(request))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[TrustedHostKey]) -> None:
        for row in queryset:
            self.delete_model(request, row)

    # --- scanning ---

    def has_scan_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("runners.add_trustedhostkey")

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("scan/", view(self.scan), name="runners_trustedhostkey_scan"),
            path("authority/", view(self.authority), name="runners_trustedhostkey_authority"),
            *super().get_urls(),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        context = {"may_scan": self.has_scan_permission(request), "title": "Approved host keys"}
        return super().changelist_view(request, {**context, **(extra_context or {})})

    def scan(self, request: HttpRequest) -> HttpResponse:
        """Show the keys of a machine. `approve` holds the fingerprints of the keys to trust from now on.

        The approval scans the machine again. Only a key that it then shows, with the fingerprint that the admin has
        seen, can be approved.
        """
        if not self.has_scan_permission(request):
            raise PermissionDenied
        sent = request.POST if request.method == "POST" else request.GET
        profile = RunnerProfile.objects.filter(pk=number(sent.get("profile")) or 0).first()
        is_sent = request.method == "POST"
        form = ScanForm(sent) if is_sent else ScanForm(initial={"host": sent.get("host"), "port": sent.get("port")})
        context: dict[str, Any] = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "Read the host keys of a machine",
            "form": form,
            "profile": profile,
        }
        if is_sent and form.is_valid():
            wanted = request.POST.getlist("approve")
            try:
                keys = host_keys.scan(form.cleaned_data["host"], form.cleaned_data["port"])
                if wanted and self._approve(request, keys, wanted):
                    if profile:
                        return redirect("admin:profiles_runnerprofile_check", profile.pk)
                    return redirect("admin:runners_trustedhostkey_changelist")
                context["keys"] = keys
                context["has_open"] = any(key.state in ("new", "changed") for key in keys)
            except RunnerServiceError as error:
                context["error"] = error.detail
        return TemplateResponse(request, "admin/runners/trustedhostkey/scan.html", context)

    def authority(self, request: HttpRequest) -> HttpResponse:
        """Show the fingerprint of an authority of host certificates. `approve` holds the fingerprint to trust."""
        if not self.has_scan_permission(request):
            raise PermissionDenied
        form = AuthorityForm(request.POST if request.method == "POST" else None)
        context: dict[str, Any] = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "Approve an authority of host certificates",
            "form": form,
        }
        if form.is_valid():
            if request.POST.get("approve") == form.found.fingerprint:
                row = host_keys.approve_authority(
                    form.cleaned_data["hosts"], form.found, request.user.get_username(), address=address_of(request)
                )
                self.message_user(request, f"Approved: {row.host} {form.found}", messages.SUCCESS)
                return redirect("admin:runners_trustedhostkey_changelist")
            context["found"] = form.found
        return TemplateResponse(request, "admin/runners/trustedhostkey/authority.html", context)

    def _approve(self, request: HttpRequest, keys: list[ScannedKey], wanted: list[str]) -> bool:
        """Approve the wanted keys. Return False and approve none if the machine does not show all of them any more."""
        chosen = [key for key in keys if key.fingerprint in wanted]
        if len(chosen) != len(set(wanted)):
            text = "The machine shows other keys now than a moment ago. Nothing was approved: compare them again."
            self.message_user(request, text, messages.ERROR)
            return False
        for key in chosen:
            host_keys.approve(key, request.user.get_username(), address=address_of(request))
            text = f"Approved: {key.host} {key.key_type} {key.fingerprint}"
            self.message_user(request, text, messages.SUCCESS)
        return True


def address_of(request: HttpRequest) -> str:
    """Return the address of the client, in the form of the audit log."""
    return client_address(request)[:AUDIT_LIMIT]
