"""The pages of the generated scripts of an experiment's jobs: the list, and one script."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse

from profiles.accounts import person_of
from runners.exceptions import RunnerServiceError
from runners.pages.base import PageView, usable_profiles
from runners.services import access, job_scripts
from runners.services.machines.registry import get_runner
from runners.services.machines.runner import Runner
from runners.web.problems import error_context, with_retry_after
from runners.web.requests import enabled_profile

SHOWN_BYTES = 256 * 1024


class _ScriptsPage(PageView):
    """A page that reads files of an experiment with the account of the profile that the query names."""

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        context: dict[str, Any] = {
            "profiles": usable_profiles(request.user, access.Action.RUN),
            "profile": request.GET.get("profile_name", ""),
        }
        if not context["profile"]:
            return self.render_to_response(self.get_context_data(**context, **kwargs))
        try:
            runner = self._runner(context["profile"])
            return self.render_to_response(self.get_context_data(**context, **kwargs, **self.found(runner, **kwargs)))
        except RunnerServiceError as error:
            shown = error_context(error, request.user)
            response = self.render_to_response(
                self.get_context_data(**context, **kwargs, error=shown), status=shown["status"]
            )
            return with_retry_after(response, shown)

    def found(self, runner: Runner, **kwargs: Any) -> dict[str, Any]:
        """Return the context that the machine tells. Raises RunnerServiceError."""
        raise NotImplementedError

    def _runner(self, name: str) -> Runner:
        user = self.request.user
        profile = enabled_profile(name, user)
        access.require(user, profile, access.Action.RUN)
        access.require_view(user, profile)
        return get_runner(profile.resolve({}, person_of(user)))


class JobScriptsPage(_ScriptsPage):
    template_name = "pages/job_scripts.html"
    title = "Job scripts"

    def found(self, runner: Runner, **kwargs: Any) -> dict[str, Any]:
        given = self.request.GET.get("offset", "")
        offset = int(given) if given.isascii() and given.isdigit() and len(given) < 9 else 0
        page = job_scripts.page(runner, kwargs["expid"], offset=offset)
        following = offset + page.read
        return {"page": page, "following": following if page.read and following < page.total else None}


class JobScriptPage(_ScriptsPage):
    template_name = "pages/job_script.html"
    title = "Job script"

    def found(self, runner: Runner, **kwargs: Any) -> dict[str, Any]:
        part = job_scripts.read(runner, kwargs["expid"], kwargs["name"], offset=0, limit=SHOWN_BYTES)
        part = part.whole_characters()
        return {"part": part, "text": part.data.decode("utf-8", "replace")}
