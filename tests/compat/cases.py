"""The requests. Each case is written once and sent to both sides. The reply that it returns is compared.

The bodies are those that today's GUI was recorded to send, for success and for failure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.compat.client import Reply
from tests.compat.reference import SCRIPT_TOKEN
from tests.compat.side import ORIGIN, Side

CASES: dict[str, Callable[[Side], Reply]] = {}
Case = Callable[[Side], Reply]

# The create page always sends all ten members.
CREATE: dict[str, Any] = {
    "description": "of the compatibility suite",
    "hpc": "LOCAL",
    "git_repo": None,
    "git_branch": None,
    "config_path": None,
    "copy": None,
    "operational": False,
    "testcase": False,
    "minimal": False,
    "use_local_minimal": False,
}


def case(what: str, *, on: bool = True, level: str = "NONE") -> Callable[[Case], Case]:
    """Register a case. It is sent with all endpoints switched on or off, and with this PROTECTION_LEVEL."""

    def register(function: Case) -> Case:
        assert what not in CASES

        def ask(side: Side) -> Reply:
            side.at_level(level)
            side.switch(on=on)
            return function(side)

        CASES[what] = ask
        return function

    return register


def set_status(expid: str, profile: str = "LOCAL", **params: Any) -> dict[str, Any]:
    given = {"final_status": "COMPLETED", "job_names_list": [f"{expid}_ONE", f"{expid}_TWO"], **params}
    return {"expid": expid, "profile_name": profile, "profile_params": {}, "command_params": given}


def create(**params: Any) -> dict[str, Any]:
    return {"profile_name": "LOCAL", "profile_params": {}, "command_params": {**CREATE, **params}}


def describe(expid: str, description: str, profile: str = "LOCAL") -> dict[str, Any]:
    return {"expid": expid, "profile_name": profile, "profile_params": {}, "description": description}


# --- configuration ----------------------------------------------------------------------------------------------------


@case("GET configuration/profiles")
def get_profiles(side: Side) -> Reply:
    return side.get("/v4/runners/configuration/profiles")


@case("GET configuration/endpoints")
def get_endpoints(side: Side) -> Reply:
    return side.get("/v4/runners/configuration/endpoints")


@case("GET configuration/ssh-public-keys")
def get_keys(side: Side) -> Reply:
    return side.get("/v4/runners/configuration/ssh-public-keys")


@case("GET with a doubled slash in the path")
def doubled_slash(side: Side) -> Reply:
    return side.get("//v4/runners/configuration/ssh-public-keys")


@case("GET with an invalid token, protection off")
def stale_token(side: Side) -> Reply:
    return side.get("/v4/runners/configuration/ssh-public-keys", Authorization="Bearer eyJ.of.yesterday")


@case("OPTIONS (preflight of a browser on another origin)")
def preflight(side: Side) -> Reply:
    headers = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    reply = side.client.request("OPTIONS", "/v4/runners/command/run-experiment", headers=headers)
    names = ("access-control-allow-origin", "access-control-allow-headers", "access-control-allow-methods")
    return Reply(reply.status, {name: reply.headers.get(name) for name in names}, reply.headers, reply.seconds)


@case("an error to a browser on another origin (its CORS header)")
def cors_of_errors(side: Side) -> Reply:
    reply = side.post("set-job-status", {}, Origin=ORIGIN)
    allowed = reply.headers.get("access-control-allow-origin")
    return Reply(reply.status, {"access-control-allow-origin": allowed and "present"}, reply.headers, reply.seconds)


# --- preferred-username -----------------------------------------------------------------------------------------------


@case("GET preferred-username, not signed in")
def username_anonymous(side: Side) -> Reply:
    return side.get("/v4/user-settings/preferred-username")


@case("POST preferred-username, not signed in")
def username_post_anonymous(side: Side) -> Reply:
    return side.post("/v4/user-settings/preferred-username", {"preferred_username": "eva"})


@case("GET preferred-username, nothing stored")
def username_none(side: Side) -> Reply:
    return side.get("/v4/user-settings/preferred-username", **side.login("nobody-yet"))


@case("POST preferred-username")
def username_post(side: Side) -> Reply:
    return side.post("/v4/user-settings/preferred-username", {"preferred_username": "eva"}, **side.login("eva1"))


@case("GET preferred-username")
def username(side: Side) -> Reply:
    headers = side.login("eva2")
    side.post("/v4/user-settings/preferred-username", {"preferred_username": "eva"}, **headers)
    return side.get("/v4/user-settings/preferred-username", **headers)


@case("POST preferred-username without it")
def username_missing(side: Side) -> Reply:
    return side.post("/v4/user-settings/preferred-username", {}, **side.login("eva3"))


# --- run, status, stop ------------------------------------------------------------------------------------------------


@case("run-experiment LOCAL")
def run_local(side: Side) -> Reply:
    return side.run(side.experiment())


@case("run-experiment over SSH")
def run_ssh(side: Side) -> Reply:
    return side.run(side.experiment(), "SSH")


@case("run-experiment, the port typed in the GUI (a string)")
def run_typed_port(side: Side) -> Reply:
    params = {"SSH": {"USERNAME": side.sshd.user, "PORT": str(side.sshd.port)}}
    body = {"expid": side.experiment(), "profile_name": "SSH_OPEN", "profile_params": params}
    return side.post("run-experiment", body)


@case("run-experiment, fields typed and erased (empty strings)")
def run_erased(side: Side) -> Reply:
    params = {"SSH": {"USERNAME": "", "PORT": ""}, "MODULES": ""}
    return side.post("run-experiment", {"expid": side.experiment(), "profile_name": "SSH", "profile_params": params})


@case("run-experiment, everything typed")
def run_all_typed(side: Side) -> Reply:
    params = {"RUNNER_TYPE": "LOCAL", "MODULE_LOADER_TYPE": "VENV", "MODULES": str(side.account.venv)}
    return side.post("run-experiment", {"expid": side.experiment(), "profile_name": "OPEN", "profile_params": params})


@case("run-experiment, an open parameter of the profile is missing")
def run_incomplete(side: Side) -> Reply:
    return side.run(side.experiment(), "VENV_OPEN")


@case("run-experiment, SSH user missing")
def run_without_user(side: Side) -> Reply:
    return side.run(side.experiment(), "SSH_OPEN")


@case("run-experiment, profile that does not exist")
def run_unknown_profile(side: Side) -> Reply:
    return side.run(side.experiment(), "NOBODY")


@case("run-experiment, no expid")
def run_without_expid(side: Side) -> Reply:
    return side.post("run-experiment", {"profile_name": "LOCAL", "profile_params": {}})


@case("run-experiment, expid of the wrong type")
def run_number(side: Side) -> Reply:
    return side.post("run-experiment", {"expid": 7, "profile_name": "LOCAL", "profile_params": {}})


@case("run-experiment, body that is not JSON")
def run_no_json(side: Side) -> Reply:
    return side.post("run-experiment", b"{expid")


@case("run-experiment of an experiment that is already running")
def run_twice(side: Side) -> Reply:
    expid = running(side, "LOCAL")
    return side.run(expid)


@case("run-experiment, venv that does not exist")
def run_no_venv(side: Side) -> Reply:
    params = {"MODULES": "/nowhere/venv"}
    body = {"expid": side.experiment(), "profile_name": "VENV_OPEN", "profile_params": params}
    return side.post("run-experiment", body)


@case("run-experiment, all optional members are null")
def run_nulls(side: Side) -> Reply:
    body = {"expid": side.experiment(), "profile_name": "LOCAL", "profile_params": None, "command_params": None}
    return side.post("run-experiment", body)


@case("run-experiment, empty command_params")
def run_no_params(side: Side) -> Reply:
    return side.post("run-experiment", {"expid": side.experiment(), "profile_name": "LOCAL", "command_params": {}})


def running(side: Side, profile: str, **headers: str) -> str:
    """Start an experiment that runs for a minute and return its expid."""
    expid = side.experiment()
    side.account.control("run", expid, SLEEP=60)
    assert side.run(expid, profile, **headers).status == 200
    return expid


@case("get-runner-run-status of a run LOCAL")
def status_active(side: Side) -> Reply:
    return side.status(running(side, "LOCAL"))


@case("get-runner-run-status of a run over SSH")
def status_active_ssh(side: Side) -> Reply:
    return side.status(running(side, "SSH"))


@case("get-runner-run-status, LOCAL run that ended with exit code 0")
def status_completed(side: Side) -> Reply:
    expid = side.experiment()
    side.run(expid)
    return side.status_after(expid)


@case("get-runner-run-status, SSH run that ended with exit code 0")
def status_completed_ssh(side: Side) -> Reply:
    expid = side.experiment()
    side.run(expid, "SSH")
    return side.status_after(expid)


@case("get-runner-run-status, run that failed")
def status_failed(side: Side) -> Reply:
    expid = side.experiment()
    side.account.control("run", expid, EXIT=1)
    side.run(expid)
    return side.status_after(expid)


@case("get-runner-run-status, run whose process was killed over SSH")
def status_killed(side: Side) -> Reply:
    expid = running(side, "SSH")
    pid = side.status(expid).body["pid"]
    side.sshd.ssh(f"kill -KILL {pid}")
    try:
        return side.status_after(expid, 15)
    except AssertionError:
        return side.status(expid)


@case("get-runner-run-status, never run")
def status_never(side: Side) -> Reply:
    return side.status(side.experiment())


@case("get-runner-run-status, no expid")
def status_without_expid(side: Side) -> Reply:
    return side.post("get-runner-run-status", {})


@case("stop-experiment LOCAL")
def stop_local(side: Side) -> Reply:
    return side.post("stop-experiment", {"expid": running(side, "LOCAL")})


@case("stop-experiment over SSH, sshd not on port 22")
def stop_ssh(side: Side) -> Reply:
    return side.post("stop-experiment", {"expid": running(side, "SSH")})


@case("get-runner-run-status after stop-experiment LOCAL")
def status_stopped(side: Side) -> Reply:
    expid = running(side, "LOCAL")
    side.post("stop-experiment", {"expid": expid})
    return side.status(expid)


@case("stop-experiment, never run")
def stop_never(side: Side) -> Reply:
    return side.post("stop-experiment", {"expid": side.experiment()})


@case("stop-experiment, the run has ended")
def stop_ended(side: Side) -> Reply:
    expid = side.experiment()
    side.run(expid)
    side.status_after(expid)
    return side.post("stop-experiment", {"expid": expid})


# --- set-job-status, create-experiment, update-experiment-description ------------------------------------------------


@case("set-job-status LOCAL")
def set_local(side: Side) -> Reply:
    return side.post("set-job-status", set_status(side.experiment()))


@case("set-job-status over SSH")
def set_ssh(side: Side) -> Reply:
    return side.post("set-job-status", set_status(side.experiment(), "SSH"))


@case("set-job-status by filters, names and the other filters null")
def set_by_filters(side: Side) -> Reply:
    params = {"filter_status": "FAILED", "filter_type": "SIM", "filter_chunks": "[ 20000101 [ fc0 [1] ] ]"}
    nulls = dict.fromkeys(("job_names_list", "filter_type_chunk", "filter_type_chunk_split"))
    return side.post("set-job-status", set_status(side.experiment(), **params, **nulls))


@case("set-job-status to FAILED, which the GUI offers and Autosubmit rejects")
def set_failed(side: Side) -> Reply:
    expid = side.experiment()
    said = "error: argument -t/--status_final: invalid choice: 'FAILED' (choose from 'READY', 'COMPLETED')"
    side.account.control("setstatus", expid, PRINT_ERR=said, LAST=1, EXIT=1)
    return side.post("set-job-status", set_status(expid, final_status="FAILED"))


@case("set-job-status that Autosubmit rejects")
def set_refused(side: Side) -> Reply:
    expid = side.experiment()
    side.account.control("setstatus", expid, FAIL="There was an error", ECODE=7011, EXIT=99)
    return side.post("set-job-status", set_status(expid))


@case("set-job-status, no command_params")
def set_without(side: Side) -> Reply:
    return side.post("set-job-status", {"expid": side.experiment(), "profile_name": "LOCAL", "profile_params": {}})


@case("set-job-status, profile that does not exist")
def set_unknown_profile(side: Side) -> Reply:
    return side.post("set-job-status", set_status(side.experiment(), "NOBODY"))


@case("create-experiment")
def create_experiment(side: Side) -> Reply:
    return side.post("create-experiment", create())


@case("create-experiment over SSH")
def create_ssh(side: Side) -> Reply:
    return side.post("create-experiment", {**create(), "profile_name": "SSH"})


@case("create-experiment, only a description")
def create_described(side: Side) -> Reply:
    body = {"profile_name": "LOCAL", "command_params": {"description": "of the compatibility suite"}}
    return side.post("create-experiment", body)


@case("create-experiment, testcase")
def create_testcase(side: Side) -> Reply:
    return side.post("create-experiment", create(testcase=True))


@case("create-experiment, description with shell text in it")
def create_hostile(side: Side) -> Reply:
    """Return the reply with the description that Autosubmit received, which is what differs."""
    reply = side.post("create-experiment", create(description='a "b" $(echo executed) `echo executed`'))
    (given,) = (word for word in side.account.calls("expid")[-1] if "executed" in word)
    return Reply(reply.status, {**reply.body, "description": given.rpartition("=")[2]}, reply.headers, reply.seconds)


@case("create-experiment without a description")
def create_without(side: Side) -> Reply:
    body = create()
    del body["command_params"]["description"]
    return side.post("create-experiment", body)


@case("create-experiment that Autosubmit rejects")
def create_refused(side: Side) -> Reply:
    side.account.control("expid", FAIL="Experiment not found", ECODE=7012, EXIT=100)
    try:
        return side.post("create-experiment", create(copy="a000"))
    finally:
        side.account.control("expid")


@case("update-experiment-description")
def update(side: Side) -> Reply:
    return side.post("update-experiment-description", describe(side.experiment(), 'it\'s "new"; $HOME & `more`'))


@case("update-experiment-description over SSH")
def update_ssh(side: Side) -> Reply:
    return side.post("update-experiment-description", describe(side.experiment(), "new", "SSH"))


@case("update-experiment-description, all optional members are null")
def update_nulls(side: Side) -> Reply:
    body = describe(side.experiment(), "new") | {"profile_params": None, "command_params": None}
    return side.post("update-experiment-description", body)


@case("update-experiment-description to an empty text")
def update_empty(side: Side) -> Reply:
    return side.post("update-experiment-description", describe(side.experiment(), ""))


@case("update-experiment-description, no description")
def update_without(side: Side) -> Reply:
    body = describe(side.experiment(), "")
    del body["description"]
    return side.post("update-experiment-description", body)


@case("update-experiment-description of an experiment that does not exist")
def update_unknown(side: Side) -> Reply:
    return side.post("update-experiment-description", describe("zzzz", "new"))


# --- toggles ----------------------------------------------------------------------------------------------------------


@case("all endpoints off: GET configuration/endpoints", on=False)
def off_endpoints(side: Side) -> Reply:
    return side.get("/v4/runners/configuration/endpoints")


@case("all endpoints off: run-experiment", on=False)
def off_run(side: Side) -> Reply:
    return side.run(side.experiment())


@case("all endpoints off: stop-experiment", on=False)
def off_stop(side: Side) -> Reply:
    return side.post("stop-experiment", {"expid": side.experiment()})


@case("all endpoints off: get-runner-run-status", on=False)
def off_status(side: Side) -> Reply:
    side.switch(on=True)
    expid = running(side, "LOCAL")
    side.switch(on=False)
    return side.status(expid)


@case("all endpoints off: set-job-status", on=False)
def off_set(side: Side) -> Reply:
    return side.post("set-job-status", set_status(side.experiment()))


@case("all endpoints off: create-experiment", on=False)
def off_create(side: Side) -> Reply:
    return side.post("create-experiment", create())


@case("all endpoints off: update-experiment-description", on=False)
def off_update(side: Side) -> Reply:
    return side.post("update-experiment-description", describe(side.experiment(), "new"))


# --- protection -------------------------------------------------------------------------------------------------------

ENDPOINTS = "/v4/runners/configuration/endpoints"
SCRIPTS = {"Authorization": f"Bearer {SCRIPT_TOKEN}"}


@case("PROTECTION_LEVEL ALL: GET configuration/endpoints without credentials", level="ALL")
def all_nobody(side: Side) -> Reply:
    return side.get(ENDPOINTS)


@case("PROTECTION_LEVEL ALL: GET configuration/endpoints, signed in", level="ALL")
def all_login(side: Side) -> Reply:
    return side.get(ENDPOINTS, **side.login("eva"))


@case("PROTECTION_LEVEL ALL: GET configuration/endpoints with the token for scripts", level="ALL")
def all_script(side: Side) -> Reply:
    return side.get(ENDPOINTS, **SCRIPTS)


@case("PROTECTION_LEVEL ALL: run-experiment without credentials", level="ALL")
def all_run_nobody(side: Side) -> Reply:
    return side.run(side.experiment())


@case("PROTECTION_LEVEL ALL: run-experiment, signed in", level="ALL")
def all_run_login(side: Side) -> Reply:
    return side.run(side.experiment(), **side.login("eva"))


@case("PROTECTION_LEVEL ALL: run-experiment with the token for scripts", level="ALL")
def all_run_script(side: Side) -> Reply:
    return side.run(side.experiment(), **SCRIPTS)


@case("PROTECTION_LEVEL ALL: POST preferred-username with the token for scripts (whose user_id it is)", level="ALL")
def all_username_script(side: Side) -> Reply:
    return side.post("/v4/user-settings/preferred-username", {"preferred_username": "eva"}, **SCRIPTS)


@case("PROTECTION_LEVEL WRITEONLY: GET configuration/endpoints without credentials", level="WRITEONLY")
def writeonly_endpoints(side: Side) -> Reply:
    return side.get(ENDPOINTS)


@case("PROTECTION_LEVEL WRITEONLY: get-runner-run-status without credentials", level="WRITEONLY")
def writeonly_status(side: Side) -> Reply:
    return side.status(running(side, "LOCAL", **side.login("eva")))


@case("PROTECTION_LEVEL WRITEONLY: run-experiment without credentials", level="WRITEONLY")
def writeonly_run(side: Side) -> Reply:
    return side.run(side.experiment())


@case("PROTECTION_LEVEL WRITEONLY: run-experiment, signed in", level="WRITEONLY")
def writeonly_run_login(side: Side) -> Reply:
    return side.run(side.experiment(), **side.login("eva"))
