"""The page on which a person approves the login of the command line."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.cache import add_never_cache_headers

from runners.exceptions import RunnerServiceError
from runners.models import DeviceLogin
from runners.pages.base import PageView
from runners.services import device_login
from runners.web.audit import audit_command
from runners.web.problems import error_context, with_retry_after

CODE_LIMIT = 40  # characters of an entered code that are looked at


class DevicePage(PageView):
    """GET shows the form for the code, or with `code` which machine asks. POST approves or denies the login."""

    template_name = "pages/device.html"
    title = "Log in the command line"

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        code = request.GET.get("code", "")[:CODE_LIMIT]
        if not code:
            return self.page()
        try:
            return self.page(login=device_login.waiting(request.user, code), code=code)
        except RunnerServiceError as error:
            return self.refused(error, code)

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        user: Any = request.user
        code = request.POST.get("code", "")[:CODE_LIMIT]
        is_approved = request.POST.get("decision") == "approve"
        try:
            with audit_command(request, "device-login", user=user) as record:
                login = device_login.waiting(user, code)
                device_login.decide(login, user, is_approved=is_approved)
                record.detail = f"{'Approved' if is_approved else 'Denied'} for {login.host} ({login.address})."
        except RunnerServiceError as error:
            return self.refused(error, code)
        return self.page(decided=login, is_approved=is_approved)

    def page(self, **context: Any) -> HttpResponse:
        login: DeviceLogin | None = context.get("login")
        response = self.render_to_response(
            self.get_context_data(
                **context,
                days=device_login.token_days(),
                scope=login and login.get_scope_display(),
                site_url=self.request.build_absolute_uri("/").rstrip("/"),
                file_url=self.request.build_absolute_uri(reverse("client-file")),
            )
        )
        add_never_cache_headers(response)
        return response

    def refused(self, error: RunnerServiceError, code: str) -> HttpResponse:
        shown = error_context(error, self.request.user)
        page = self.page(error=shown, code=code)
        page.status_code = shown["status"]
        return with_retry_after(page, shown)
