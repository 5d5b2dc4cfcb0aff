"""The first steps of a new admin: a page, and a part of the admin's first page until they are done or dismissed."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.views.decorators.cache import never_cache

from runners.services import first_steps
from runners_project.admin_site import Page

NEEDED = "profiles.change_runnerprofile"
DISMISSED = "first_steps_dismissed"  # a cookie: it is a choice of this browser, as the colours are
YEAR = 365 * 24 * 3600  # seconds


@never_cache
def page(request: HttpRequest) -> HttpResponse:
    """Show the steps. A POST dismisses them from the first page of the admin, or shows them there again."""
    if not request.user.has_perm(NEEDED):
        raise PermissionDenied
    if request.method == "POST":
        response = redirect("admin:index")
        path = response.url
        if "show" in request.POST:
            response.delete_cookie(DISMISSED, path=path)
        else:
            response.set_cookie(
                DISMISSED,
                "1",
                max_age=YEAR,
                path=path,
                secure=settings.SESSION_COOKIE_SECURE,
                httponly=True,
                samesite="Lax",
            )
        return response
    context = {**admin.site.each_context(request), "title": "First steps", **_context(request)}
    return TemplateResponse(request, "admin/first_steps.html", context)


def for_index(request: HttpRequest) -> dict[str, Any]:
    """Return the context of the first page: empty if nothing is to be shown there."""
    if not request.user.has_perm(NEEDED):
        return {}
    if request.COOKIES.get(DISMISSED):
        return {"has_first_steps": True}
    context = _context(request)
    return {"has_first_steps": True, **(context if context["done"] < context["total"] else {})}


def _context(request: HttpRequest) -> dict[str, Any]:
    steps = first_steps.steps()
    current = next((step.name for step in steps if not step.is_done), "")
    return {
        "steps": steps,
        "current_step": current,
        "done": sum(step.is_done for step in steps),
        "total": len(steps),
        "is_dismissed": bool(request.COOKIES.get(DISMISSED)),
    }


PAGE = Page("first-steps/", "first_steps", "First steps", page, "profiles", (NEEDED,))
