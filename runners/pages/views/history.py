"""Runs over time as a picture: one group of lanes for each experiment, machine or profile, and one bar for each run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from profiles.config import DEFAULT_INSTALLATION
from runners.models import RunnerRun
from runners.pages.base import PageView
from runners.services import access
from runners.templatetags.formatting import tone
from runners_project import clock

# Sizes of the drawing, in pixels. It is never scaled, so that its text stays readable; narrow screens scroll it.
WIDTH = 1000
LABELS = 150  # width of the names beside the drawing, which do not scroll
TOP = 26  # height of the times above the lanes
LANE = 20
GAP = 8  # between groups
THINNEST = 4  # least width of a bar, so that a run of seconds is visible in a picture of weeks
LABEL_LENGTH = 20  # characters

RUNS = 500
MAX_GROUPS = 60
SPANS = {"1": "1 day", "7": "7 days", "30": "30 days", "90": "90 days"}
GROUPINGS: dict[str, tuple[str, Callable[[RunnerRun], str]]] = {
    "experiment": ("experiment", lambda run: experiment_of(run)),
    "host": ("machine", lambda run: run.host or "not known"),
    "profile": ("profile", lambda run: run.profile_name or "none"),
}
STEPS = tuple(
    timedelta(seconds=seconds)
    for seconds in (60, 300, 900, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 86400, 2 * 86400, 7 * 86400, 14 * 86400)
)


# The words for each tone of a run (the template filter `tone`), in the order of the legend.
LEGEND = {
    "active": "active",
    "unsure": "active, unreachable now",
    "completed": "completed",
    "stopped": "stopped on request",
    "failed": "failed",
    "other": "ended otherwise: killed, lost, never started, declared ended",
}


@dataclass(frozen=True, slots=True)
class Bar:
    run: RunnerRun
    x: float
    y: float
    width: float


@dataclass(frozen=True, slots=True)
class Row:
    label: str
    name: str
    y: float
    height: float
    is_odd: bool


@dataclass(frozen=True, slots=True)
class Tick:
    time: datetime
    x: float
    label: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """The layout of the drawing. `start` and `end` are the times at its left and right edge."""

    start: datetime
    end: datetime
    height: float
    rows: list[Row]
    bars: list[Bar]
    ticks: list[Tick]
    step: timedelta  # between two ticks
    scale: float  # pixels per second
    legend: list[tuple[str, str]]
    width: float = WIDTH
    labels: float = LABELS
    top: float = TOP
    bar_height: float = LANE - 6


def experiment_of(run: RunnerRun) -> str:
    """Return the expid, with the name of its installation unless that is the default installation."""
    return run.expid if run.installation == DEFAULT_INSTALLATION else f"{run.expid} ({run.installation})"


def draw(
    runs: Iterable[RunnerRun], *, group: Callable[[RunnerRun], str], start: datetime | None = None
) -> Timeline | None:
    """Lay out runs between `start` and now. Return None if there are no runs.

    If `start` is None, the picture begins with the first run. Runs of a group that overlap in time get separate lanes.
    """
    ordered = sorted(runs, key=lambda run: run.created)
    if not ordered:
        return None
    now = clock.now()
    first = start or ordered[0].created
    first = min(first, now - timedelta(minutes=5))
    scale = (WIDTH - THINNEST) / (now - first).total_seconds()

    def x_of(time: datetime) -> float:
        return round(max(0.0, (time - first).total_seconds()) * scale, 1)

    groups: dict[str, list[RunnerRun]] = {}
    for run in ordered:
        groups.setdefault(group(run), []).append(run)
    rows: list[Row] = []
    bars: list[Bar] = []
    y = float(TOP)
    # The group with the newest run comes first.
    for number, (name, members) in enumerate(sorted(groups.items(), key=lambda item: item[1][-1].pk, reverse=True)):
        lanes: list[float] = []  # where each lane's last bar ends
        for run in members:
            x = x_of(run.created)
            width = max(THINNEST, x_of(run.finished or now) - x)
            lane = next((i for i, end in enumerate(lanes) if end <= x), len(lanes))
            lanes[lane : lane + 1] = [x + width + 1]
            bars.append(Bar(run, x, y + GAP / 2 + lane * LANE + 3, round(width, 1)))
        height = len(lanes) * LANE + GAP
        label = name if len(name) <= LABEL_LENGTH else f"{name[: LABEL_LENGTH - 1]}…"
        rows.append(Row(label, name, y, height, number % 2 == 1))
        y += height
    drawn = {tone(run) for run in ordered}
    legend = [(name, words) for name, words in LEGEND.items() if name in drawn]
    return Timeline(first, now, y, rows, bars, *_ticks(first, now, x_of), scale, legend)


def _ticks(start: datetime, end: datetime, x_of: Callable[[datetime], float]) -> tuple[list[Tick], timedelta]:
    """Return at most eight round times in UTC with their positions. times.js moves them to the reader's time zone."""
    step = next((step for step in STEPS if (end - start) / step <= 8), STEPS[-1])
    epoch = datetime(1970, 1, 5, tzinfo=UTC)  # a Monday
    time = epoch + ((start - epoch) // step + 1) * step
    ticks = []
    while time < end:
        ticks.append(Tick(time, x_of(time), f"{time.astimezone(UTC):{'%d %b' if step.days else '%H:%M'}}"))
        time += step
    return ticks, step


def newest(start: datetime, user: Any, *, expid: str = "") -> list[RunnerRun]:
    """Return at most RUNS runs that `user` may see: active runs, then runs ended at `start` or later, latest first.

    The two queries use an index each. With one query and an OR, the database would read and sort all runs.
    """
    runs = RunnerRun.objects.filter(expid=expid) if expid else RunnerRun.objects.all()
    active = list(access.visible(runs.active(), user).order_by("-id")[:RUNS])
    return active + list(access.visible(runs.ended_since(start), user)[: RUNS - len(active)])


class History(PageView):
    """The runs of the last `?days=`, grouped `?by=` experiment, host or profile; `?expid=` selects one experiment."""

    template_name = "pages/history.html"
    title = "History"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        by = self.request.GET.get("by", "experiment")
        days = self.request.GET.get("days", "7")
        expid = self.request.GET.get("expid", "").strip()
        by = by if by in GROUPINGS else "experiment"
        days = days if days in SPANS else "7"
        start = clock.now() - timedelta(days=int(days))
        label, group = GROUPINGS[by]
        runs: list[RunnerRun] = []
        names: set[str] = set()
        for run in newest(start, self.request.user, expid=expid):
            names.add(group(run))
            if len(names) > MAX_GROUPS:
                break
            runs.append(run)
        return super().get_context_data(
            **kwargs,
            by=by,
            by_label=label,
            days=days,
            expid=expid,
            groupings={name: words for name, (words, _) in GROUPINGS.items()},
            spans=SPANS,
            runs=runs,
            is_cut=len(runs) == RUNS or len(names) > MAX_GROUPS,
            picture=draw(runs, group=group, start=start),
        )
