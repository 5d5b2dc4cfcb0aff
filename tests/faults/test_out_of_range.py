"""Numbers and texts that fit no column, in every place of a request, on PostgreSQL and SQLite.

SQLite stores a NUL and a text that is longer than its column; PostgreSQL rejects both. No request may end as a 500.
"""

from __future__ import annotations

import http.client
import json
import secrets
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.environments import StubAccount
from tests.support.postgres import Postgres
from tests.support.servers import AppServer

PASSWORD = "a password of the tests 4711"
NUMBERS = [
    "0",
    "-1",
    "2147483648",
    "9223372036854775807",
    "9223372036854775808",
    "9" * 25,
    "9" * 5000,
    "1e3",
    "٣",
    "nan",
]
TEXTS = ["\0", "a\0b", "x" * 5000, "\u202e", "\ud800", "'", "%", "\\", "\n", "💥" * 300]
RUN_PATHS = ["", "/log", "/state", "/details", "/log/download", "/stop"]
API_PATHS = ["runs/{}", "runs/{}/log", "operations/{}", "operations/{}/log"]
QUERIES = {
    "/v4/runners/runs": [
        *("expid", "status", "profile_name", "runner", "host", "user", "started_by", "created_after", "created_before"),
        *("ordering", "page_size", "cursor"),
    ],
    "/v4/runners/runs/1/log": ["offset", "limit", "tail", "encoding"],
    "/history": ["days", "by", "expid"],
    "/experiments": ["expid"],
    "/experiments/a000": ["profile_name"],
    "/start": ["expid", "profile_name", "profile"],
    "/experiments/set-status": ["expid", "profile_name"],
    "/runs/1/log": ["from", "before", "style"],
    "/runs/1/state": ["phase"],
    "/login": ["next"],
}
ADMIN_LISTS = [
    *("runners/runnerrun", "runners/operation", "runners/auditrecord", "runners/apitoken", "runners/webhook"),
    *("runners/webhookdelivery", "runners/trustedhostkey", "profiles/runnerprofile", "auth/user", "auth/group"),
]
ADMIN_QUERIES = [
    "q",
    "p",
    "o",
    "all",
    "e",
    "status",
    "status__exact",
    "profile_name",
    "created__gte",
    "id__exact",
    "host",
]
BODIES: dict[str, dict[str, Any]] = {
    "command/run-experiment": {"expid": "a000", "profile_name": "HERE", "profile_params": {}},
    "command/get-runner-run-status": {"expid": "a000"},
    "command/stop-experiment": {"expid": "a000", "force": False},
    "command/update-experiment-description": {"expid": "a000", "profile_name": "HERE", "description": "x"},
    "runs/1/abandon": {"reason": "x"},
    "profiles/HERE/check": {"profile_params": {"SSH": {"HOST": "h", "PORT": 22, "USER": "u"}}},
}


class Probe:
    """A client that sends raw requests without cleaning them, and collects those that end as a 500."""

    def __init__(self, app: AppServer) -> None:
        self.app = app
        self.bad: list[str] = []
        self.sent = 0
        self.cookie = ""

    @property
    def is_postgresql(self) -> bool:
        return self.app.environment["DATABASE_URL"].startswith("postgres")

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.app.port, timeout=60)
        try:
            all_headers = {"Cookie": self.cookie} if self.cookie else {}
            connection.request(method, path, body, all_headers | {k.replace("_", "-"): v for k, v in headers.items()})
            answer = connection.getresponse()
            answer.read(200_000)
            self.sent += 1
            if answer.status >= 500 and answer.status != 502:
                self.bad.append(f"{answer.status} {method} {path[:150]} {(body or b'')[:150]!r} {headers}")
            return answer.status, answer.headers
        finally:
            connection.close()

    def sign_in(self) -> None:
        _, headers = self.send("GET", "/login")
        token = headers["Set-Cookie"].partition("csrftoken=")[2].partition(";")[0]
        form = f"csrfmiddlewaretoken={token}&username=ada&password={quote(PASSWORD)}".encode()
        status, headers = self.send(
            "POST", "/login", form, Cookie=f"csrftoken={token}", Content_Type="application/x-www-form-urlencoded"
        )
        assert status == 302
        cookies = [value.partition(";")[0] for name, value in headers.items() if name.lower() == "set-cookie"]
        self.cookie = "; ".join(cookies)


MAKE = f"""
from django.contrib.auth.models import User
from runners.models import RunnerRun, Operation
User.objects.create_superuser("ada", "", {PASSWORD!r})
config = {{"RUNNER_TYPE": "LOCAL", "MODULE_LOADER_TYPE": "NO_MODULE", "MODULES": []}}
RunnerRun.objects.create(expid="a000", config=config, runner="LOCAL", status="TERMINATED", reason="lost")
Operation.objects.create(kind="create-job-list", key="k", expid="a000", config=config, timeout=1, status="unknown")
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def probe(request: pytest.FixtureRequest, make_app: Callable[..., AppServer], account: StubAccount) -> Iterator[Probe]:
    env = {"THROTTLE_COMMANDS": "", "THROTTLE_READS": "", "THROTTLE_FAILED_LOGINS": ""}
    if request.param == "postgresql":
        postgres: Postgres = request.getfixturevalue("postgres")
        env["DATABASE_URL"] = postgres.create(f"range_{secrets.token_hex(4)}", template="template_of_tests")
    app = make_app(account=account, env=env, threads=4)
    app.manage("shell", "-v0", "-c", MAKE)
    found = Probe(app)
    found.sign_in()
    yield found


def encoded(text: str) -> str:
    return quote(text.encode("utf-8", "surrogatepass"), safe="")


def test_no_number_or_text_of_a_request_is_a_server_error(probe: Probe) -> None:
    values = [*NUMBERS, *TEXTS] if probe.is_postgresql else NUMBERS  # SQLite accepts any text
    for value in map(encoded, values):
        for path in API_PATHS:
            probe.send("GET", f"/v4/runners/{path.format(value)}")
        for path in RUN_PATHS:
            probe.send("GET", f"/runs/{value}{path}")
        for path in (f"/experiments/{value}", f"/v4/runners/profiles/{value}/requirements", f"/{value}"):
            probe.send("GET", path)
        for path, names in QUERIES.items():
            for name in names:
                probe.send("GET", f"{path}?{name}={value}")
    for value in map(encoded, values[2:8]):
        for model in ADMIN_LISTS:
            probe.send("GET", f"/admin/{model}/{value}/change/")
            for name in ADMIN_QUERIES:
                probe.send("GET", f"/admin/{model}/?{name}={value}")
    for command, body in BODIES.items():
        for name in body:
            for value in [*values, 2**63, 1e400, 10**400, [2**63]]:
                data = json.dumps({**body, name: value}).encode()
                probe.send("POST", f"/v4/runners/{command}", data, Content_Type="application/json")
    for header in ("Idempotency_Key", "Prefer", "Authorization", "X_Forwarded_For", "Accept", "Accept_Language"):
        for value in [
            "9" * 5000,
            "x" * 4000,
            "Bearer " + "9" * 3000,
            "respond-async, wait=" + "9" * 5000,
            "\u00e9" * 300,
        ]:
            data = json.dumps(BODIES["command/update-experiment-description"]).encode()
            probe.send(
                "POST",
                "/v4/runners/command/update-experiment-description",
                data,
                Content_Type="application/json",
                **{header: value},
            )
    for cookie in ('sessionid="\\000"', "sessionid=" + "x" * 3000, 'csrftoken="\\000"; sessionid="a\\000b"'):
        for path in ("/", "/admin/", "/v4/runners/runs", "/history"):
            probe.send("GET", path, Cookie=cookie)
    for field in ("username", "password", "next"):
        for value in TEXTS:
            form = f"{field}={encoded(value)}".encode()
            probe.send("POST", "/login", form, Content_Type="application/x-www-form-urlencoded")
    assert probe.bad == []
