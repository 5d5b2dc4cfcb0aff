"""The connection test on the admin's page of a profile. The page shows each stage as soon as it is done.

`profiles` must not import the code that reaches machines, so this module adds the page to its admin class.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from django import forms
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.cache import add_never_cache_headers

from profiles import parameters
from profiles.accounts import person_of
from profiles.admin.profile import RunnerProfileAdmin
from profiles.config import RunnerConfig
from profiles.exceptions import InvalidProfile
from profiles.forms import open_parameter
from profiles.models import RunnerProfile
from runners.exceptions import RunnerUnreachable
from runners.services.audit import begin
from runners.services.check import STAGES, Stage, check_profile
from runners.services.machines.bulkheads import BULKHEADS
from runners.services.machines.registry import get_runner
from runners.services.machines.ssh.target import SSHTarget
from runners.web.audit import audit_command

TEMPLATE_FOLDER = "admin/profiles/runnerprofile/"


class CheckForm(forms.Form):
    """The form of the open parameters. `config`, after `is_valid`: the complete configuration."""

    config: RunnerConfig

    def __init__(self, profile: RunnerProfile, user: Any, data: Any = None) -> None:
        super().__init__(data, label_suffix="")
        self.profile = profile
        self.person = replace(person_of(user), is_admin=True)
        for item in profile.requirements():
            field = open_parameter(item, profile)
            # Whether it is required depends on the other fields. `resolve` checks that, with a better message.
            field.widget.is_required = field.required = False
            self.fields[item["parameter"]] = field

    def clean(self) -> dict[str, Any]:
        try:
            self.config = self.profile.resolve(parameters.nested(self.cleaned_data), self.person)
        except InvalidProfile as error:
            for name, texts in error.errors.items():
                field = name if name in self.fields else None
                self.add_error(field, texts if field else [f"{name}: {text}" for text in texts])
        return self.cleaned_data


def check_page(model_admin: RunnerProfileAdmin, request: HttpRequest, pk: int) -> HttpResponseBase:
    """Show a form for the open parameters; a POST runs the test.

    The test starts a process on the machine, so it needs the permission to change the profile.
    """
    profile = get_object_or_404(RunnerProfile, pk=pk)
    if not model_admin.has_change_permission(request, profile):
        raise PermissionDenied
    form = CheckForm(profile, request.user, request.POST if request.method == "POST" else None)
    context = {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.opts,
        "title": f"Check the connection of {profile.name}",
        "profile": profile,
        "form": form,
    }
    if not form.is_valid():
        return TemplateResponse(request, f"{TEMPLATE_FOLDER}check.html", context)
    return stream(request, profile, form, context)


RunnerProfileAdmin.pages["check"] = check_page


def stream(request: HttpRequest, profile: RunnerProfile, form: CheckForm, context: dict[str, Any]) -> HttpResponseBase:
    """Stream the page, piece by piece as the stages are done. No script is needed: browsers show what has arrived."""
    mark = secrets.token_hex(8)
    page = render_to_string(f"{TEMPLATE_FOLDER}check.html", {**context, "mark": mark, "config": form.config}, request)
    head, between, tail = page.split(mark)

    def pieces() -> Iterator[str]:
        yield head + _waiting(next(iter(STAGES)))
        stages: list[Stage] = []
        with audit_command(request, "check-profile", user=request.user, profile_name=profile.name) as audit:
            try:
                BULKHEADS.admit(get_runner(form.config).target, get_runner(form.config).where)
                begin(audit)
                for stage in check_profile(form.config, RunnerProfile.objects.all()):
                    stages.append(stage)
                    yield render_to_string(f"{TEMPLATE_FOLDER}_stage.html", facts_of(stage, profile, form.config))
                    if len(stages) < len(STAGES):
                        yield _waiting(list(STAGES)[len(stages)])
            except RunnerUnreachable as error:  # too many requests occupy the machine; the response has already begun
                audit.outcome, audit.detail = error.code, error.detail
                stage = Stage("resolve", False, 0, "The check was not started.", error.detail)
                stages.append(stage)
                yield render_to_string(f"{TEMPLATE_FOLDER}_stage.html", facts_of(stage, profile, form.config))
            failed = [stage for stage in stages if stage.ok is False]
            audit.detail = f"failed: {', '.join(stage.name for stage in failed)}" if failed else ""
        milliseconds = sum(stage.milliseconds for stage in stages)
        verdict = {"failed": failed, "seconds": f"{milliseconds / 1000:.1f}"}
        yield between + render_to_string(f"{TEMPLATE_FOLDER}_verdict.html", verdict) + tail

    response = StreamingHttpResponse(pieces())
    response["X-Accel-Buffering"] = "no"  # nginx would buffer the whole response
    add_never_cache_headers(response)
    return response


def _waiting(name: str) -> str:
    return render_to_string(f"{TEMPLATE_FOLDER}_stage.html", {"waiting": STAGES[name]})


def facts_of(stage: Stage, profile: RunnerProfile, config: RunnerConfig) -> dict[str, Any]:
    """Return the context of a stage's row. For an unknown or changed key, `scan` links to the page to approve it."""
    scan = ""
    if stage.name == "host_key" and stage.ok is False and isinstance(config.target, SSHTarget):
        base = reverse("admin:runners_trustedhostkey_scan")
        scan = f"{base}?host={config.target.host}&port={config.target.port}&profile={profile.pk}"
    return {"stage": stage, "scan": scan}
