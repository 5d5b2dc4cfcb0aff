"""The examples in the document are responses of the service. One scenario requests each of them from the real services.

The test fails if a response has other members or types than its example in runners/api/examples.json. `make examples`
(this module with EXAMPLES_WRITE=1) records all of them again.
"""

from __future__ import annotations

import copy
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.core.cache import caches
from django.db import OperationalError, connection, connections
from django.test import Client

from profiles.models import EndpointToggle, PublishedSSHKey, RunnerProfile
from profiles.toggles import toggles
from runners.api.openapi.examples import recorded
from runners.models import DeviceLogin, Machine, Operation, RunnerRun, new_run_key
from runners.models.token import ApiToken
from runners.services import jobs, log_cache, restart_plans
from runners.services.machines import scripts
from runners.services.machines.bulkheads import BULKHEADS
from runners.services.machines.registry import get_runner
from runners.services.machines.ssh.pool import POOL
from tests.support import job_lists
from tests.support.commands import switch_all_on
from tests.support.environments import StubAccount, find_lmod
from tests.support.examples import OPERATIONS, Recorder, shapes
from tests.support.processes import PATIENCE, die_with_parent, wait_for
from tests.support.requirements import need
from tests.support.servers import SSHServer

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(300)]

PROFILE, OPEN_PROFILE = "MY_RUNNER_PROFILE_1", "MY_RUNNER_PROFILE_2_CUSTOM_USERNAME"
EXPID = {"expid": "a001"}
WITH = {"profile_name": PROFILE}
MACHINE = "127.0.0.1"
OF_ADMINS = ("end_maintenance", "forget_machine")  # without a body
ARCHIVABLE, ARCHIVED, DELETABLE = "a100", "a101", "a102"  # what archive, unarchive and delete are sent for
REASON = {"reason": "The machine was taken out of service."}
COMPLETED = {"final_status": "COMPLETED", "job_names_list": ["a001_LOCAL_SETUP"]}
FIRST = {"description": "A first one", "dummy": True, "hpc": "local"}
FILE, NEW_FILE = "EXPERIMENT:\n  MEMBERS: fc0\n", "EXPERIMENT:\n  MEMBERS: fc0 fc1\n"

# A body that each operation accepts. The README has the same bodies.
BODIES: dict[str, dict[str, Any]] = {
    "run_experiment": {**EXPID, **WITH},
    "get_runner_run_status": EXPID,
    "stop_experiment": EXPID,
    "set_job_status": {**EXPID, **WITH, "command_params": COMPLETED},
    "create_experiment": {**WITH, "command_params": FIRST},
    "create_job_list": {**EXPID, **WITH},
    "update_experiment_description": {**EXPID, **WITH, "description": "A better name"},
    "recover_experiment": {**EXPID, **WITH, "command_params": {"all": True}},
    "refresh_experiment": {**EXPID, **WITH},
    "inspect_experiment": {**EXPID, **WITH},
    "archive_experiment": {**WITH, "expid": ARCHIVABLE},
    "unarchive_experiment": {**WITH, "expid": ARCHIVED},
    "delete_experiment": {**WITH, "expid": DELETABLE, "confirm_expid": DELETABLE},
    "abandon_run": REASON,
    "cancel_restart": {},
    "run_again": {"first": "failed_to_waiting"},
    "check_profile": {"profile_params": {}},
    "set_preferred_username": {"preferred_username": "abc012345"},
    "set_notifications": {"mine": True, "profiles": [PROFILE]},
    "start_login": {"host": "login1.example.org"},
    "poll_login": {"device_code": "0123456789abcdef"},
    "announce_maintenance": {"text": "New disks. Questions to ops@site.example", "ends": "2099-01-20T18:00:00+01:00"},
    "write_configuration_file": {"content": NEW_FILE},
    "restore_configuration_file": {"version": "20260120T093000.123456Z-0123456789abcdef"},
}
FILES = ("list_configuration_files", "read_configuration_file", "list_configuration_versions")
CHANGES = ("write_configuration_file", "restore_configuration_file")
QUERIES = dict.fromkeys((*FILES[1:], *CHANGES), "?profile_name={}&path={}")
QUERIES["list_configuration_files"] = QUERIES["get_experiment_jobs"] = "?profile_name={}"
SCRIPTS = ("list_job_scripts", "read_job_script")
QUERIES |= dict.fromkeys(SCRIPTS, "?profile_name={}")
OPEN = ("start_login", "poll_login")  # they need no credentials
OF_A_PERSON = ("set_preferred_username", "get_preferred_username", "set_notifications", "get_notifications")
LONG = ("set_job_status", "create_experiment", "create_job_list")
SHORT = ("run_experiment", "update_experiment_description")
# They share their code with LONG, so what takes seconds is recorded for LONG only (UNRECORDED).
MAINTENANCE = (
    *("recover_experiment", "refresh_experiment", "inspect_experiment"),
    *("archive_experiment", "unarchive_experiment", "delete_experiment"),
)
PROFILED = (*SHORT, *LONG, *MAINTENANCE)
COMMANDS = (*PROFILED, "stop_experiment")
WHICH_RUN = ("get_runner_run_status", "stop_experiment")
LOGS = ("get_run_log", "search_run_log", "get_operation_log")
QUERIES["search_run_log"] = "?errors=true"
JOB = "a001_20000101_fc0_1_SIM"
OF_RUN_JOBS = ("get_run_jobs", "get_job_log")
JOBS = (*OF_RUN_JOBS, "get_experiment_jobs")
STUB = {  # the Autosubmit command of each operation
    "set_job_status": "setstatus",
    "create_experiment": "expid",
    "create_job_list": "create",
    "update_experiment_description": "updatedescrip",
}
MAINTENANCE_STUB = dict(
    zip(MAINTENANCE, ("recovery", "refresh", "inspect", "archive", "unarchive", "delete"), strict=True)
)

FIRST_STEP = {"run_again": "setstatus"}  # the Autosubmit command of its first step

# One mistake, a body or a query, for each operation that can reject its input.
MISTAKES: dict[str, dict[str, Any] | str] = {
    "run_experiment": {**WITH, "expid": "A001"},
    "get_runner_run_status": {"exp_id": "a001"},
    "stop_experiment": {**EXPID, "force": "yes"},
    "set_job_status": {**EXPID, **WITH, "command_params": {**COMPLETED, "job_names_list": ["a002_LOCAL_SETUP"]}},
    "create_experiment": {**WITH, "command_params": {**FIRST, "operational": True, "testcase": True}},
    "create_job_list": {**EXPID, **WITH, "command_params": {"forced": True}},
    "update_experiment_description": {**EXPID, **WITH},
    "recover_experiment": {**EXPID, **WITH, "command_params": {"filter_status": ["FAILED", "READY"]}},
    "refresh_experiment": {**EXPID, **WITH, "command_params": {"force": True}},
    "inspect_experiment": {**EXPID, **WITH, "command_params": {"quick": 1}},
    "archive_experiment": {**EXPID, **WITH, "command_params": {"compress": True}},
    "unarchive_experiment": {**WITH, "expid": "2026/a101"},
    "delete_experiment": {**WITH, "expid": DELETABLE, "confirm_expid": "a103"},
    "abandon_run": {},
    "cancel_restart": {"reason": "It is not needed."},
    "run_again": {"first": "everything"},
    "check_profile": {"profile_param": {}},
    "set_preferred_username": {"preferred_username": ""},
    "set_notifications": {"mine": "yes"},
    "start_login": {"host": "login1.example.org", "scope": "manage"},
    "poll_login": {"user_code": "BCDF-GHJK"},
    "send_test_mail": "",
    "announce_maintenance": {"text": "New disks.", "ends": "tomorrow"},
    "list_runs": "?status=RUNNING",
    "get_run_log": "?tail=4000&offset=0",
    "get_operation_log": "?encoding=utf-8",
    "search_run_log": "?text=FAILED&errors=true",
    "list_configuration_files": "?profile=MY_RUNNER_PROFILE_1",
    "read_configuration_file": f"?profile_name={PROFILE}&path=../a002/conf/jobs_a002.yml",
    "list_configuration_versions": f"?profile_name={PROFILE}",
    "list_job_scripts": f"?profile_name={PROFILE}&page_size=1000",
    "read_job_script": f"?profile_name={PROFILE}&tail=16",
    "write_configuration_file": {"content": "EXPERIMENT:\n  MEMBERS: [fc0\n"},
    "restore_configuration_file": {},
    "get_run_jobs": "?status=DONE",
    "get_experiment_jobs": "?status=FAILED",
    "get_job_log": "?stream=log",
}


def query_of(operation: str, profile: str = PROFILE, path: str = "jobs_a001.yml") -> str:
    return QUERIES.get(operation, "").format(profile, path)


def if_match(content: str) -> dict[str, str]:
    return {"If-Match": f'"{hashlib.sha256(content.encode()).hexdigest()}"'}


class World:
    """The service in this process, with two profiles on a real sshd, and a user with tokens."""

    def __init__(self, client: Client, settings: Any, account: StubAccount, sshd: SSHServer) -> None:
        need(find_lmod(), "Lmod")
        client.raise_request_exception = False
        self.settings, self.account, self.sshd = settings, account, sshd
        ana = User.objects.create_user("ana")
        ana.user_permissions.set(
            Permission.objects.filter(codename__in=("add_maintenance", "delete_maintenance", "delete_machine"))
        )
        self.tokens = {}
        for scope in ("read", "run", "manage"):
            _, text = ApiToken.issue(user=ana, expiry=timedelta(days=1), scope=scope)
            self.tokens[scope] = {"Authorization": f"Bearer {text}"}
        settings.PROTECTION_LEVEL = "ALL"
        settings.THROTTLE_COMMANDS = settings.THROTTLE_READS = ""
        settings.RUNNERS_STATUS_FRESHNESS = 0
        settings.RUNNERS_CONNECT_TIMEOUT = 5
        where = {"runner_type": "SSH", "module_loader_type": "LMOD", "modules": "autosubmit"}
        where |= {"ssh_host": "127.0.0.1", "ssh_port": sshd.port}
        self.profile = RunnerProfile.objects.create(name=PROFILE, ssh_user=sshd.user, **where)
        RunnerProfile.objects.create(name=OPEN_PROFILE, **where)
        switch_all_on()
        PublishedSSHKey.objects.create(line=sshd.client_key.with_suffix(".pub").read_text().strip())
        account.experiment("a000")  # the next one is a001
        home = "/home/autosubmit_user"
        self.recorder = Recorder(client, {str(account.home): home, str(account.programs): f"{home}/bin"})
        self.manage = self.recorder.headers = self.tokens["manage"]
        self.another = copy.copy(self.recorder)  # for a second thread, with its own client
        self.another.client = Client(raise_request_exception=False)
        self.run = 0  # the number of the last run
        self.ended = 0  # the number of a run that has ended
        self.operation = 0

    def ask(self, operation: str, *args: Any, **options: Any) -> Any:
        """Send the operation and record its response."""
        self.restore()
        return self.recorder.ask(operation, *args, **options)

    def restore(self) -> None:
        """Make the experiments and the archive again that an operation may have removed."""
        root = self.account.home / "autosubmit"
        for expid in (ARCHIVABLE, DELETABLE):
            if not (root / expid).exists():
                self.account.experiment(expid)
        archive = root / "2026" / f"{ARCHIVED}.tar.gz"
        if not archive.exists():
            shutil.rmtree(root / ARCHIVED, ignore_errors=True)
            archive.parent.mkdir(exist_ok=True)
            with tarfile.open(archive, "w:gz"):
                pass

    def each(self, operations: Iterable[str], expect: str | int, *bodies: Any, **options: Any) -> None:
        """Send each operation with its own body, or with the given one. Each must give the response `expect`."""
        for operation in operations:
            body = bodies[0] if bodies else BODIES.get(operation)
            given: dict[str, Any] = {"id": self.number(operation), "query": query_of(operation)}
            if operation in CHANGES:
                given["headers"] = if_match(FILE)
            if operation == "get_job_log":
                given["name"] = JOB
            self.ask(operation, body, expect=expect, **{**given, **options})

    def number(self, operation: str) -> int:
        """Return the number of the run or operation that this operation reads."""
        if operation == "run_again":
            return self.ended or 4711
        return (self.operation if operation.startswith("get_operation") else self.run) or 4711

    @contextmanager
    def setting(self, name: str, value: object) -> Iterator[None]:
        before = getattr(self.settings, name)
        setattr(self.settings, name, value)
        yield
        setattr(self.settings, name, before)

    @contextmanager
    def slow(self, stub: str = "") -> Iterator[Callable[[], bool]]:
        """Make this Autosubmit command, or each login shell, take 3 s.

        The yielded function returns True once one has begun.
        """
        began = self.account.home / "began"
        profile = self.account.home / ".bash_profile"
        before = profile.read_text()
        if not stub:
            profile.write_text(f"{before}touch ~/began; sleep 3\n")
            began.unlink(missing_ok=True)
        self.account.control(stub or "nothing", DELAY=3)
        calls = len(self.account.calls(stub or "nothing"))
        try:
            yield lambda: began.exists() or len(self.account.calls(stub or "nothing")) > calls
        finally:
            profile.write_text(before)
            began.unlink(missing_ok=True)
            self.account.control(stub or "nothing")

    @contextmanager
    def by_hand(self) -> Iterator[None]:
        """Run a001 without the service."""
        self.account.control("run", SLEEP=600)
        calls = len(self.account.calls("run"))
        process = subprocess.Popen(
            [str(self.account.programs / "autosubmit"), "run", "a001"],
            env={"HOME": str(self.account.home), "PATH": os.defpath},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        wait_for(lambda: len(self.account.calls("run")) > calls, what="the run")
        self.recorder.replace[f"process {process.pid}"] = "process 4711"
        try:
            yield
        finally:
            process.kill()
            process.wait()

    @contextmanager
    def slow_python(self) -> Iterator[Callable[[], bool]]:
        """Make the account's python3 take 3 s. The yielded function returns True once it has begun."""
        began, folder = self.account.home / "began", self.account.home / "slow"
        profile = self.account.home / ".bash_profile"
        before = profile.read_text()
        folder.mkdir(exist_ok=True)
        (folder / "python3").write_text(f'#!/bin/bash\ntouch ~/began; sleep 3; exec {sys.executable} "$@"\n')
        (folder / "python3").chmod(0o700)
        profile.write_text(f"{before}PATH=$HOME/slow:$PATH\n")
        began.unlink(missing_ok=True)
        try:
            yield began.exists
        finally:
            profile.write_text(before)
            began.unlink(missing_ok=True)
            shutil.rmtree(folder)

    @contextmanager
    def meanwhile(self, operation: str, body: Any, *, keep: bool = False, **options: Any) -> Iterator[None]:
        """Send the request in a separate thread while the block runs, then wait for the response."""

        def send() -> None:
            try:
                Recorder.ask(self.another, operation, body, keep=keep, **options)
            finally:
                connections.close_all()

        with ThreadPoolExecutor(1) as pool:
            sent = pool.submit(send)
            yield
            sent.result(60 * PATIENCE)


# --- Answers that need nothing from a machine -------------------------------------------------------------------------


def credentials(world: World) -> None:
    protected = [name for name in OPERATIONS if name not in OPEN]
    world.each(protected, "not_authenticated", headers={"Authorization": ""})
    world.each(protected, "invalid_credentials", headers={"Authorization": "Bearer asr_of_nobody"})
    changing = [name for name in BODIES if name not in ("get_runner_run_status", *OPEN)]
    readable = (*FILES, *SCRIPTS, "get_experiment_jobs")
    world.each((*changing, "send_test_mail", *OF_ADMINS, *readable), "permission_denied", headers=world.tokens["read"])
    world.settings.PROTECTION_LEVEL = "NONE"
    of_a_person = (*OF_A_PERSON, "send_test_mail", "who_am_i", "revoke_this_token")
    world.each(of_a_person, "not_found", headers={"Authorization": ""})
    world.settings.PROTECTION_LEVEL = "ALL"


def mistakes(world: World) -> None:
    for operation, wrong in MISTAKES.items():
        request: Any = {"query": wrong} if isinstance(wrong, str) else {"body": wrong, "query": query_of(operation)}
        if operation in CHANGES:
            request["headers"] = if_match(FILE)
        world.ask(operation, expect="invalid_request", **request)
    world.each(BODIES, "invalid_json", b'{"expid": a001}')
    world.each(BODIES, "unsupported_media_type", b"expid=a001", content_type="text/plain")
    world.each(
        BODIES, "length_required", headers={**world.manage, "Transfer-Encoding": "chunked", "Content-Length": ""}
    )
    world.each(BODIES, "too_large", b" " * (world.settings.API_MAX_BODY + 1))
    for operation in PROFILED:
        body = BODIES[operation]
        world.ask(operation, {**body, "profile_name": OPEN_PROFILE}, expect="invalid_profile")
        world.ask(operation, {**body, "profile_name": "MY_RUNNER_PROFILE"}, expect="profile_not_found")
    for operation in WHICH_RUN:
        params = {"profile_name": OPEN_PROFILE, "profile_params": {"SSH": {"PORT": "ssh"}}}
        world.ask(operation, {**EXPID, **params}, expect="invalid_profile")
        world.ask(operation, {**EXPID, "profile_name": "MY_RUNNER_PROFILE"}, expect="profile_not_found")
    world.ask("check_profile", {}, expect="invalid_profile", name=OPEN_PROFILE)
    world.ask("check_profile", {}, expect="profile_not_found", name="MY_RUNNER_PROFILE")
    world.ask("get_profile_requirements", expect="profile_not_found", name="MY_RUNNER_PROFILE")
    for operation in (*FILES, *CHANGES, *SCRIPTS):
        for profile, code in ((OPEN_PROFILE, "invalid_profile"), ("MY_RUNNER_PROFILE", "profile_not_found")):
            world.ask(operation, BODIES.get(operation), expect=code, query=query_of(operation, profile))
    world.each(CHANGES, "precondition_required", headers={})
    world.ask("get_experiment_jobs", expect="profile_not_found", query="?profile_name=MY_RUNNER_PROFILE")
    world.ask("get_experiment_jobs", expect="invalid_profile", query=f"?profile_name={OPEN_PROFILE}")


def nothing_there(world: World) -> None:
    names = ("get_runner_run_status", "stop_experiment", "get_run", "abandon_run", "cancel_restart", "get_run_log")
    names += ("search_run_log",)
    names += OF_RUN_JOBS
    names += ("run_again",)
    world.each(names, "run_not_found")
    world.each(("get_operation", "get_operation_log"), "operation_not_found")
    world.each(("announce_maintenance", *OF_ADMINS), "machine_not_found", name="nowhere.example")
    world.each(("forget_machine",), "machine_in_use", name=MACHINE)
    world.each(("end_maintenance",), "maintenance_not_found", name=MACHINE)


def rules_of_an_admin(world: World) -> None:
    for toggle in toggles():
        EndpointToggle.objects.update_or_create(name=toggle, defaults={"enabled": False})
    world.each((*COMMANDS, *CHANGES, "run_again"), "endpoint_disabled")
    EndpointToggle.objects.update(enabled=True)
    group = Group.objects.create(name="modellers")
    world.profile.run_groups.add(group)
    world.profile.status_groups.add(group)
    reading = (*FILES, *CHANGES, *SCRIPTS, "get_experiment_jobs")
    world.each((*PROFILED, "check_profile", *reading), "profile_forbidden")
    RunnerProfile.objects.filter(name=OPEN_PROFILE).update(allowed_users="{username}")
    params = {"profile_name": OPEN_PROFILE, "profile_params": {"SSH": {"USER": "another"}}}
    world.ask("get_runner_run_status", {**EXPID, **params}, expect="profile_forbidden")
    RunnerProfile.objects.filter(name=OPEN_PROFILE).update(allowed_users="")
    world.profile.run_groups.clear()
    world.profile.status_groups.clear()


def limits(world: World) -> None:
    world.settings.THROTTLE_COMMANDS = world.settings.THROTTLE_READS = "1/hour"
    world.ask("stop_experiment", {}, expect=400, keep=False)
    world.ask("list_endpoints", keep=False)
    world.ask("start_login", BODIES["start_login"], keep=False)
    world.each(OPERATIONS, "throttled")
    world.settings.THROTTLE_COMMANDS = world.settings.THROTTLE_READS = ""
    for each in caches.all():
        each.clear()

    def away(*args: object) -> None:
        raise OperationalError("the connection was refused")

    with connection.execute_wrapper(away):
        world.each(OPERATIONS, "database_unavailable")


def configuration(world: World) -> None:
    for operation in ("list_profiles", "list_endpoints", "list_ssh_public_keys", "list_commands"):
        world.ask(operation)
    world.ask("get_profile_requirements", name=OPEN_PROFILE)
    for operation in OF_A_PERSON:
        world.ask(operation, BODIES.get(operation))
    world.ask("who_am_i")
    device_code = world.ask("start_login", BODIES["start_login"])["device_code"]
    world.ask("poll_login", {"device_code": device_code}, example="Pending")
    caches["login-polls"].clear()  # the interval between two polls
    DeviceLogin.objects.update(status="approved", user=User.objects.get(username="ana"))
    token = world.ask("poll_login", {"device_code": device_code})["token"]
    world.ask("revoke_this_token", headers={"Authorization": f"Bearer {token}"})
    User.objects.update(email="ana@example.org")
    with world.setting("EMAIL_HOST", "mail.example.org"):
        world.ask("send_test_mail")


# --- A machine that works ---------------------------------------------------------------------------------------------


def main_job(world: World) -> None:
    """Create, change, run and stop a001, with a plan of each (`dry_run`)."""
    account, ask = world.account, world.ask
    ask("check_profile", BODIES["check_profile"])
    ready = ("create_experiment", "create_job_list", "set_job_status", "update_experiment_description", *MAINTENANCE)
    for operation in ready:
        ask(operation, BODIES[operation])
        ask(operation, {**BODIES[operation], "dry_run": True}, example="Plan")
    ask("run_experiment", {**WITH, "expid": ARCHIVED}, expect="experiment_not_found")
    world.each(SCRIPTS, 200, name="a001_ONE.cmd")
    world.each(SCRIPTS, "experiment_not_found", expid="a999", name="a999_ONE.cmd")
    world.each(("read_job_script",), "script_not_found", name="a001_TWO.cmd")
    account.control("run", SLEEP=600)
    world.run = ask("run_experiment", BODIES["run_experiment"])["runner_id"]
    ask("run_experiment", {**BODIES["run_experiment"], "dry_run": True}, example="Plan")
    ask("get_runner_run_status", EXPID)
    ask("get_run", id=world.run)
    world.each(("run_experiment", "set_job_status", "create_job_list", *MAINTENANCE[:3], *CHANGES), "already_running")
    world.each(("archive_experiment",), "already_running", {**EXPID, **WITH})
    world.each(("delete_experiment",), "already_running", {**EXPID, **WITH, "confirm_expid": "a001"})
    world.each(("abandon_run",), "still_reachable")
    group = Group.objects.get()
    world.profile.stop_groups.add(group)
    world.each(("stop_experiment", "abandon_run", "cancel_restart"), "profile_forbidden")
    world.profile.stop_groups.clear()
    other = RunnerRun.objects.get(pk=world.run)
    other.pk, other.key, other.installation = None, new_run_key(), "another"
    other.save(force_insert=True)
    ask("stop_experiment", EXPID, expect="ambiguous")
    other.delete()
    ask("stop_experiment", {**EXPID, "dry_run": True}, example="Plan")
    ask("stop_experiment", EXPID)
    world.each(("stop_experiment", "abandon_run", "cancel_restart"), "not_running")
    RunnerRun.objects.filter(pk=world.run).update(restart={"on": ["lost"], "attempts": 3}, **restart_plans.pending(0))
    ask("cancel_restart", {}, id=world.run)
    with world.by_hand():
        world.each(("run_experiment", "stop_experiment"), "foreign_run")
        ask("stop_experiment", {**EXPID, "foreign": True}, example="Foreign")
    ask("list_runs", query="?expid=a001")
    ask("get_run_log", id=world.run)
    ask("search_run_log", id=world.run, query="?text=a001")


def files(world: World) -> None:
    """List, read, change and restore a configuration file of a001."""
    conf = world.account.home / "autosubmit" / "a001" / "conf"
    world.each((*FILES, *CHANGES), "experiment_not_found", expid="a999")
    for kind, code in (("missing", "file_not_found"), ("link", "file_rejected")):
        if kind == "link":
            conf.symlink_to("/etc")
        else:
            conf.rename(conf.with_name("away"))
        world.each((*FILES, *CHANGES), code)
    conf.unlink()
    conf.with_name("away").rename(conf)
    (conf / "jobs_a001.yml").write_text(FILE)
    world.each(FILES, 200, keep=False)
    world.each(
        ("write_configuration_file",), 200, {**BODIES["write_configuration_file"], "dry_run": True}, example="Dry run"
    )
    world.each(("write_configuration_file", *FILES), 200)
    version = world.ask(FILES[2], query=query_of(FILES[2]), keep=False)["versions"][0]["version"]
    world.each(("write_configuration_file",), "precondition_failed")
    world.each(("restore_configuration_file",), "precondition_failed", {"version": version})
    body = {"version": version, "dry_run": True}
    world.each(("restore_configuration_file",), 200, body, headers=if_match(NEW_FILE), example="Dry run")
    world.each(("restore_configuration_file",), 200, {"version": version}, headers=if_match(NEW_FILE))


def jobs_of_a001(world: World) -> None:
    home, name = world.account.home, JOB
    world.each(JOBS, "jobs_not_found")
    jobs.forget()
    job_lists.write_bytes(home, "a001", b"garbage")
    world.each(JOBS, "jobs_unreadable")
    jobs.forget()
    given = {"date": job_lists.day("20000101"), "member": "fc0", "chunk": 1}
    setup = job_lists.job("a001_LOCAL_SETUP", "COMPLETED", section="LOCAL_SETUP", id=4711)
    job_lists.write(home, "a001", [setup, job_lists.job(name, "FAILED", id=101, **given)])
    job_lists.history(home, "a001", [job_lists.row("a001_LOCAL_SETUP", job_id=4711), job_lists.row(name, 1)])
    world.each((JOBS[1],), "log_not_found")
    jobs.forget()
    job_lists.write_log(home, "a001", f"{name}.1.err", b"slurmstepd: error: Detected 1 oom_kill event\n")
    for operation in JOBS:
        world.ask(operation, id=world.run, name=name, query=query_of(operation))


def again(world: World) -> None:
    """Run a001 again, after its failed jobs were set to WAITING."""
    body = BODIES["run_again"]
    world.ended = world.run
    ended, profiles = RunnerRun.objects.filter(pk=world.ended), RunnerProfile.objects.filter(name=PROFILE)
    ended.update(superseded=True)
    world.each(("run_again",), "experiment_not_found")
    ended.update(superseded=False)
    profiles.update(enabled=False)
    world.each(("run_again",), "profile_not_found")
    profiles.update(enabled=True, ssh_user="another")
    world.each(("run_again",), "invalid_profile")
    profiles.update(ssh_user=world.profile.ssh_user)
    group = Group.objects.get()
    world.profile.status_groups.add(group)
    world.each(("run_again",), "profile_forbidden")
    world.profile.status_groups.clear()
    jobs.forget()
    job_list = job_lists.write(world.account.home, "a001", [job_lists.job("a001_SIM", "COMPLETED")])
    world.each(("run_again",), "nothing_to_run")
    job_list.unlink()
    jobs.forget()
    world.ask("run_again", {**body, "dry_run": True}, example="Plan", id=world.ended)
    run = world.ask("run_again", body, id=world.ended)["runner_id"]
    world.ask("run_again", body, expect="already_running", id=run)
    world.account.kill()
    world.ask("get_runner_run_status", EXPID, keep=False)  # detects that the run has ended


def background(world: World) -> None:
    """`Prefer: respond-async`, and the operations that it makes."""
    for operation in LONG:
        world.account.control(STUB[operation], SLEEP=2)
        answer = world.ask(
            operation, BODIES[operation], expect=202, headers={**world.manage, "Prefer": "respond-async"}
        )
        world.operation = answer["operation_id"]
        world.ask("get_operation", id=world.operation, example="Running")

        def ended() -> bool:
            return bool(world.ask("get_operation", id=world.operation, keep=False)["finished"])

        wait_for(ended, 30, what="end of the operation")
        world.ask("get_operation", id=world.operation)
        world.ask("get_operation_log", id=world.operation)
        world.account.control(STUB[operation])


def repeated(world: World) -> None:
    """Send the `Idempotency-Key` of a request that is in progress, and that of a different request."""
    stubs = STUB | FIRST_STEP
    for operation in (*STUB, "run_experiment", "stop_experiment", *FIRST_STEP):
        body = BODIES[operation]
        options = {"headers": {**world.manage, "Idempotency-Key": f"key-of-{operation}"}, "id": world.number(operation)}
        with world.slow(stubs.get(operation, "")) as called, world.meanwhile(operation, body, **options):
            wait_for(called, 20, what=f"the command of {operation}")
            world.ask(operation, body, expect="idempotency_in_progress", **options)
        world.ask(operation, {**body, "dry_run": False}, expect="idempotency_key_reused", **options)
    world.account.kill()
    world.ask("get_runner_run_status", EXPID, keep=False)
    for operation in MAINTENANCE:
        body = BODIES[operation]
        key = {**world.manage, "Idempotency-Key": f"key-of-{operation}"}
        world.ask(operation, body, headers=key, keep=False)
        world.ask(operation, {**body, "dry_run": False}, expect="idempotency_key_reused", headers=key)


# --- Commands that fail -----------------------------------------------------------------------------------------------


def failures(world: World) -> None:
    stubs = STUB | FIRST_STEP
    for operation, stub in (stubs | MAINTENANCE_STUB).items():
        if "expid" in BODIES[operation]:
            world.account.control(stub, FAIL="Experiment does not exist", ECODE=7012, EXIT=100)
            world.each((operation,), "experiment_not_found")
        world.account.control(stub, FAIL="Can not write the job list", ECODE=7014, EXIT=102)
        world.each((operation,), "command_failed")
        world.account.control(stub, SLEEP=30)
        with world.setting("RUNNERS_COMMAND_TIMEOUT", 1):
            world.each((operation,), "command_timed_out")
        world.account.control(stub)
    for operation in (*stubs, "run_experiment"):
        options = {"expect": "outcome_unknown", "keep": True, "id": world.number(operation)}
        with (
            world.slow(stubs.get(operation, "")) as called,
            world.meanwhile(operation, BODIES[operation], **options),
        ):
            wait_for(called, 20, what=f"the command of {operation}")
            world.sshd.drop_connections()
    world.account.kill()
    world.ask("get_runner_run_status", EXPID, keep=False)  # detects that the run has ended
    with world.setting("RUNNERS_LAUNCH_TIMEOUT", 1), world.slow():
        world.each(("run_experiment",), "command_timed_out")
    world.account.kill()
    world.ask("get_runner_run_status", EXPID, keep=False)
    for operation in (*FILES, *CHANGES):
        with (
            world.slow_python() as called,
            world.meanwhile(
                operation,
                BODIES.get(operation),
                expect="outcome_unknown",
                keep=True,
                query=query_of(operation),
                headers=if_match(FILE) if operation in CHANGES else None,
            ),
        ):
            wait_for(called, 20, what=f"the program of {operation}")
            world.sshd.drop_connections()
    with world.setting("RUNNERS_LAUNCH_TIMEOUT", 1), world.slow_python():
        world.each((*FILES, "restore_configuration_file"), "command_timed_out")
    world.profile.modules = "autosubmit/3.15.17"
    world.profile.save()
    world.each(("run_experiment", *FILES, *CHANGES), "command_failed")
    world.profile.modules = "autosubmit"
    world.profile.save()


# --- Machines that cannot be reached ----------------------------------------------------------------------------------


def machines(world: World) -> None:
    """Each way in which a machine is not accessible, for each operation that contacts a machine. a001 runs there."""
    world.account.control("run", SLEEP=600)
    world.run = world.ask("run_experiment", BODIES["run_experiment"], keep=False)["runner_id"]
    asking = (*PROFILED, "stop_experiment", *LOGS, *JOBS, "run_again")
    elsewhere = {"run_experiment": {**BODIES["run_experiment"], "expid": "a002"}}
    sshd = world.sshd

    def refuse(cause: str) -> None:
        for operation in asking:
            # A stop has one code for all causes.
            code = "runner_unreachable" if operation == "stop_experiment" else cause
            POOL.close()
            log_cache.forget()
            jobs.forget()
            world.each((operation,), code, elsewhere.get(operation, BODIES.get(operation)))
        for operation in (*FILES, *CHANGES, *SCRIPTS):
            POOL.close()
            world.each((operation,), code, expid="a002", name="a002_ONE.cmd")

    world.profile.other_parameters = {"RUN_DIRECTORY": "/scratch/not-mounted"}
    world.profile.save()
    rows = [*RunnerRun.objects.all(), *Operation.objects.all()]
    for row in rows:
        type(row).objects.filter(pk=row.pk).update(config={**row.config, **world.profile.other_parameters})
    refuse("run_directory_unusable")
    for row in rows:
        type(row).objects.filter(pk=row.pk).update(config=row.config)
    world.profile.other_parameters = {}
    world.profile.save()
    trusted = sshd.known_hosts.read_text()
    sshd.forget_host_key()
    refuse("host_key_unknown")
    sshd.known_hosts.write_text(trusted)
    sshd.swap_host_key()
    refuse("host_key_changed")
    sshd.trust_host_key()
    sshd.authorized = False
    refuse("authentication_failed")
    sshd.authorized = True
    sshd.stop()
    refuse("runner_unreachable")
    world.ask("get_runner_run_status", EXPID, example="Unreachable")
    world.ask("abandon_run", REASON, id=world.run)
    sshd.start()
    POOL.close()
    world.account.kill()
    shutil.rmtree(world.account.home / ".autosubmit-runners")
    log_cache.forget()
    world.each(LOGS, "log_not_found")


def in_maintenance(world: World) -> None:
    """Commands are refused while a maintenance of the machine is announced. a001 has ended."""
    announced = world.ask("announce_maintenance", BODIES["announce_maintenance"], name=MACHINE)
    world.ask("list_machines")
    world.each((*PROFILED, *CHANGES, "run_again"), "machine_in_maintenance")
    world.ask("end_maintenance", name=MACHINE, id=announced["id"])
    Machine.objects.create(name="old.example.org")
    User.objects.filter(username="ana").update(is_staff=True)  # staff sees machines that nobody uses
    world.ask("forget_machine", name="old.example.org")
    User.objects.filter(username="ana").update(is_staff=False)


def busy(world: World) -> None:
    """One command more than each limit allows: no machine is contacted."""
    config = world.profile.resolve({})
    runner = get_runner(config)
    elsewhere = {"run_experiment": {**BODIES["run_experiment"], "expid": "a003"}}
    world.account.control("run", SLEEP=600)
    world.run = world.ask("run_experiment", BODIES["run_experiment"], keep=False)["runner_id"]
    BULKHEADS.threads = 4
    try:
        for code, person, name in (
            ("machine_busy", "ben", "RUNNERS_COMMANDS_PER_ACCOUNT"),
            ("too_many_commands", "ana", "RUNNERS_COMMANDS_PER_PERSON"),
        ):
            with (
                world.setting(name, 1),
                BULKHEADS.command("run-experiment", person=person, profile_name=PROFILE),
            ):
                runner.admit()
                for operation in (*COMMANDS, "check_profile", *CHANGES, "run_again"):
                    world.each((operation,), code, elsewhere.get(operation, BODIES.get(operation)))
        with BULKHEADS.waiting(runner.target, runner.where) as wait:
            wait.start -= 60  # a minute without a response
            jobs.forget()
            world.each((*LOGS, *JOBS, *FILES), "machine_busy")
            world.each(SCRIPTS, "machine_busy", name="a001_ONE.cmd")
    finally:
        BULKHEADS.threads = 0
    folder = world.account.home / ".autosubmit-runners"
    with (folder / scripts.EXPID_LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        world.each(("create_experiment",), "account_busy")
    world.account.kill()
    world.ask("get_runner_run_status", EXPID, keep=False)


@pytest.fixture
def world(client: Client, settings: Any, account: StubAccount, sshd: SSHServer) -> World:
    return World(client, settings, account, sshd)


SCENES: tuple[Callable[[World], None], ...] = (
    credentials,
    mistakes,
    nothing_there,
    rules_of_an_admin,
    limits,
    configuration,
    main_job,
    files,
    again,
    in_maintenance,
    jobs_of_a001,
    background,
    repeated,
    failures,
    busy,
    machines,
)


def test_the_examples_are_what_the_service_answers(world: World) -> None:
    for scene in SCENES:
        scene(world)
    if os.environ.get("EXAMPLES_WRITE"):
        world.recorder.write()
    assert shapes(world.recorder.sorted()) == shapes(recorded()), "look at the difference; `make examples` records anew"
