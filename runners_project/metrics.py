"""What this process counts and measures, for Prometheus. `runners/services/monitoring.py` adds the database's state.

The processes of a service add up their values in files (PROMETHEUS_MULTIPROC_DIR, see docs/operations.md). Labels have
few values, all from our code: routes, names of commands, codes of errors. No label names a person, a machine or an
experiment.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from prometheus_client import Counter, Gauge, Histogram

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

REQUESTS = Counter("autosubmit_runners_requests", "Requests by route and status.", ["method", "route", "status"])
REQUEST_SECONDS = Histogram(
    "autosubmit_runners_request_seconds", "Time to answer a request.", ["route"], buckets=SECONDS
)
COMMANDS = Counter(
    "autosubmit_runners_commands", "Commands by outcome: ok, or the code of the error.", ["command", "outcome"]
)
COMMAND_SECONDS = Histogram("autosubmit_runners_command_seconds", "Time of a command.", ["command"], buckets=SECONDS)
MACHINE_SECONDS = Histogram(
    "autosubmit_runners_machine_seconds",
    "Time of one exchange with a machine (launch, probe, log, ...): answered, unreachable or unknown.",
    ["runner", "outcome"],
    buckets=SECONDS,
)
RUNS_ENDED = Counter(
    "autosubmit_runners_runs_ended", "Runs that have ended, by status and reason.", ["status", "reason"]
)
TASKS = Counter("autosubmit_runners_tasks", "Tasks of the workers by outcome: done or error.", ["task", "outcome"])
TASK_SECONDS = Histogram("autosubmit_runners_task_seconds", "Time of a task.", ["task"], buckets=SECONDS)
WEBHOOK_ATTEMPTS = Counter("autosubmit_runners_webhook_attempts", "Attempts to deliver a webhook message.", ["outcome"])
MAIL_ATTEMPTS = Counter("autosubmit_runners_mail_attempts", "Attempts to send a mail.", ["outcome"])
SSH_LOGINS = Counter("autosubmit_runners_ssh_logins", "SSH connections that were tried to open.", ["outcome"])
# `livesum`: the sum of the processes that are alive, see `monitoring.exposition`.
SSH_CONNECTIONS = Gauge(
    "autosubmit_runners_ssh_connections", "Open SSH connections in the pools.", multiprocess_mode="livesum"
)


class MetricsMiddleware:
    """Middleware that counts requests. The route is the pattern of the URL, or `unmatched`."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        start = time.perf_counter()
        response = self.get_response(request)
        match = request.resolver_match
        route = match.route if match else "unmatched"
        method = request.method if request.method in METHODS else "other"
        REQUESTS.labels(method, route, response.status_code).inc()
        REQUEST_SECONDS.labels(route).observe(time.perf_counter() - start)
        return response
