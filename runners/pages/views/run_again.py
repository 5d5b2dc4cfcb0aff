"""The page that runs an experiment again."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.http import urlencode

from profiles import parameters
from runners.commands.registry import one_shot_commands
from runners.exceptions import RunnerServiceError
from runners.models import RunnerRun
from runners.pages.forms import PARAM
from runners.pages.views import restart
from runners.pages.views.run import RunBaseView
from runners.services import run_again
from runners.services.run_again import First
from runners.web.audit import audit_command
from runners.web.problems import error_context, with_retry_after

FIRST_STEPS = {
    First.NOTHING: "Nothing: only start it",
    First.FAILED_TO_WAITING: "Set all failed jobs to WAITING",
    First.RECOVER: "Recover the experiment: ask the platforms which jobs are done",
}


class RunAgainPage(RunBaseView):
    """Choose what is done first, see what would change, and start the run.

    POST has an `action`: `preview` or `do`. Both ask the machine, as the same requests of the API do.
    """

    template_name = "pages/run_again.html"

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return self._page(request.GET)

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        run, given = self.run, request.POST
        try:
            with audit_command(
                request, run_again.RUN_AGAIN, user=request.user, expid=run.expid, profile_name=run.profile_name
            ) as audit:
                found = run_again.prepare(
                    pk=run.pk, user=request.user, first=_first(given), params=self._params(given), audit=audit
                )
                if given.get("action") != "do":
                    previewed = found.preview(audit)
                    audit.argv, audit.outcome = previewed.plan.argv, "dry_run"
                    return self._page(given, plan=previewed.plan, steps=previewed.steps)
                started, steps = found.execute(audit)
        except RunnerServiceError as error:
            shown = error_context(error, request.user)
            return with_retry_after(self._page(given, status=shown["status"], error=shown), shown)
        for step in steps:
            messages.success(request, step.message)
        for warning in [*(each for step in steps for each in step.warnings), *found.warnings]:
            messages.warning(request, warning)
        return redirect("pages:run", pk=started.pk)

    def _params(self, given: Any) -> dict[str, Any] | None:
        """Return the options of the new run; None: those of the former run."""
        return {**run_again.options_of(self.run), "update_version": True} if "update_version" in given else None

    def _page(self, given: Any, *, status: int = 200, **context: Any) -> HttpResponse:
        chosen = _first(given)
        known = one_shot_commands()
        choices = [
            {"value": first.value, "text": text, "is_chosen": first == chosen}
            for first, text in FIRST_STEPS.items()
            if first != First.RECOVER or run_again.RECOVER in known
        ]
        context |= {
            "choices": choices,
            "update_version": "update_version" in given,
            "options": run_again.options_of(self.run),
            "start_url": f"{reverse('pages:start')}?{urlencode(_fields(self.run))}",
        }
        return self.render_to_response(self.get_context_data(**context), status=status)


def _fields(run: RunnerRun) -> dict[str, str]:
    """Return the fields of the start page that describe the same run. The page ignores those that it does not have."""
    fields = {"expid": run.expid, "profile_name": run.profile_name}
    config = run.config if isinstance(run.config, dict) else {}
    for path in parameters.table():
        section, _, name = path.rpartition(".")
        value = (config.get(section) or {} if section else config).get(name)
        if value:
            fields[PARAM + path] = "\n".join(value) if isinstance(value, list) else str(value)
    for name, value in run_again.options_of(run).items():
        if value:
            fields[name] = "on" if value is True else " ".join(value) if isinstance(value, list) else str(value)
    if run.restart:
        fields |= {restart.PREFIX + cause: "on" for cause in run.restart["on"]}
        fields[restart.ATTEMPTS] = str(run.restart["attempts"])
    return fields


def _first(given: Any) -> First:
    """Return the chosen first step; nothing for a value that the page does not offer."""
    value = given.get("first", "")
    return First(value) if value in set(First) else First.NOTHING
