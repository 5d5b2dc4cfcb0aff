"""The users: what they ask, in an order that depends on the seed only, and every request with its answer."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from soak.site import Machine, Site
from tests.support.processes import is_alive, with_environment

COMMAND = "/v4/runners/command/"
PROFILES = ("HERE", "m1", "m2", "m3")
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
LONGEST = 60.0  # seconds for one answer; the documented bound of a command is longer than any deadline of the soak
# A retry with the same Idempotency-Key may execute the command: it was certainly not executed.
CERTAINLY_NOT = frozenset(
    {
        *("runner_unreachable", "host_key_unknown", "host_key_changed", "authentication_failed"),
        *("machine_busy", "account_busy", "too_many_commands", "database_unavailable", "run_directory_unusable"),
    }
)
NOT_KNOWN = frozenset({"outcome_unknown", "command_timed_out", "idempotency_in_progress", "internal_error"})


@dataclass
class Attempt:
    """One request and its answer. `status` 0: no answer. `answer`: the JSON object, empty if it is not of the service.

    `intent`: the requests with the same number want the same thing to be done once. Times are seconds since 1970.
    """

    intent: int
    command: str
    request: dict[str, Any]
    key: str
    request_id: str
    sent: float
    done: float = 0.0
    status: int = 0
    answer: dict[str, Any] = field(default_factory=dict)
    is_replayed: bool = False

    @property
    def code(self) -> str:
        return str(self.answer.get("code", ""))

    @property
    def is_answered(self) -> bool:
        """Return True if the service has answered. A proxy without a server answers HTML."""
        return bool(self.answer)

    @property
    def succeeded(self) -> bool:
        return self.is_answered and self.status < 300

    @property
    def is_certainly_not(self) -> bool:
        """Return True if the answer says that this request has executed nothing."""
        if not self.is_answered or self.succeeded or self.code in NOT_KNOWN or self.code == "stopped_during_launch":
            return False
        return self.code in CERTAINLY_NOT or self.status < 500 or self.command == "run-experiment"

    @property
    def is_final(self) -> bool:
        return self.is_answered and self.code not in NOT_KNOWN and self.code not in CERTAINLY_NOT


@dataclass(frozen=True)
class Seen:
    """An answer about run `run` or about an operation."""

    what: str  # status, log or operation
    number: int
    sent: float
    done: float
    status: int
    answer: dict[str, Any]


@dataclass
class Records:
    """Everything that the users have seen. Lists are only appended to."""

    attempts: list[Attempt] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    pages: list[tuple[str, int]] = field(default_factory=list)
    left_after_stop: list[tuple[int, str, list[int]]] = field(default_factory=list)  # run, expid, processes
    stops: int = 0
    bugs: list[str] = field(default_factory=list)  # of the soak itself


class Client:
    """Requests through nginx, or to one node."""

    def __init__(self, port: int, headers: dict[str, str]) -> None:
        self._port, self._headers = port, headers

    def send(
        self, method: str, path: str, body: Any = None, *, timeout: float = LONGEST, **headers: str
    ) -> tuple[int, bytes, Any]:
        """Return status, body and headers; status 0 if the connection broke or the answer took too long."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=timeout)
        try:
            data = None if body is None else json.dumps(body).encode()
            sent = {"Content-Type": "application/json", **self._headers, **headers}
            connection.request(method, path, data, sent)
            response = connection.getresponse()
            return response.status, response.read(), response.headers
        except (OSError, http.client.HTTPException):
            return 0, b"", {}
        finally:
            connection.close()


def parsed(data: bytes) -> dict[str, Any]:
    with suppress(ValueError):
        found = json.loads(data)
        return found if isinstance(found, dict) else {}
    return {}


class Numbers:
    """Numbers that all users share, and expids made of them."""

    def __init__(self) -> None:
        self._next, self._lock = 0, threading.Lock()

    def __call__(self) -> int:
        with self._lock:
            self._next += 1
            return self._next

    def expid(self) -> str:
        number, text = self(), ""
        for _ in range(4):
            number, digit = divmod(number, 36)
            text = DIGITS[digit] + text
        return "s" + text


class User(threading.Thread):
    """One person who does one thing after the other until `enough` is set."""

    def __init__(
        self, site: Site, seed: str, number: int, records: Records, numbers: Numbers, enough: threading.Event
    ) -> None:
        super().__init__(name=f"user{number}", daemon=True)
        self.site, self.records, self.numbers, self.enough = site, records, numbers, enough
        self.rng = random.Random(f"{seed}-user-{number}")
        self.headers = {"Authorization": f"Bearer {site.tokens[number]}"}
        self.client = Client(site.port, self.headers)
        self.prefix = f"u{number}"

    def run(self) -> None:
        deeds = [self.life, self.race, self.operation, self.create, self.set_status, self.look_around]
        while not self.enough.is_set():
            (deed,) = self.rng.choices(deeds, [10, 1, 2, 1, 2, 2])
            try:
                deed()
            except Exception as error:  # noqa: BLE001 -- a bug of the soak must not end the load unseen
                self.records.bugs.append(f"{deed.__name__}: {error!r}")
            self.pause(0.1, 0.8)

    def pause(self, least: float, most: float) -> None:
        time.sleep(self.rng.uniform(least, most))

    # --- what a user does ---

    def life(self) -> None:
        """Start a run, look at it, maybe stop it, and see its end. Sometimes run the experiment again."""
        profile, expid = self.rng.choice(PROFILES), self.numbers.expid()
        for _ in range(self.rng.choice([1, 1, 1, 1, 2])):
            (code,) = self.rng.choices([0, 1, 3], [8, 1, 1])
            (ignore,) = self.rng.choices(["", "INT", "INT TERM"], [8, 1, 1])
            seconds = self.rng.choice([1, 3, 6, 10, 15, 25])
            self.prepare(profile, expid, "run", SLEEP=seconds, EXIT=code, IGNORE=ignore)
            started = self.until_known("run-experiment", {"expid": expid, "profile_name": profile})
            if not started.succeeded:
                return
            self.follow(int(started.answer["runner_id"]), expid, profile, seconds)

    def follow(self, run: int, expid: str, profile: str, seconds: float) -> None:
        stop_at = self.rng.randrange(6) if self.rng.random() < 0.4 else -1
        deadline = time.monotonic() + seconds + 60
        turn = 0
        while time.monotonic() < deadline:
            if turn == stop_at:
                self.stop(expid, profile)
            answer = self.status(run, expid, profile)
            if answer.get("status") in ("COMPLETED", "TERMINATED"):
                self.log(run)
                return
            if self.rng.random() < 0.1:
                self.look_around(run)
            turn += 1
            self.pause(0.3, 2.0)

    def stop(self, expid: str, profile: str) -> None:
        body: dict[str, Any] = {"expid": expid, "profile_name": profile}
        if self.rng.random() < 0.15:
            body["force"] = True
        stopped = self.until_known("stop-experiment", body)
        if stopped.succeeded and stopped.answer["reason"] in ("stopped", "killed", "failed", "lost"):
            left = [pid for pid in with_environment("SOAK_RUN", expid) if is_alive(pid)]
            self.records.stops += 1
            if left:
                self.records.left_after_stop.append((int(stopped.answer["runner_id"]), expid, left))

    def race(self) -> None:
        """Start one experiment several times at once, on both nodes: one run may start."""
        profile, expid = self.rng.choice(PROFILES), self.numbers.expid()
        self.prepare(profile, expid, "run", SLEEP=8)
        body = {"expid": expid, "profile_name": profile}
        ports = [node.app.port for node in self.site.nodes.values()] * 2
        found: list[Attempt] = []

        def once(port: int, key: str) -> None:
            client = Client(port, self.headers)
            found.append(self.attempt("run-experiment", body, self.numbers(), key, {}, client=client))

        threads = [threading.Thread(target=once, args=(port, self.new_key()), daemon=True) for port in ports]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for attempt in found:
            if attempt.succeeded:
                self.follow(int(attempt.answer["runner_id"]), expid, profile, 8)
                return

    def operation(self) -> None:
        """Make a job list as an operation."""
        profile, expid = self.rng.choice(PROFILES), self.numbers.expid()
        self.prepare(profile, expid, "create", SLEEP=self.rng.choice([0, 1, 3]))
        started = self.until_known("create-job-list", {"expid": expid, "profile_name": profile}, Prefer="respond-async")
        number = started.answer.get("operation_id")
        deadline = time.monotonic() + 60
        while number and time.monotonic() < deadline:
            answer = self.see("operation", int(number), "GET", f"/v4/runners/operations/{number}")
            if answer.get("status") in ("succeeded", "failed", "unknown"):
                return
            self.pause(0.3, 1.0)

    def create(self) -> None:
        """Create an experiment. Its description is found in the journal of the machine."""
        profile = self.rng.choice(PROFILES)
        params = {"description": f"soak {self.new_key()}.", "hpc": "local"}
        self.until_known("create-experiment", {"profile_name": profile, "command_params": params}, always_key=True)

    def set_status(self) -> None:
        """Set the status of a job. Its name is found in the journal of the machine."""
        profile, expid = self.rng.choice(PROFILES), self.numbers.expid()
        self.prepare(profile, expid, "setstatus", SLEEP=self.rng.choice([0, 0, 1]))
        params = {"final_status": "READY", "job_names_list": [f"{expid}_{self.new_key()}."]}
        body = {"expid": expid, "profile_name": profile, "command_params": params}
        self.until_known("set-job-status", body, always_key=True)

    def look_around(self, run: int = 0) -> None:
        """Look at pages, lists and logs, as a viewer in a browser and as a script."""
        browser = Client(self.site.port, {"Cookie": f"sessionid={self.site.session}"})
        paths = ["/", "/runs", "/history", "/machines"] + [f"/runs/{run}", f"/runs/{run}/log"] * (run > 0)
        path = self.rng.choice(paths)
        status, _, _ = browser.send("GET", path, timeout=30)
        self.records.pages.append((path, status))
        path = self.rng.choice(["/v4/runners/runs?page_size=20", "/v4/runners/machines", "/readyz"])
        status, _, _ = self.client.send("GET", path, timeout=30)
        self.records.pages.append((path, status))

    # --- requests ---

    def prepare(self, profile: str, expid: str, command: str, **values: str | float) -> None:
        for home in self.site.homes_of(profile):
            assert isinstance(home, Machine)
            home.experiment(expid)
            home.control(command, expid, **values)

    def new_key(self) -> str:
        return f"{self.prefix}x{self.numbers()}"

    def until_known(self, command: str, body: dict[str, Any], *, always_key: bool = False, **headers: str) -> Attempt:
        """Send a command, and repeat it with its Idempotency-Key until its outcome is known, at most for 90 s.

        One in five commands has no key, and is sent once. One in eight requests is given up by the client early.
        """
        intent = self.numbers()
        key = self.new_key() if always_key or self.rng.random() < 0.8 else ""
        deadline = time.monotonic() + 90
        while True:
            timeout = self.rng.uniform(0.05, 1.5) if self.rng.random() < 0.12 else LONGEST
            attempt = self.attempt(command, body, intent, key, headers, timeout=timeout)
            if attempt.is_final or not key or time.monotonic() > deadline:
                return attempt
            self.pause(0.3, 1.5)

    def attempt(
        self,
        command: str,
        body: dict[str, Any],
        intent: int,
        key: str,
        headers: dict[str, str],
        *,
        client: Client | None = None,
        timeout: float = LONGEST,
    ) -> Attempt:
        attempt = Attempt(intent, command, body, key, f"soak-{self.numbers()}", time.time())
        self.records.attempts.append(attempt)
        more = {"X-Request-ID": attempt.request_id, **headers} | ({"Idempotency-Key": key} if key else {})
        status, data, answered = (client or self.client).send("POST", COMMAND + command, body, timeout=timeout, **more)
        attempt.answer = parsed(data)
        attempt.is_replayed = bool(answered) and answered.get("Idempotent-Replayed") == "true"
        attempt.status, attempt.done = status, time.time()
        return attempt

    def status(self, run: int, expid: str, profile: str) -> dict[str, Any]:
        body = {"expid": expid, "profile_name": profile}
        return self.see("status", run, "POST", COMMAND + "get-runner-run-status", body)

    def log(self, run: int) -> dict[str, Any]:
        return self.see("log", run, "GET", f"/v4/runners/runs/{run}/log?offset=0&limit=20000")

    def see(self, what: str, number: int, method: str, path: str, body: Any = None) -> dict[str, Any]:
        sent = time.time()
        status, data, _ = self.client.send(method, path, body, timeout=30)
        seen = Seen(what, number, sent, time.time(), status, parsed(data))
        self.records.seen.append(seen)
        return seen.answer if status == 200 else {}


def start_users(site: Site, seed: str, count: int, records: Records, enough: threading.Event) -> list[User]:
    numbers = Numbers()
    users = [User(site, seed, number, records, numbers, enough) for number in range(count)]
    for user in users:
        user.start()
    return users
