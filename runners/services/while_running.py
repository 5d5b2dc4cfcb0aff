"""Change the statuses of jobs while their experiment runs, through the file that a running Autosubmit reads.

Measured with 4.0.105 to 4.1.17.1 (docs/autosubmit-versions.md): once per round (SAFETYSLEEPTIME) a run reads
`pkl/updated_list_EXPID.txt`, since 4.1.17.1 also `status/updated_list_EXPID.txt`, one `JOB STATUS` per line. It changes
the jobs and renames the file. Up to 4.1.16, a line that it cannot parse ends the run, and jobs that are active on their
platform are not cancelled.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from django.conf import settings

from profiles.config import RunnerConfig
from runners.commands.base import Command, CommandOutcome
from runners.commands.installation import installed_version
from runners.commands.output import listed
from runners.commands.parameters import Params
from runners.commands.set_job_status import (
    ACTIVE,
    ANY,
    CHANGED_LIMIT,
    JOB_NAMES,
    SET_JOB_STATUS,
    WHILE_RUNNING,
    Changes,
    HandedOver,
)
from runners.exceptions import CommandFailed, InvalidRequest, OutcomeUnknown, RunnerServiceError
from runners.models import AuditRecord, RunnerRun
from runners.services import jobs, lifecycle, probing
from runners.services.active_runs import run_in_the_way
from runners.services.audit import begin
from runners.services.machines import scripts
from runners.services.machines.jobs import JobQuery
from runners.services.machines.probe import Probe
from runners.services.machines.runner import Runner
from runners.services.representations import iso_time
from runners_project import clock

PATIENCE = 60.0  # seconds to wait until the change is seen; a round takes 10 s by default
PAUSE = 1.0  # seconds between two looks
PROBE_PAUSE = 5.0  # seconds between two probes of the run meanwhile
PAGE = 200  # jobs in one answer of the machine
MOST_SELECTED = 10_000  # jobs that are looked at
MOST_BY_NAME = 10  # names that are looked up one by one
OLDEST, NEW_FOLDER_SINCE = (4, 0), (4, 1, 17, 1)
FOLDERS = ("status", "pkl")
# After these statuses a job goes on by itself, so another status than the old one shows the change, too.
_GOES_ON = ("READY", "WAITING", "FAILED")
_INODE = re.compile(r"written ([0-9]{1,20})")
_VERSION = re.compile(r"\d+(?:\.\d+)*")


@dataclass(frozen=True, slots=True)
class Selection:
    """The selected jobs with their present statuses, and the folder of the experiment."""

    statuses: dict[str, str]
    folder: str


def run_to_change(command: Command, expid: str, config: RunnerConfig, params: Params) -> RunnerRun | None:
    """Return the run that prevents the ordinary command, if the request is for a change while it runs."""
    if command is not SET_JOB_STATUS or not params.get(WHILE_RUNNING):
        return None
    run = run_in_the_way(expid, config)
    if run is None:
        return None
    (probe,) = probing.probe([run])
    return run if run.is_active and probe.answer in (Probe.RUNNING, Probe.STARTING) else None


def preview(run: RunnerRun, params: Params) -> CommandOutcome:
    """Return what `change` would change. Nothing is written. Raises the errors of `change`."""
    selection = _select(run, params)
    target = str(params["final_status"])
    wanted = [name for name, status in selection.statuses.items() if status != target]
    changes = Changes(_all(wanted, target), len(wanted), len(selection.statuses))
    return CommandOutcome(run.expid, _warnings(selection.statuses, wanted), changes)


def plan_warnings(run: RunnerRun, params: Params) -> list[str]:
    """Return what a dry run says about a change while the experiment runs. Raises the errors of `change`."""
    outcome = preview(run, params)
    return [
        f"{run.expid} is running (run {run.pk}), so setstatus would not be executed: the change of "
        f"{outcome.changes.changed} jobs would be handed to the running Autosubmit, in updated_list_{run.expid}.txt.",
        *outcome.warnings,
    ]


def change(run: RunnerRun, params: Params, audit: AuditRecord) -> CommandOutcome:
    """Hand a change to the running Autosubmit, and wait until the job list shows it, for at most PATIENCE.

    Raises InvalidRequest (the version does not support it, or a job does not exist), CommandFailed (the file cannot be
    written, or another change waits), OutcomeUnknown if the machine cannot be asked after the file was written, and the
    errors of `jobs.page_of` and `Runner.execute`.
    """
    audit.run_id, audit.profile_name = run.pk, audit.profile_name or run.profile_name
    runner = lifecycle.runner_of(run)
    begin(audit)
    runner.admit()
    folder = _folder(runner)
    selection = _select(run, params)
    target = str(params["final_status"])
    wanted = [name for name, status in selection.statuses.items() if status != target]
    warnings = _warnings(selection.statuses, wanted)
    if not wanted:
        return CommandOutcome(run.expid, warnings, Changes({}, 0, len(selection.statuses)))
    name = f"updated_list_{run.expid}.txt"
    directory = f"{selection.folder}/{folder}"
    audit.argv = ["updated_list", f"{directory}/{name}"]
    inode = _write(runner, selection.folder, directory, name, "".join(f"{each} {target}\n" for each in wanted))
    before = {each: selection.statuses[each] for each in wanted}
    try:
        handed_over = _follow(run, runner, before, target, directory, name, inode)
    except RunnerServiceError as error:
        raise OutcomeUnknown(
            f"The change was handed to the running Autosubmit, and it is not known whether it was applied: "
            f"{error.detail}"
        ) from error
    left = set(handed_over.not_applied)
    done = [each for each in wanted if each not in left]
    told = replace(handed_over, not_applied=handed_over.not_applied[:CHANGED_LIMIT])
    return CommandOutcome(
        run.expid,
        warnings,
        Changes(
            _all(done, target),
            len(done),
            len(selection.statuses),
            told,
        ),
    )


def _all(names: Sequence[str], status: str) -> dict[str, str]:
    return dict.fromkeys(names[:CHANGED_LIMIT], status)


# --- which jobs -------------------------------------------------------------------------------------------------------


def _select(run: RunnerRun, params: Params) -> Selection:
    """Return the jobs that all given filters select. Raises InvalidRequest for names that do not exist."""
    names: Collection[str] = params.get(JOB_NAMES) or ()
    statuses = tuple(each for each in params.get("filter_status") or () if each != ANY)
    found: dict[str, str] = {}
    folder = ""
    for section in params.get("filter_type") or (None,):
        section = None if section and section.upper() == ANY else section
        some, folder = _statuses(run, names, JobQuery(status=statuses, section=section))
        found |= some
    if names and not statuses and not params.get("filter_type"):
        unknown = [name for name in names if name not in found]
        if unknown:
            words = f"The job list has no job {listed(unknown, len(unknown))}. Nothing was changed."
            raise InvalidRequest(f"{JOB_NAMES}: {words}", {f"command_params.{JOB_NAMES}": [words]})
    return Selection(found, folder)


def _statuses(run: RunnerRun, names: Collection[str], query: JobQuery) -> tuple[dict[str, str], str]:
    """Return the statuses of the jobs that match, by name, and the folder of the experiment, as they are now."""
    found: dict[str, str] = {}
    folder = ""
    wanted = list(dict.fromkeys(names))
    parts: list[str | None] = [*wanted] if 0 < len(wanted) <= MOST_BY_NAME else [None]
    known = set(wanted)
    for part in parts:
        offset = 0
        while True:
            jobs.drop_answers(lifecycle.runner_of(run))
            filters = {"status": query.status, "section": query.section, "name": part}
            page = jobs.page_of(run, JobQuery(**filters, offset=offset, limit=PAGE))  # type: ignore[arg-type]
            folder = f"{page.place[0]}/{run.expid}"
            found |= {job.name: job.status for job in page.jobs if not known or job.name in known}
            offset += PAGE
            if offset >= page.matching or not page.jobs:
                break
            if offset >= MOST_SELECTED:
                words = f"More than {MOST_SELECTED} jobs have to be looked at. Select fewer jobs."
                raise InvalidRequest(words, {f"command_params.{JOB_NAMES}": [words]})
    return found, folder


def _warnings(statuses: Mapping[str, str], wanted: Collection[str]) -> list[str]:
    active = [name for name in wanted if statuses[name] in ACTIVE]
    if not active:
        return []
    return [
        f"Jobs that are in the queue of their platform or running there: {listed(active, len(active))}. Autosubmit "
        f"before 4.1.17.1 does not cancel them, and newer ones only if the platform is connected."
    ]


# --- the file ---------------------------------------------------------------------------------------------------------


def _folder(runner: Runner) -> str:
    """Return in which folder of the experiment the installed version reads the file. Raises InvalidRequest."""
    version = installed_version(runner)
    found = _VERSION.match(version)
    number = tuple(map(int, found[0].split("."))) if found else ()
    if number >= NEW_FOLDER_SINCE:
        return "status"
    if number >= OLDEST:
        return "pkl"
    what = f"Autosubmit {version}" if version else "Autosubmit, whose version cannot be told now,"
    words = f"{what} on {runner.where} is not known to read changes while it runs. Stop the run first."
    raise InvalidRequest(f"{WHILE_RUNNING}: {words}", {f"command_params.{WHILE_RUNNING}": [words]})


def _write(runner: Runner, folder: str, directory: str, name: str, text: str) -> int:
    """Write the file, and return its inode. Raises CommandFailed: nothing was changed then."""
    data = text.encode()
    others = [f"{folder}/{each}/{name}" for each in FOLDERS]
    script = scripts.write_update_list(directory, name, others, len(data))
    result = runner.execute(script, stdin=data, timeout=settings.RUNNERS_PROBE_TIMEOUT)
    answer = result.text.strip()
    if found := _INODE.fullmatch(answer):
        return int(found[1])
    why = {
        "waiting": "Another change waits to be read by the running Autosubmit. Send the request again in some seconds.",
        "no-directory": f"The folder {directory} does not exist.",
    }.get(answer, f"The file {directory}/{name} cannot be written. Check the disk and the quota of the account.")
    raise CommandFailed(
        f"{why} ({runner.where}) Nothing was changed.", exit_code=result.exit_code, output=result.last_words
    )


def _follow(
    run: RunnerRun, runner: Runner, before: Mapping[str, str], target: str, directory: str, name: str, inode: int
) -> HandedOver:
    """Wait until Autosubmit has taken the file and the job list shows the change."""
    end = time.monotonic() + min(PATIENCE, settings.RUNNERS_COMMAND_TIMEOUT)
    probed = time.monotonic()
    is_waiting = True
    left = list(before)
    while True:
        if is_waiting:
            is_waiting = _is_waiting(runner, directory, name, inode)
        if not is_waiting:
            now, _ = _statuses(run, left, JobQuery())
            left = [each for each in left if not _is_applied(before[each], now.get(each), target)]
            if not left:
                return HandedOver("applied", iso_time(clock.now()), [])
        if time.monotonic() - probed > PROBE_PAUSE:
            probing.probe([run])
            probed = time.monotonic()
        if not run.is_active and is_waiting:  # nobody reads it any more, and the next run would
            is_waiting = _is_waiting(runner, directory, name, inode, remove=True)
            if is_waiting:
                return HandedOver("withdrawn", None, left)
        if time.monotonic() > end or (not run.is_active and not is_waiting):
            return HandedOver("waiting" if is_waiting else "read", None, left)
        time.sleep(PAUSE)


def _is_waiting(runner: Runner, directory: str, name: str, inode: int, *, remove: bool = False) -> bool:
    """Return True if our file had not been taken yet. `remove`: it is removed then. Raises OutcomeUnknown."""
    script = scripts.update_list_state(directory, name, inode, remove=remove)
    result = runner.execute(script, timeout=settings.RUNNERS_PROBE_TIMEOUT)
    answer = result.text.strip()
    if answer not in ("waiting", "removed", "gone"):
        raise OutcomeUnknown(f"The answer of {runner.where} is not valid: {result.last_words or 'no output'}")
    return answer != "gone"


def _is_applied(old: str, now: str | None, target: str) -> bool:
    return now == target or (target in _GOES_ON and now not in (None, old))
