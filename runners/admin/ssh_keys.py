"""The page "Service keys": make, replace, retire and publish the SSH key and the user CA. Public halves only."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.views.decorators.cache import never_cache

from runners.exceptions import InvalidRequest
from runners.services import key_pairs
from runners.services.key_pairs import SERVICE_KEY, USER_CA, PairKind
from runners.services.machines.ssh import keys
from runners.web.client_address import AUDIT_LIMIT, client_address
from runners_project.admin_site import Page

VIEW, MANAGE = "profiles.view_publishedsshkey", "profiles.manage_service_keys"
KINDS = {"key": SERVICE_KEY, "ca": USER_CA}


class KeyForm(forms.Form):
    """What the buttons of the page send."""

    kind = forms.ChoiceField(choices=[(name, name) for name in KINDS])
    action = forms.ChoiceField(choices=[(name, name) for name in ("make", "replace", "retire", "publish")])
    comment = forms.CharField(required=False, max_length=key_pairs.MOST_COMMENT)
    sure = forms.BooleanField(required=False)

    def clean(self) -> dict[str, Any]:
        data = dict(self.cleaned_data)
        if data.get("action") in ("replace", "retire") and not data.get("sure"):
            raise forms.ValidationError("Confirm it: select the check box above the button.")
        return data


@never_cache
def page(request: HttpRequest) -> HttpResponse:
    """Show the public halves, and execute what a person with the permission has sent."""
    may_manage = request.user.has_perm(MANAGE)
    if not (may_manage or request.user.has_perm(VIEW)):
        raise PermissionDenied
    problem = ""
    if request.method == "POST":
        if not may_manage:
            raise PermissionDenied
        form = KeyForm(request.POST)
        if not form.is_valid():
            problem = " ".join(str(text) for texts in form.errors.values() for text in texts)
        else:
            try:
                said = _execute(request, KINDS[form.cleaned_data["kind"]], form.cleaned_data)
            except InvalidRequest as error:
                problem = error.detail
            except OSError as error:
                problem = _unusable(error)
            else:
                messages.success(request, said)
                return redirect("admin:service_keys")
    context = {
        **admin.site.each_context(request),
        "title": "Service keys",
        "may_manage": may_manage,
        "problem": problem,
        "directory": keys.directory(),
    }
    try:
        context["pairs"] = [_shown(name, kind) for name, kind in KINDS.items()]
    except OSError as error:
        context["problem"] = problem or _unusable(error)
    return TemplateResponse(request, "admin/service_keys.html", context)


def _execute(request: HttpRequest, kind: PairKind, data: dict[str, Any]) -> str:
    """Execute an action and return what was done, for people. Raises InvalidRequest, OSError."""
    by = {"actor": request.user.get_username(), "address": client_address(request)[:AUDIT_LIMIT]}
    if data["action"] == "publish":
        return f"Published: {key_pairs.publish(kind, **by).fingerprint}."
    if data["action"] == "retire":
        return f"Retired: {key_pairs.retire(kind, **by).fingerprint}. Its line can be removed from the machines."
    key = key_pairs.make(kind, comment=data["comment"], replace=data["action"] == "replace", **by)
    return f"Made: {key.fingerprint}. Copy its line below."


def _shown(name: str, kind: PairKind) -> dict[str, Any]:
    return {
        "name": name,
        "current": kind.current,
        "previous": kind.previous,
        "needs_publication": kind.needs_publication,
        "comment": kind.default_comment,
    }


def _unusable(error: OSError) -> str:
    return f"{keys.directory()} cannot be used: {error.strerror}. RUNNERS_SSH_KEY_DIR names the directory."


PAGE = Page("service-keys/", "service_keys", "Service keys", page, "profiles", (VIEW, MANAGE))
