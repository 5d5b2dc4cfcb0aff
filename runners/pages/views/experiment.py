"""The page of one experiment: its runs, jobs, configuration and commands, and its description."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.html import escape
from django.views import View

from profiles.numbers import number
from runners.exceptions import RunnerServiceError
from runners.models import AuditRecord, RunnerRun
from runners.pages import rows, run_lists
from runners.pages.base import LoginRequiredMixin, PageView
from runners.pages.views import history
from runners.services import access, foreign_runs, jobs


class ExperimentPage(PageView):
    """The page of one experiment, also without runs. htmx fetches what the machine has to tell."""

    template_name = "pages/experiment.html"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        expid = kwargs["expid"]
        self.title = f"Experiment {expid}"
        user = self.request.user
        runs = list(
            access.visible(RunnerRun.objects.filter(expid=expid), user).order_by("-id")[: run_lists.RECENT_SHOWN]
        )
        audit = access.visible_records(AuditRecord.objects.filter(expid=expid), user)
        installations = sorted({run.installation for run in runs})
        return super().get_context_data(
            **kwargs,
            runs=runs,
            newest=runs[0] if runs else None,
            newest_progress=rows.progress_of(runs[0]) if runs else None,
            foreign=foreign_runs.last_seen(expid, user),
            # The linked pages of commands start with the profile that was used last.
            profile=self.request.GET.get("profile_name") or (runs[0].profile_name if runs else ""),
            active=next((run for run in runs if run.is_active), None) if len(installations) == 1 else None,
            installations=installations,
            picture=history.draw(runs, group=history.experiment_of) if runs else None,
            audit=audit.order_by("-id")[: run_lists.RECENT_SHOWN],
        )


class Description(LoginRequiredMixin, View):
    """The description of an experiment as text, read by the account of one of its runs (`?run=`); empty: not known."""

    def get(self, request: HttpRequest, expid: str) -> HttpResponse:
        runs = access.visible(RunnerRun.objects.filter(expid=expid), request.user)
        run = runs.filter(pk=number(request.GET.get("run")) or 0).first()
        try:
            text = jobs.description_of(run) if run else ""
        except RunnerServiceError:  # the rest of the page says that the machine does not answer
            text = ""
        return HttpResponse(escape(text))
