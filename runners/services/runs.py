"""Read runs: find them by filters, get one by its number, and read logs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import QuerySet
from django.db.models.functions import Coalesce

from runners.exceptions import LogNotFound, MachineBusy, NotRunning, RunNotFound, StillReachable
from runners.models import AuditRecord, DetachedCommand, RunnerRun, RunReason, RunStatus
from runners.services import access, interrupted, lifecycle, lookup, probing, shared_log
from runners.services.audit import begin
from runners.services.lookup import Scope
from runners.services.machines.probe import Probe

# Run numbers follow the order of insertion, but `created` is from the clock of the process that inserts. This is how
# much the two orders can differ (a database that makes writers wait, clocks of several servers).
CLOCK_SLACK = timedelta(minutes=10)
FIRST_MOMENT, LAST_MOMENT = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
LOG_HEADER = 128  # bytes of RUNNERS_OUTPUT_LIMIT that are not for the log itself
LONGEST_CHARACTER = 4  # bytes of UTF-8


def find(
    *,
    expid: str = "",
    status: str = "",
    profile_name: str = "",
    installation: str = "",
    runner: str = "",
    host: str = "",
    user: str = "",
    started_by: str = "",
    created_after: datetime | None = None,
    created_before: datetime | None = None,
    oldest_first: bool = False,
    beyond: int | None = None,
    viewer: Any,
) -> QuerySet[RunnerRun]:
    """Return the runs that match all filters, ordered by number, newest first by default. The caller slices the result.

    `viewer`: the requesting user, who sees only the runs that `access.visible` allows.

    `beyond`: only runs that come after the run of this number in this order. `created_after` is inclusive,
    `created_before` exclusive. Each filter has an index that ends in the number. So with one filter the first rows are
    found at once, however many rows there are. For the same reason the times are first converted to ranges of numbers.
    With several filters, the index of one finds the rows and the others are checked on each row: few matches among many
    rows take longer.
    """
    runs = access.visible(RunnerRun.objects.order_by("id" if oldest_first else "-id"), viewer)
    # The filters are ordered from the one that usually matches the fewest runs to the one that matches the most. The
    # first given filter uses its index. COALESCE prevents index use for the others and for `created`. Otherwise SQLite
    # uses any of the indexes, or sorts: measured with 300,000 runs, half of all combinations of two and three filters
    # took 10 to 900 ms.
    telling = {"expid": expid, "started_by": started_by, "user": user, "profile_name": profile_name, "host": host}
    telling["installation"] = installation
    given = {name: value for name, value in (telling | {"status": status, "runner": runner}).items() if value}
    best = "status" if status == RunStatus.ACTIVE else next(iter(given), "")
    others = given.keys() - {best}
    runs = runs.alias(
        moment=Coalesce("created", "created"), **{f"checked_{each}": Coalesce(each, each) for each in others}
    )
    runs = runs.filter(**{f"checked_{name}" if name in others else name: value for name, value in given.items()})
    by_time = RunnerRun.objects.order_by("-created").values_list("id", flat=True)
    if created_after:
        surely = max(created_after, FIRST_MOMENT + CLOCK_SLACK) - CLOCK_SLACK
        earlier = by_time.filter(created__lt=surely).first()
        runs = runs.filter(moment__gte=created_after, id__gt=earlier or 0)
    if created_before:
        surely = min(created_before, LAST_MOMENT - CLOCK_SLACK) + CLOCK_SLACK
        later = by_time.reverse().filter(created__gt=surely).first()
        runs = runs.filter(moment__lt=created_before)
        runs = runs.filter(id__lt=later) if later else runs
    if beyond is not None:
        runs = runs.filter(id__gt=beyond) if oldest_first else runs.filter(id__lt=beyond)
    return runs


def get(*, pk: int, viewer: Any) -> RunnerRun:
    """Return one run that `viewer` may see. Raises RunNotFound.

    Its machine has confirmed its state within the freshness window, if the machine could be asked.
    """
    run = RunnerRun.objects.filter(pk=pk).first()
    if run is None or not access.may_see(viewer, run):
        raise RunNotFound(f"There is no run {pk}.")
    probing.refresh_if_stale(run)
    return run


@dataclass(frozen=True, slots=True)
class LogPage:
    """The bytes `offset` to `next_offset` of a log that is `size` bytes long now.

    `ended`: the command is over and the log was read to its end, so no further request is needed.
    """

    offset: int
    size: int
    ended: bool
    data: bytes = field(repr=False)

    @property
    def next_offset(self) -> int:
        return self.offset + len(self.data)

    def whole_characters(self) -> LogPage:
        """Return the page without an incomplete character at its end. The next page begins with this character.

        An incomplete character at the very end of a command's output stays, because nothing can complete it.
        """
        if self.ended:
            return self
        kept = self.data[: len(self.data) - _incomplete(self.data)]
        return LogPage(self.offset, self.size, False, kept)


def read_log(row: DetachedCommand, *, offset: int = 0, limit: int, tail: int | None = None) -> LogPage:
    """Return a part of the log of a run or an operation: at most `limit` bytes from byte `offset`, or the last `tail`.

    If `tail` is given, `offset` and `limit` are ignored, and the part begins with a whole UTF-8 character. The result
    may be `shared_log.SHARED_SECONDS` old. Raises LogNotFound; MachineBusy, which has the last known state of a run;
    RunnerUnreachable and the other errors of `Runner.execute`.
    """
    was_over = not row.is_active  # check before the read: a command that is already over writes nothing after it
    most = min(limit if tail is None else tail, settings.RUNNERS_OUTPUT_LIMIT - LOG_HEADER)
    chunk = None
    if row.cleaned_at is None:
        try:
            chunk = shared_log.read(row, offset=offset if tail is None else -most, limit=most)
        except MachineBusy as error:
            row.reachable, row.unreachable_detail = False, error.detail  # in this answer only
            error.run = row if isinstance(row, RunnerRun) else None
            raise
    if chunk is None:
        raise LogNotFound("There is no log: nothing was started, or its directory was removed from the machine.")
    start, data = chunk.offset, chunk.data
    if tail is not None and start:
        cut = _continuation(data)
        start, data = start + cut, data[cut:]
    return LogPage(start, chunk.size, was_over and start + len(data) >= chunk.size, data)


def _continuation(data: bytes) -> int:
    """Return how many bytes at the beginning belong to a character that began before `data`."""
    count = 0
    while count < min(len(data), LONGEST_CHARACTER - 1) and data[count] & 0xC0 == 0x80:
        count += 1
    return count


def _incomplete(data: bytes) -> int:
    """Return how many bytes at the end belong to an incomplete character."""
    for count in range(1, min(len(data), LONGEST_CHARACTER - 1) + 1):
        byte = data[-count]
        if byte & 0xC0 != 0x80:  # the first byte of a character; its upper bits give the length of the character
            length = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
            return count if length > count else 0
    return 0


def get_run(*, expid: str, viewer: Any, scope: Scope | None = None) -> RunnerRun:
    """Return the run whose status is requested: see `lookup.last`.

    If its machine can be reached, the machine confirmed the state within the freshness window.

    Raises RunNotFound.
    """
    run = lookup.last(expid, viewer, scope)
    if run is None:
        raise RunNotFound(f"Experiment {expid} was never run here.")
    interrupted.settle(run)
    probing.refresh_if_stale(run)
    return run


def abandon_run(*, pk: int, reason: str, audit: AuditRecord, authorize: Callable[[RunnerRun], None]) -> RunnerRun:
    """Declare that a run has ended whose machine cannot be reached any more. The machine is only probed.

    `reason` and the actor are stored with the run and in the audit log. `authorize`: as in `stop_experiment`.
    Raises RunNotFound, NotRunning, StillReachable.
    """
    run = RunnerRun.objects.filter(pk=pk).first()
    if run is None:
        raise RunNotFound(f"There is no run {pk}.")
    audit.of_run(run)
    audit.detail = reason
    authorize(run)
    begin(audit)
    abandon(run, note=f"{reason} ({audit.actor or 'nobody is signed in'})")
    return run


def abandon(run: RunnerRun, *, note: str) -> bool:
    """End a run whose machine cannot be reached any more. Return False if another process ended it first.

    Raises NotRunning if the run has ended, StillReachable if its machine answers: such a run has to be stopped instead.
    """
    if run.is_active:
        (probe,) = probing.probe([run])
        if probe.answer != Probe.CANNOT_TELL and run.is_active:
            raise StillReachable(
                f"Run {run.pk} of {run.expid} was just confirmed by its machine: stop it instead.", run_id=run.pk
            )
    if not run.is_active:
        raise NotRunning(f"Run {run.pk} of {run.expid} has ended: it is {run.status}.", run=run)
    return lifecycle.finish_run(run, reason=RunReason.ABANDONED, confirmed=False, detail=note)
