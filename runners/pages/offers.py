"""What the page of an ended run offers, by the reason of its end."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from django.urls import reverse
from django.utils.http import urlencode

from runners.commands.registry import one_shot_commands
from runners.models import RunnerRun, RunReason
from runners.services import run_again

# Sentences of Autosubmit in the explanation of a run. They are those of commands/remedies.py and commands/run_log.py.
_OTHER_VERSION = re.compile(r"which is not the running|has no yml data")
_NO_JOB_LIST = re.compile(r"couldn't load the workflow graph|run autosubmit create first", re.IGNORECASE)
_PLATFORM = re.compile(
    r"connectivity of platforms|Connection Unsuccessful to host|Couldn't establish a connection|ssh or sftp connection",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Offer:
    """Something that can be done about the end of a run: a link, and why it is offered. No `url`: advice only."""

    text: str
    why: str
    url: str = ""


def offers(run: RunnerRun, user: Any) -> list[Offer]:
    """Return what fits the reason for which a run has ended; empty for an active run and for a success."""
    if run.is_active:
        return []
    failed = run.jobs.get("failed") if isinstance(run.jobs, dict) else None
    found = []
    if failed:
        jobs = "1 job has" if failed == 1 else f"{failed} jobs have"
        why = f"{jobs} failed. Autosubmit does not execute failed jobs again by itself."
        found.append(Offer("Set the failed jobs to WAITING and run again", why, _again(run, first="failed_to_waiting")))
    if _OTHER_VERSION.search(run.detail):
        why = "The experiment was made with another version of Autosubmit."
        found.append(Offer("Update the version and run again", why, _again(run, update_version="on")))
    if _NO_JOB_LIST.search(run.detail):
        query = urlencode({"expid": run.expid, "profile_name": run.profile_name})
        why = "Autosubmit has found no job list that it can read."
        found.append(Offer("Create the job list", why, f"{reverse('pages:create-job-list')}?{query}"))
    if _PLATFORM.search(run.detail):
        why = "Autosubmit could not reach a platform of the jobs. Run it again when the platform answers."
        found.append(Offer("Run again later", why, _again(run)))
    if run.reason in (RunReason.LOST, RunReason.KILLED) and run_again.RECOVER in one_shot_commands():
        why = "The run ended without saving the last states of its jobs."
        found.append(Offer("Recover the experiment and run again", why, _again(run, first="recover")))
    if run.reason == RunReason.NEVER_STARTED:
        found.append(_connection_test(run, user))
    if not found and run.reason == RunReason.FAILED:
        why = "Nothing that is known of its end needs another step first. The log may tell more."
        found.append(Offer("Run again", why, _again(run)))
    return found


def _connection_test(run: RunnerRun, user: Any) -> Offer:
    why = "The run was never started: the machine or the environment of the profile may have a problem."
    if user.is_staff and run.profile_id:
        return Offer("Test the connection", why, reverse("admin:profiles_runnerprofile_change", args=[run.profile_id]))
    return Offer("Run again later, or ask an admin to test the profile's connection", why, _again(run))


def _again(run: RunnerRun, **query: str) -> str:
    return reverse("pages:run-again", args=[run.pk]) + (f"?{urlencode(query)}" if query else "")
