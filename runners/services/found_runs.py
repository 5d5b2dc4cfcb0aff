"""Find runs and operations whose rows are lost, and make the rows again: after the database was restored from a backup.

The directories on the machines are the record of each command. This lists the directories of every account that the
service knows, reads the labels of those without a row (labels.py), and probes them. A row that is made again has its
old number if that is free, and then gets the state that the machine reports, like any other row.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import IntegrityError, connection, transaction
from django.db.models import Max, Model

from profiles.accounts import person_of
from profiles.exceptions import ForbiddenParameter, InvalidProfile
from profiles.limits import lines
from profiles.models import AccountMap, RunnerProfile
from runners.exceptions import CommandFailed, RunnerServiceError, RunnerUnreachable
from runners.models import DetachedCommand, Operation, RunnerRun
from runners.services import labels, lifecycle
from runners.services.machines import scripts
from runners.services.machines.probe import Probe, ProbeTarget
from runners.services.machines.registry import get_runner
from runners.services.machines.runner import Runner
from runners_project import clock

MACHINES_AT_ONCE = 8
DIRECTORIES_MOST = 1_000_000  # maximum of one account; a longer list is not a valid answer
DIRECTORIES_AT_ONCE = 60  # in one round trip: with the longest labels, the answer is below 1 MiB
MODELS: tuple[type[DetachedCommand], ...] = (RunnerRun, Operation)


@dataclass(slots=True)
class Found:
    """A directory without a row. `row`: as its label tells it, not saved. `problem`: why no row was made."""

    row: DetachedCommand
    probe: Probe
    problem: str = ""

    @property
    def words(self) -> str:
        """Its state on the machine, for people."""
        code = "" if self.probe.exit_code is None else f" with exit code {self.probe.exit_code}"
        return f"{self.probe.answer}{code}{f' ({self.probe.detail})' if self.probe.detail else ''}"


@dataclass(slots=True)
class Account:
    """One account of a machine. `directories`: how many it has. `others`: how many have no row and no label of ours."""

    where: str
    directories: int = 0
    others: int = 0
    found: list[Found] = field(default_factory=list)
    problem: str = ""  # why it could not be asked


def find(accounts: tuple[str, ...] = ()) -> list[Account]:
    """Return what each known account of each known machine has, the oldest first.

    `accounts`: names of further accounts, for profiles that leave them open. An error of a machine is not raised; it
    becomes the `problem` of its account.
    """
    with ThreadPoolExecutor(MACHINES_AT_ONCE) as pool:
        looked = list(pool.map(_look_in_thread, _runners(accounts)))
    seen: set[str] = set()
    for account in looked:  # two machines may share a home
        account.found = [each for each in account.found if each.row.key not in seen]
        account.found.sort(key=lambda each: each.row.created)
        seen.update(each.row.key for each in account.found)
    return looked


def adopt(found: Found) -> bool:
    """Make the row of a found directory, and give it the state that its machine reports. Return True if it was made.

    Otherwise `found.problem` has the reason.
    """
    row = found.row
    if type(row).objects.filter(pk=row.pk).exists():  # another run has the number now
        row.pk, row.renumbered = None, True
    row.created = min(row.created, clock.now())
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError:
        found.problem = _why_not(row)
        return False
    _continue_behind(type(row), row.pk)
    if row.profile_id:  # a profile that is lost, too: a new one with its number would decide who sees the run
        _continue_behind(RunnerProfile, row.profile_id)
    lifecycle.apply(row, lifecycle.runner_of(row), found.probe)
    if isinstance(row, RunnerRun):
        done = RunnerRun.objects.filter(restart_key=row.key, restart_at__isnull=False)
        done.update(restart_at=None, restart_detail=f"Started again as run {row.pk}.")
    return True


def _why_not(row: DetachedCommand) -> str:
    active = RunnerRun.objects.active().filter(expid=row.expid, installation=row.installation).first()
    if active is None or not isinstance(row, RunnerRun):
        return "Another process has made its row."
    return f"Run {active.pk} of {row.expid} is active. Try again after its end."


def skip_numbers(count: int) -> dict[str, int]:
    """Let the next run and operation have a number that is at least `count` above the largest one.

    So no number that was told to people after the backup is used again. Return the next numbers by table.
    """
    following = {}
    for model in MODELS:
        largest = model.objects.aggregate(last=Max("pk"))["last"] or 0
        last = max(largest, _last_given(model)) + count  # retention may have deleted the rows of the last numbers
        _continue_behind(model, last)
        following[model._meta.db_table] = last + 1
    return following


def _last_given(model: type[Model]) -> int:
    """Return the last number that the database has given, or 0."""
    table = model._meta.db_table
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT pg_sequence_last_value(pg_get_serial_sequence(%s, 'id')::regclass)", [table])
        else:
            cursor.execute("SELECT seq FROM sqlite_sequence WHERE name = %s", [table])
        row = cursor.fetchone()
    return int(row[0] or 0) if row else 0


def _continue_behind(model: type[Model], number: int) -> None:
    """Let the numbers of new rows be larger than `number`. PostgreSQL does not count the numbers of given rows."""
    table = model._meta.db_table
    if _last_given(model) >= number:
        return
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT setval(pg_get_serial_sequence(%s, 'id'), %s)", [table, number])
        else:
            cursor.execute("DELETE FROM sqlite_sequence WHERE name = %s", [table])
            cursor.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (%s, %s)", [table, number])


# --- the accounts -----------------------------------------------------------------------------------------------------


def _runners(accounts: tuple[str, ...]) -> list[Runner]:
    """Return a runner for each account of each machine that rows and profiles know, and for those that `accounts`
    names.
    """
    found: dict[tuple[str, ...], Runner] = {}
    for runner in (*_of_rows(), *_of_profiles(accounts)):
        found.setdefault((*runner.target, runner.config.run_directory), runner)
    return list(found.values())


def _of_rows() -> Iterator[Runner]:
    for model in MODELS:
        newest = model.objects.order_by().values("machine", "node").annotate(last=Max("pk")).values_list("last")
        for row in model.objects.filter(pk__in=newest):
            with suppress(RunnerUnreachable):  # somebody has written into the table
                yield lifecycle.runner_of(row)


def _of_profiles(accounts: tuple[str, ...]) -> Iterator[Runner]:
    people = {user.get_username(): user for user in get_user_model().objects.filter(is_active=True)}
    mapped = [(row.person, account) for row in AccountMap.objects.all() for account in lines(row.accounts)]
    named = [(name, account) for account in accounts for name in (people if account not in people else [account])]
    for profile in RunnerProfile.objects.filter(enabled=True):
        for params, person in (({}, None), *(({"SSH": {"USER": account}}, name) for name, account in mapped + named)):
            with suppress(InvalidProfile, ForbiddenParameter):
                config = profile.resolve(params, person_of(people.get(person or "")))
                yield get_runner(config)


# --- the directories --------------------------------------------------------------------------------------------------


def _look_in_thread(runner: Runner) -> Account:
    try:
        return _look(runner)
    finally:
        connection.close()


def _look(runner: Runner) -> Account:
    account, after = Account(runner.where), ""
    try:
        while True:
            listed = _list(runner, after)
            account.directories += len(listed)
            rows = _without_row(listed, account)
            targets = [ProbeTarget(row.key) for row in rows]
            probes = runner.probe(targets, timeout=settings.RUNNERS_PROBE_TIMEOUT) if targets else {}
            account.found += [Found(row, probes[row.key]) for row in rows]
            if len(listed) < DIRECTORIES_AT_ONCE:
                return account
            if account.directories > DIRECTORIES_MOST:
                raise CommandFailed(f"{runner.where} has more than {DIRECTORIES_MOST} directories of runs.")
            after = max(listed)
    except RunnerServiceError as error:
        account.problem = error.detail
        return account


def _list(runner: Runner, after: str) -> dict[str, str]:
    """Return the label of each directory behind the key `after`, by its key. Raises RunnerServiceError."""
    script = scripts.list_directories(after=after, most=DIRECTORIES_AT_ONCE)
    result = runner.execute(script, timeout=settings.RUNNERS_PROBE_TIMEOUT)
    if result.truncated:  # then its beginning is missing
        raise CommandFailed(
            f"The answer of {runner.where} about its directories is too long. Set RUNNERS_OUTPUT_LIMIT to 1048576 or "
            "more."
        )
    *told, last, _ = ["", *result.stdout.decode("ascii", "replace").split("\n")]
    pairs = [line.split(" ") for line in told if line]
    found = {pair[0]: pair[1] for pair in pairs if len(pair) == 2 and labels.is_key(pair[0])}
    if last != scripts.END or min(found, default="g") <= after:  # the same directories again would never end
        raise CommandFailed(
            f"The answer of {runner.where} about its directories is not valid. Its last output: {result.last_words}"
        )
    return found


def _without_row(listed: dict[str, str], account: Account) -> list[DetachedCommand]:
    known = {key for model in MODELS for key in model.objects.filter(key__in=listed).values_list("key", flat=True)}
    rows = []
    for key, label in listed.items():
        if key not in known:
            try:
                rows.append(labels.read(label, key))
            except labels.NotOurs:
                account.others += 1
    return rows
