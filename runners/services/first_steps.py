"""What a new admin has to do until people can start runs: key, host, profile, check, people.

Nothing is stored: each step is done when the rows and files of the service say so. No machine is contacted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from django.conf import settings
from django.contrib.auth.models import User
from django.db.models import Max

from profiles.models import RunnerProfile
from profiles.readiness import Missing, Page, missing_of
from profiles.rules import RUNNERS
from runners.models import AuditRecord, RunnerRun, RunStatus, TrustedHostKey
from runners.services.key_pairs import SERVICE_KEY, USER_CA

MOST_PROFILES = 25  # whose needs are looked up: three queries each
MOST_SHOWN = 5  # needs and profiles that a step names
NEWEST_RECORDS = 10_000  # of the audit log, in which the connection tests are looked for

# Which step adds what a profile needs (profile_readiness.py); everything else belongs to the profile itself.
_NEEDS = {
    "key": ("service key", "published key", "user CA"),
    "host": ("host key", "SSH configuration"),
    "people": ("account mapping", "members of groups"),
}
_ELSEWHERE = {what for needs in _NEEDS.values() for what in needs}

KEYS = Page("Service keys", "admin:service_keys")
SCAN = Page("Read the keys of a machine", "admin:runners_trustedhostkey_scan")
AUTHORITY = Page("Approve a certificate authority", "admin:runners_trustedhostkey_authority")
ADD_PROFILE = Page("Add a profile", "admin:profiles_runnerprofile_add")
IMPORT = Page("Import YAML", "admin:profiles_runnerprofile_import")
PROFILES = Page("Profiles", "admin:profiles_runnerprofile_changelist")
ADD_PERSON = Page("Add a person", "admin:auth_user_add")
GROUPS = Page("Groups", "admin:auth_group_changelist")
ACCOUNTS = Page("Accounts of people", "admin:profiles_accountmap_changelist")


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `state`: the present state in one sentence. `needs`: what is still missing for it."""

    name: str
    title: str
    why: str
    state: str
    is_done: bool
    pages: tuple[Page, ...]
    needs: tuple[Missing, ...] = ()


def steps() -> list[Step]:
    """Return the steps in the order of a new service."""
    profiles = list(RunnerProfile.objects.filter(enabled=True).order_by("pk")[:MOST_PROFILES])
    missing = list({(each.what, each.detail): each for profile in profiles for each in missing_of(profile)}.values())
    is_local = bool(profiles) and all(_is_local(profile) for profile in profiles)
    return [
        _key(is_local, missing),
        _host(profiles, is_local, missing),
        _profile(profiles, missing),
        _check(profiles),
        _people(missing),
    ]


def _is_local(profile: RunnerProfile) -> bool:
    return profile.runner_type in RUNNERS and RUNNERS[profile.runner_type].is_local


def _needs(name: str, missing: list[Missing]) -> tuple[Missing, ...]:
    return tuple(each for each in missing if each.what in _NEEDS[name])[:MOST_SHOWN]


def _key(is_local: bool, missing: list[Missing]) -> Step:
    needs = _needs("key", missing)
    try:
        own = [kind.words for kind in (SERVICE_KEY, USER_CA) if kind.current]
        state = f"The service has its {' and its '.join(own)}." if own else "The service has no key of its own."
    except OSError:
        own, state = [], "The directory of the keys cannot be read."
    if is_local and not own:
        state = "Not needed: every profile runs on this machine."
    why = "Machines let the service in by its SSH key, or by certificates of its user CA."
    return Step("key", "Make a key", why, state, is_local or (bool(own) and not needs), (KEYS,), needs)


def _host(profiles: list[RunnerProfile], is_local: bool, missing: list[Missing]) -> Step:
    needs = _needs("host", missing)
    approved = TrustedHostKey.objects.count()
    state = f"{approved} host key{'s are' if approved != 1 else ' is'} approved here."
    if is_local:
        state = "Not needed: every profile runs on this machine."
    elif profiles and not needs:
        state = "The machine of each profile is trusted."
    elif not approved:
        state = "No machine is trusted yet."
    is_done = is_local or (not needs and bool(profiles or approved))
    why = "The service connects only to machines whose host key you have compared and approved."
    return Step("host", "Trust a machine", why, state, is_done, (SCAN, AUTHORITY), needs)


def _profile(profiles: list[RunnerProfile], missing: list[Missing]) -> Step:
    needs = tuple(each for each in missing if each.what not in _ELSEWHERE)[:MOST_SHOWN]
    count = len(profiles)
    state = f"{count} profile{'s are' if count != 1 else ' is'} enabled." if count else "There is no enabled profile."
    why = "A profile says on which machine and in which environment Autosubmit runs, and who may use it."
    return Step(
        "profile",
        "Describe a machine in a profile",
        why,
        state,
        bool(profiles) and not needs,
        (ADD_PROFILE, IMPORT),
        needs,
    )


def _check(profiles: list[RunnerProfile]) -> Step:
    good = set(_checked())
    tested = [profile.name for profile in profiles if profile.name in good]
    is_done = bool(tested) or RunnerRun.objects.filter(status=RunStatus.COMPLETED).exists()
    if tested:
        more = f" and of {len(tested) - 1} more" if tested[1:] else ""
        state = f"The connection test of {tested[0]}{more} has succeeded."
    else:
        state = "A run has completed." if is_done else "No connection test has succeeded yet."
    pages = tuple(
        Page(f"Check {profile.name}", "admin:profiles_runnerprofile_check", (profile.pk,))
        for profile in profiles
        if profile.name not in good
    )
    why = "The connection test logs in, loads the environment and asks Autosubmit for its version."
    return Step("check", "Check the connection", why, state, is_done, pages[:MOST_SHOWN] or (PROFILES,))


def _checked() -> Iterator[str]:
    """Yield the profiles whose last connection test succeeded, among the newest records of the audit log."""
    newest = AuditRecord.objects.aggregate(newest=Max("pk"))["newest"] or 0
    records = AuditRecord.objects.filter(pk__gt=newest - NEWEST_RECORDS, endpoint="check-profile")
    last: dict[str, bool] = {}
    for name, outcome, detail in records.order_by("pk").values_list("profile_name", "outcome", "detail"):
        last[name] = outcome == AuditRecord.OK and not detail
    return (name for name, is_good in last.items() if is_good)


def _people(missing: list[Missing]) -> Step:
    needs = _needs("people", missing)
    count = User.objects.filter(is_active=True, is_superuser=False).count()
    state = f"{count} {'person' if count == 1 else 'people'} besides the superusers can sign in."
    is_open = bool(settings.RUNNERS_REMOTE_USER_HEADER and settings.RUNNERS_REMOTE_USER_CREATE)
    if is_open:
        state = "The proxy signs people in, and creates their accounts."
    why = "People sign in with an account here. Groups say who may use a profile, a mapping whose accounts they use."
    is_done = (bool(count) or is_open) and not needs
    return Step("people", "Let people in", why, state, is_done, (ADD_PERSON, GROUPS, ACCOUNTS), needs)
