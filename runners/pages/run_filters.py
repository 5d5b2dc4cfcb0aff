"""The filters of the list of runs: what the address may say, and the addresses of the links of the page.

`services.runs.find` applies the filters. An address has only what differs from the defaults, so that it is short.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from typing import Any

from django import forms
from django.core.validators import MaxValueValidator, MinValueValidator
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.http import urlencode

from runners.models import RunReason, RunStatus
from runners.services import runs
from runners.templatetags.formatting import BADGES

MINE, EVERYBODY = "1", "0"
NEWEST = "-started"
MARKS = {
    "unreachable": "Its machine does not answer",
    "silent": "It prints nothing",
    "large": "Its log is very large",
}
_MARK_FILTERS: dict[str, dict[str, bool]] = {
    "unreachable": {"reachable": False},
    "silent": {"silent": True},
    "large": {"log_too_large": True},
}
SORT_LABELS = {
    "-started": "Last started first",
    "started": "First started first",
    "-ended": "Last ended first",
    "ended": "First ended first",
    "experiment": "Experiment, a to z",
    "-experiment": "Experiment, z to a",
    "machine": "Machine, a to z",
    "-machine": "Machine, z to a",
    "person": "Person, a to z",
    "-person": "Person, z to a",
}
LAST_PAGE = 200


REMEMBERED = "runs_mine"  # the cookie that remembers whether a person looks at their own runs
ONE_YEAR = 365 * 86400


def wants_mine(request: HttpRequest) -> bool:
    """Return True if a page should show the person's own runs: the address says so, or they looked at them last."""
    return request.GET.get("mine", request.COOKIES.get(REMEMBERED)) == MINE


def remember_mine(request: HttpRequest, response: HttpResponse) -> None:
    """Remember whose runs the address asked for."""
    given = request.GET.get("mine")
    if given in (MINE, EVERYBODY) and request.COOKIES.get(REMEMBERED) != given:
        secure = request.is_secure()
        response.set_cookie(REMEMBERED, given, ONE_YEAR, secure=secure, httponly=True, samesite="Lax")


def _any(choices: Any) -> list[tuple[str, str]]:
    return [("", "Any"), *choices]


class _Day(forms.DateField):
    widget = forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d")
    input_formats = ("%Y-%m-%d",)
    default_validators = [MinValueValidator(date(1970, 1, 1)), MaxValueValidator(date(2999, 12, 31))]
    default_error_messages = {"invalid": "Write a day such as 2026-11-24."}


class RunFilterForm(forms.Form):
    """The query of `/runs`. All fields are optional."""

    q = forms.CharField(label="Experiment, run number or description", required=False, max_length=100)
    mine = forms.ChoiceField(required=False, choices=[(EVERYBODY, "Everybody's"), (MINE, "Mine")])
    status = forms.ChoiceField(label="Status", required=False, choices=_any((each, each) for each in RunStatus.values))
    reason = forms.ChoiceField(
        label="Reason of the end",
        required=False,
        choices=_any((reason.value, BADGES[reason].lower()) for reason in RunReason),
    )
    mark = forms.ChoiceField(label="Mark", required=False, choices=_any(MARKS.items()))
    profile = forms.CharField(label="Profile", required=False, max_length=100)
    machine = forms.CharField(label="Machine", required=False, max_length=255)
    person = forms.CharField(label="Started by", required=False, max_length=150)
    since = _Day(label="Started from", required=False)
    until = _Day(label="Started until, included", required=False)
    sort = forms.ChoiceField(label="Order", required=False, choices=list(SORT_LABELS.items()))
    page = forms.IntegerField(required=False, min_value=1, max_value=LAST_PAGE)

    MORE = ("status", "reason", "mark", "profile", "machine", "person", "since", "until", "sort")

    def __init__(self, query: Any, suggestions: dict[str, list[str]]) -> None:
        super().__init__(query, label_suffix="", auto_id="filter-%s")
        for name in ("profile", "machine", "person"):
            self.fields[name].widget.attrs |= {"list": f"known-{name}", "autocomplete": "off", "spellcheck": "false"}
        self.suggestions = suggestions

    def clean(self) -> dict[str, Any]:
        given = self.cleaned_data
        if given.get("since") and given.get("until") and given["since"] > given["until"]:
            self.add_error("until", "This day is before the first day.")
        if given.get("status") not in (None, "", RunStatus.TERMINATED) and given.get("reason"):
            self.add_error("reason", "Only runs that are TERMINATED have a reason.")
        if given.get("mine") == MINE and given.get("person"):
            self.add_error("person", "Choose everybody's runs, or leave this field empty.")
        return given

    # --- for the service ---

    @property
    def is_mine(self) -> bool:
        return bool(self.cleaned_data["mine"] == MINE)

    def restrictions(self, user: Any) -> dict[str, Any]:
        """Return the arguments of `runs.find` for everything but status, reason and mark."""
        given = self.cleaned_data
        found = {
            "search": given["q"],
            "profile_name": given["profile"],
            "host": given["machine"],
            "started_by": given["person"],
            "created_after": _midnight(given["since"]) if given["since"] else None,
            "created_before": _midnight(given["until"] + timedelta(days=1)) if given["until"] else None,
        }
        if self.is_mine:
            found["started_by"] = user.get_username()
        return found

    def state(self) -> dict[str, Any]:
        """Return the arguments of `runs.find` for status, reason and mark."""
        given = self.cleaned_data
        return {"status": given["status"], "reason": given["reason"], **_MARK_FILTERS.get(given["mark"], {})}

    @property
    def order(self) -> str:
        return self.cleaned_data["sort"] or NEWEST

    @property
    def page_number(self) -> int:
        return self.cleaned_data["page"] or 1

    # --- for the template ---

    @property
    def more_fields(self) -> list[forms.BoundField]:
        return [self[name] for name in self.MORE]

    @property
    def used(self) -> int:
        """Return how many of the folded fields have a value or an error."""
        return sum(bool(self[name].errors or self[name].data) for name in self.MORE if name != "sort")

    def link(self, **changes: Any) -> str:
        """Return the query of this list with other values. It begins with its first page; an empty value is removed."""
        query = {name: self[name].data or "" for name in self.fields} | {"page": ""} | changes
        if query["sort"] == NEWEST:
            query["sort"] = ""
        return "?" + urlencode({name: value for name, value in query.items() if value not in ("", None)})

    @property
    def mine_link(self) -> str:
        return self.link(mine=MINE, person="")

    @property
    def everybody_link(self) -> str:
        return self.link(mine=EVERYBODY)

    @property
    def heads(self) -> list[dict[str, str]]:
        """Return the heads of the columns after the first one."""
        columns = (
            ("Experiment", "experiment"),
            ("Where", "machine"),
            ("By", "person"),
            ("Started", "started"),
            ("Ended", "ended"),
        )
        return [{"label": label, "key": key, **self.sort_link(key)} for label, key in columns]

    def sort_link(self, key: str) -> dict[str, str]:
        """Return the link of a column's head, and how the column is sorted now. Times begin with the latest one."""
        now = self.order if self.is_valid() else NEWEST
        first, second = (f"-{key}", key) if key in ("started", "ended") else (key, f"-{key}")
        direction = {key: "ascending", f"-{key}": "descending"}.get(now, "")
        return {"link": self.link(sort=second if now == first else first), "direction": direction}


def _midnight(day: date) -> datetime:
    """Return the begin of a day in the service's time zone."""
    return timezone.make_aware(datetime.combine(day, time.min))


assert SORT_LABELS.keys() == runs.SORTS.keys()
