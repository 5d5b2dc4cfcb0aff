"""The list of all runs, with filters, search, order, pages and counts. Its whole state is in its address."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.utils.cache import get_conditional_response, patch_vary_headers
from django.utils.http import urlencode

from runners.models import RunnerRun, RunReason, RunStatus
from runners.pages import rows
from runners.pages.base import PageView, is_partial
from runners.pages.run_filters import EVERYBODY, LAST_PAGE, MINE, NEWEST, RunFilterForm, remember_mine, wants_mine
from runners.pages.run_lists import etag_of
from runners.services import access, bounded_queries, experiment_descriptions, runs
from runners.templatetags.formatting import BADGES

PAGE_SIZE = 50
COUNTED = 2000  # runs that are counted
ROWS_LIMIT, COUNT_LIMIT = 5.0, 0.5  # seconds of the database
SUGGESTED_FROM, SUGGESTED_FOR = (
    2000,
    60.0,
)  # newest runs that suggest values; seconds that they are kept
MOST_KEPT = 64
UNUSED_IN_ROWS = ("detail", "config", "modules", "command_params", "jobs", "restart", "cancel", "restart_detail")


class RunsPage(PageView):
    """The page, and its table alone for htmx. Bare `/runs` opens the list that the person has looked at last."""

    template_name = "pages/runs.html"
    title = "Runs"

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        given = {name: str(value).strip() for name, value in request.GET.items()}
        if not given and wants_mine(request):
            return HttpResponseRedirect(f"{request.path}?mine={MINE}")
        rest = {name: value for name, value in given.items() if value and (name, value) != ("sort", NEWEST)}
        if rest != given:  # a form sends its empty fields, too
            return HttpResponseRedirect(f"{request.path}?{urlencode(rest or {'mine': EVERYBODY})}")
        form = RunFilterForm(given, suggestions(request.user))
        table = self._table(form) if form.is_valid() else {}
        if is_partial(request):
            etag = table.get("etag", 'W/"-"')
            response = get_conditional_response(request, etag=etag) or self._partial({"form": form, **table})
            response["ETag"] = etag
        else:
            context = self.get_context_data(form=form, **table, **(self._counts(form) if table else {}))
            response = self.render_to_response(context, status=200 if table else 400)
        patch_vary_headers(response, ("HX-Request",))
        if form.is_valid():
            remember_mine(request, response)
        return response

    def _partial(self, context: dict[str, Any]) -> HttpResponse:
        return render(self.request, "pages/_runs_table.html", context)

    def _table(self, form: RunFilterForm) -> dict[str, Any]:
        start = (form.page_number - 1) * PAGE_SIZE
        try:
            with bounded_queries.time_limit(ROWS_LIMIT):
                found = list(self._find(form)[start : start + PAGE_SIZE + 1])
                shown = found[:PAGE_SIZE]
                described = experiment_descriptions.of_runs(shown)
        except bounded_queries.TooSlow:
            return {"is_too_slow": True}
        has_more = len(found) > PAGE_SIZE
        before = form.page_number - 1
        html = "".join(rows.html_of(run, described.get(run.pk, "")) for run in shown)
        return {
            "rows": rows.with_ages(html),
            "etag": etag_of(f"{html}{has_more}"),  # without the ages, which the page updates itself
            "first": start + 1 if shown else 0,
            "last": start + len(shown),
            "has_active": any(run.is_active for run in shown),
            "previous": form.link(page=before if before > 1 else "") if before else "",
            "next": form.link(page=form.page_number + 1) if has_more and form.page_number < LAST_PAGE else "",
            "is_cut": has_more and form.page_number == LAST_PAGE,
        }

    def _find(self, form: RunFilterForm) -> Any:
        found = runs.find(
            viewer=self.request.user, sort=form.order, **form.restrictions(self.request.user), **form.state()
        )
        return found.defer(*UNUSED_IN_ROWS)

    def _counts(self, form: RunFilterForm) -> dict[str, Any]:
        """Return the number of runs, and a link with a number for each state. COUNTED runs are counted at most."""
        user = self.request.user
        try:
            with bounded_queries.time_limit(COUNT_LIMIT):  # a search by descriptions has a query of its own
                chosen = runs.find(viewer=user, **form.restrictions(user), **form.state())
                newest = runs.find(viewer=user, **form.restrictions(user))[:COUNTED]
        except bounded_queries.TooSlow:
            return {}
        total = bounded_queries.count(chosen, COUNTED, COUNT_LIMIT)
        counts = {"total": min(total, COUNTED), "is_total_cut": total > COUNTED} if total is not None else {}
        try:
            with bounded_queries.time_limit(COUNT_LIMIT):
                groups = bounded_queries.count_groups(newest.values_list("status", "reason"))
        except bounded_queries.TooSlow:
            return counts
        all_of_them = sum(groups.values())
        more = "+" if all_of_them >= COUNTED else ""
        given = form.cleaned_data
        states = [("all", "All", {"status": "", "reason": "", "mark": ""}, all_of_them)]
        for status in (RunStatus.ACTIVE, RunStatus.COMPLETED):
            number = sum(count for (name, _), count in groups.items() if name == status)
            states.append((status.lower(), status.capitalize(), {"status": status, "reason": "", "mark": ""}, number))
        for reason in RunReason:
            number = groups.get((RunStatus.TERMINATED, reason), 0)
            states.append((reason, BADGES[reason].capitalize(), {"status": "", "reason": reason, "mark": ""}, number))
        return {
            **counts,
            "states": [
                {
                    "label": label,
                    "number": f"{number}{more}",
                    "link": form.link(**query),
                    "is_chosen": all(given[field] == value for field, value in query.items()),
                }
                for name, label, query, number in states
                if number or name in ("all", RunStatus.ACTIVE.lower()) or given["reason"] == name
            ],
        }


_lock = threading.Lock()
_suggestions: OrderedDict[Hashable, tuple[float, dict[str, list[str]]]] = OrderedDict()


def suggestions(user: Any) -> dict[str, list[str]]:
    """Return the machines, people and profiles of the newest runs that `user` may see, sorted."""
    view = access.visibility(user)
    now = time.monotonic()
    with _lock:
        kept = _suggestions.get(view)
    if kept and now - kept[0] < SUGGESTED_FOR:
        return kept[1]
    newest = access.visible(RunnerRun.objects.order_by("-id"), user)
    found = list(newest.values_list("host", "started_by", "profile_name")[:SUGGESTED_FROM])
    names = dict(zip(("machine", "person", "profile"), zip(*found, strict=True), strict=True)) if found else {}
    values = {name: sorted(set(column) - {""}) for name, column in names.items()}
    with _lock:
        _suggestions[view] = now, values
        while len(_suggestions) > MOST_KEPT:
            _suggestions.popitem(last=False)
    return values


def forget() -> None:
    """Clear the cache, for tests."""
    with _lock:
        _suggestions.clear()
