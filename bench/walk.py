"""Ask every address of the service that reads, and print the slow ones: `python -m bench.walk [--only REGEX]`.

The addresses are derived: from the URL configuration, from the admin's registry (each value of each filter, pairs of
them, each order, searches, deep pages, the pages of old and new rows), from the OpenAPI document (each parameter, pairs
of them, deep cursors) and from the form of the list of runs. Needs a server's environment with the PostgreSQL that
`bench.large_site` has filled. No machine is asked: each SSH connection fails at once, and stored states count as fresh.

A superuser asks every address. The API and the pages are also asked by a person who does not see all runs.

With `--plans`, the plans count instead of times: no statement may read a big table from beginning to end, because
no index serves it. This needs some ten thousand rows only. `tests/faults/test_walk.py` does it, with `--few` addresses.

On a loaded machine the times say little. With `--cpu`, the processor time of this process and of its PostgreSQL backend
counts instead: it is about the time of the answer on a quiet machine that has the table in memory. PostgreSQL must then
run on this machine.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import quote, urlencode

import django

SLOW = 0.2  # seconds
ROUNDS = 3
CONTROL = "/v4/runners/runs?page_size=1"
ABSENT = "nothinglikethis"
BIG = re.compile(r"runners_(runnerrun|auditrecord|operation|webhookdelivery|mail)\b")
MOST_QUERIES = 130  # of one answer
# Addresses that end the session, or answer with a whole document that does not depend on rows.
LEFT_OUT = re.compile(r"^/(logout|admin/logout|docs|openapi\.)")


@dataclass(frozen=True, slots=True)
class Address:
    """An address, and who asks: `root` sees everything, `person` does not see the runs of some profiles."""

    path: str
    who: str = "root"


@dataclass(slots=True)
class Answer:
    """The fastest answer of an address. Times in seconds; `queries`: (seconds, statement, parameters).

    `cpu` and `database_cpu`: processor time of this process and of its backend.
    """

    address: Address
    status: int
    seconds: float
    cpu: float
    database_cpu: float
    size: int
    queries: list[tuple[float, str, Any]] = field(default_factory=list)

    @property
    def sql(self) -> float:
        return sum(seconds for seconds, _, _ in self.queries)

    def __str__(self) -> str:
        parts = (self.seconds, self.sql, self.cpu, self.database_cpu)
        times = " ".join(f"{1000 * each:7.0f}" for each in parts)
        return f"{self.status} {times} {len(self.queries):4} {self.size:8}  {self.address.who:6} {self.address.path}"


HEAD = "         ms     SQL     CPU   DBCPU SQL#    bytes  who    address"


# --- who asks, and how ------------------------------------------------------------------------------------------------


class Walker:
    """Asks addresses in this process, and records what each statement costs."""

    def __init__(self, *, by_cpu: bool = False, by_plan: bool = False) -> None:
        from django.contrib.auth.models import User
        from django.test import Client

        self._by_cpu = by_cpu
        self._by_plan = by_plan
        self._explained: set[str] = set()
        self._prepared: Any = None

        people = User.objects.filter(is_active=True)
        root = people.filter(is_superuser=True, is_staff=True).order_by("pk").first()
        assert root, "there is no superuser: fill the database with bench.large_site"
        person = people.filter(is_staff=False).exclude(groups__name="group1").order_by("pk").first() or root
        self.people = {"root": root, "person": person}
        self._clients = {}
        for name, user in self.people.items():
            self._clients[name] = client = Client(headers={"host": "localhost"})
            client.force_login(user)

    def cost(self, answer: Answer) -> float:
        """Return the seconds that count."""
        return answer.cpu + answer.database_cpu if self._by_cpu else answer.seconds

    def connect(self) -> None:
        """Open the connection again if the last statement exceeded its deadline."""
        from django.db import connection

        if self._prepared is not None and connection.connection is self._prepared and not connection.connection.closed:
            return
        if connection.connection is not None and connection.connection.closed:
            connection.close()
        with connection.cursor() as cursor:
            # One backend does all of the work, so that its processor time is that of the statement.
            cursor.execute("SET max_parallel_workers_per_gather = 0")
            if self._by_plan:  # then a sequential scan means that no index can be used
                cursor.execute("SET enable_seqscan = off")
        self._prepared = connection.connection

    def _database_cpu(self) -> float:
        """Return the processor time of the backend so far (https://docs.kernel.org/scheduler/sched-stats.html)."""
        from django.db import connection

        if connection.connection is None or connection.connection.closed:
            return float("inf")
        try:
            usage = Path(f"/proc/{connection.connection.info.backend_pid}/schedstat").read_text()
        except OSError:  # it runs on another machine
            return 0.0
        return int(usage.split()[0]) / 1e9

    def ask(self, address: Address) -> Answer:
        """Ask once. An exception of the service counts as status 500."""
        from django.db import connection

        queries: list[tuple[float, str, Any]] = []

        def measured(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
            start = time.perf_counter()
            try:
                return execute(sql, params, many, context)
            finally:
                queries.append((time.perf_counter() - start, sql, params))

        self.connect()
        forget_caches()
        client = self._clients[address.who]
        client.raise_request_exception = False
        with connection.execute_wrapper(measured):
            used, start, cpu = self._database_cpu(), time.perf_counter(), time.thread_time()
            response = client.get(address.path)
            size = sum(map(len, response)) if response.streaming else len(response.content)
            seconds, cpu = time.perf_counter() - start, time.thread_time() - cpu
        return Answer(address, response.status_code, seconds, cpu, self._database_cpu() - used, size, queries)

    def fastest(self, address: Address, rounds: int = ROUNDS, slow: float = SLOW) -> Answer:
        """Ask again only while the address is slow: one fast answer shows that it is not."""
        best = self.ask(address)
        for _ in range(rounds - 1):
            if self.cost(best) <= slow:
                break
            best = min(best, self.ask(address), key=self.cost)
        return best

    def mistakes(self, answer: Answer) -> Iterator[str]:
        """Yield what is wrong with the statements of an answer. Each different statement is explained once."""
        from django.db import connection

        if len(answer.queries) > MOST_QUERIES:
            yield f"{len(answer.queries)} queries"
        for _, sql, params in answer.queries:
            is_read = sql.lstrip("(").startswith(("SELECT", "WITH")) and BIG.search(sql)
            if not is_read or sql in self._explained:
                continue
            self._explained.add(sql)
            with connection.cursor() as cursor:
                cursor.execute(f"EXPLAIN {sql}", params)
                plan = [line for (line,) in cursor.fetchall()]
            # One that is limited ends after the first rows: it counts what most rows have.
            scans = [
                line.strip()
                for above, line in itertools.pairwise(plan)
                if "Seq Scan" in line and BIG.search(line) and "Limit" not in above
            ]
            yield from (f"{scan}: {sql}" for scan in scans)


def forget_caches() -> None:
    """Drop what a process keeps for a second or a minute, so that each answer is a first one."""
    from runners.pages import run_lists
    from runners.pages.views import runs
    from runners.services import access

    runs.forget()
    access.forget_view_rules()
    run_lists._snapshots.clear()
    run_lists._lists.clear()


@contextmanager
def no_machines() -> Iterator[None]:
    """Fail each SSH connection at once, and take each stored state as fresh."""
    from django.test import override_settings

    from runners.exceptions import RunnerUnreachable
    from runners.services.machines.ssh.runner import SSHRunner

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise RunnerUnreachable("No machine is asked here.")

    with ExitStack() as stack:
        stack.enter_context(override_settings(RUNNERS_STATUS_FRESHNESS=1e9, RUNNERS_STATUS_WAIT=0))
        stack.enter_context(patch.object(SSHRunner, "exchange", refuse))
        yield


# --- values -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Samples:
    """Values that addresses need: often used ones, rare ones, absent ones."""

    runs: list[int]
    values: Mapping[str, list[str]]  # by the name of a parameter or of an argument of a path

    @classmethod
    def load(cls) -> Samples:
        from django.db.models import Count, Max, Min
        from django.utils import timezone

        from runners.models import Operation, RunnerRun

        numbers = RunnerRun.objects.aggregate(first=Min("pk"), last=Max("pk"))
        assert numbers["last"], "there are no runs: fill the database with bench.large_site"
        middle = (numbers["first"] + numbers["last"]) // 2
        active = RunnerRun.objects.active().order_by("-pk").values_list("pk", flat=True).first()
        failed = RunnerRun.objects.filter(reason="failed").order_by("-pk").values_list("pk", flat=True).first()
        runs = [pk for pk in (numbers["last"], middle, numbers["first"], active, failed) if pk]

        def of(name: str) -> list[str]:
            """Return the value that most rows have, one that few have, and one that none has."""
            counted = RunnerRun.objects.values_list(name).annotate(number=Count("pk")).order_by("-number", name)
            found = [str(value) for value, _ in counted if value]
            return [found[0], found[-1], ABSENT] if found else [ABSENT]

        expids = [*of("expid")[:2], "zzzz"]
        descriptions = ["decadal", "member 17", "T63", ABSENT]
        now = timezone.now()
        times = [(now - timedelta(days=days)).isoformat(timespec="seconds") for days in (1, 365, 3000, 36500)]
        values = {
            "expid": expids,
            "profile_name": of("profile_name"),
            "installation": of("installation"),
            "host": of("host"),
            "user": of("user"),
            "started_by": of("started_by"),
            "search": [*expids, expids[0][:1], expids[0][:3], str(middle), *descriptions],
            "created_after": times,
            "created_before": times,
            "page_size": ["1", "500"],
        }
        values |= {"q": values["search"], "profile": values["profile_name"], "machine": values["host"]}
        values |= {"person": values["started_by"]}
        days = [text[:10] for text in times]
        values |= {"since": days, "until": days, "page": ["2", "50", "200"]}
        operation = Operation.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
        values |= {"id": [*map(str, runs), "999999999"], "pk": [*map(str, runs), "999999999"]}
        values |= {"operation": [str(operation)], "token": ["no-such-token"]}
        return cls(runs, values)

    def for_path(self, name: str, path: str) -> list[str]:
        """Return the values of an argument of a path."""
        if name == "name":
            kinds = {"machines/": "host", "profiles/": "profile_name"}
            kind = next((kind for part, kind in kinds.items() if part in path), None)
            return self.values[kind][:2] if kind else ["run-experiment"]
        if name == "id" and "operations/" in path:
            return self.values["operation"]
        return self.values.get(name, [ABSENT])


# --- addresses --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Extent:
    """How many addresses: `choices` of a filter, and `paired` values of a parameter that are combined with others."""

    choices: int = 1000
    paired: int = 4


FEW = Extent(choices=1, paired=1)


def addresses(walker: Walker, samples: Samples, extent: Extent = Extent()) -> list[Address]:
    """Return all addresses, each once."""
    root: list[str] = [*admin_addresses(walker.people["root"], extent), *path_addresses(samples)]
    root += [*api_lists(samples, extent), *run_list_pages(samples, extent), *history_pages(samples, extent)]
    both = [path for path in root if not path.startswith("/admin") and (extent.paired > 1 or "&" not in path)]
    found = [*map(Address, root), *(Address(path, "person") for path in both)]
    return list(dict.fromkeys(each for each in found if not LEFT_OUT.match(each.path)))


def with_query(path: str, query: Mapping[str, object]) -> str:
    return f"{path}?{urlencode(query)}" if query else path


# Django's admin.


def admin_addresses(user: Any, extent: Extent) -> Iterator[str]:
    from django.contrib import admin
    from django.test import RequestFactory
    from django.urls import reverse

    request = RequestFactory().get("/admin/")
    request.user = user
    yield reverse("admin:index")
    for label in sorted({model._meta.app_label for model in admin.site._registry}):
        yield reverse("admin:app_list", args=[label])
    for model, model_admin in admin.site._registry.items():
        yield from changelist_addresses(model, model_admin, user, extent)
        yield from row_addresses(model, model_admin)
        for name in model_admin.autocomplete_fields:
            query = {"app_label": model._meta.app_label, "model_name": model._meta.model_name, "field_name": name}
            for term in ("", "1", ABSENT):
                yield with_query(reverse("admin:autocomplete"), {**query, "term": term})


def changelist_addresses(model: Any, model_admin: Any, user: Any, extent: Extent) -> Iterator[str]:
    from django.contrib.admin import ShowFacets
    from django.test import RequestFactory
    from django.urls import reverse

    path = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
    request = RequestFactory().get(path)
    request.user = user
    changelist = model_admin.get_changelist_instance(request)
    yield path
    queries: list[list[str]] = []  # the links of each filter
    for spec in changelist.filter_specs:
        links = [choice["query_string"] for choice in spec.choices(changelist)]
        links = list(dict.fromkeys(link.lstrip("?") for link in links if link.strip("?")))
        yield from (f"{path}?{link}" for link in links[: extent.choices])
        queries.append(links[:: max(1, len(links) // extent.paired)][: extent.paired + 1])
    for one, other in itertools.combinations(queries, 2):
        yield from (f"{path}?{first}&{second}" for first, second in itertools.product(one, other))
    numbers = [number for number, name in enumerate(changelist.list_display) if name != "action_checkbox"]
    orders = [f"o={sign}{number}" for number in numbers for sign in ("", "-")]
    words = list(searches(model, model_admin))
    words = words if extent.choices > len(words) else words[-extent.choices :] + words[:: len(words) // 3]
    for query in (*orders, *(f"q={quote(word)}" for word in words)):
        yield f"{path}?{query}"
    filters = [links[-1] for links in queries if links]
    for word, link in itertools.product(words[:3] + words[-1:], filters[: extent.choices]):
        yield f"{path}?q={quote(word)}&{link}"
    for order, link in itertools.product(orders, filters[: extent.choices]):
        yield f"{path}?{order}&{link}"
    pages = changelist.paginator.num_pages
    yield from (f"{path}?p={page}" for page in sorted({2, pages // 2, pages}) if 1 < page <= pages)
    if model_admin.date_hierarchy:
        yield from (f"{path}?{model_admin.date_hierarchy}__year={year}" for year in (2017, 2026))
    if model_admin.show_facets is not ShowFacets.NEVER:
        yield f"{path}?_facets=True"
    if changelist.result_count <= model_admin.list_max_show_all:
        yield f"{path}?all="


def searches(model: Any, model_admin: Any) -> Iterator[str]:
    """Yield words: one that finds rows by each field that is searched, a common part, several words, an absent one."""
    from django.db.models import F

    for lookup in model_admin.search_fields:
        name = re.sub(r"__(exact|iexact|icontains|startswith|istartswith)$", "", lookup.lstrip("^=@"))
        rows = model._default_manager.order_by("-pk").exclude(**{f"{name}": ""}).exclude(**{f"{name}__isnull": True})
        for value in rows.annotate(found=F(name)).values_list("found", flat=True)[:1]:
            words = str(value).split()
            yield words[0] if words else ""
            yield words[-1][1:6] if words else ""
    if model_admin.search_fields:
        yield from ("e", "1", "login", f"login {ABSENT}", f"{ABSENT} {ABSENT}2", ABSENT)


def row_addresses(model: Any, model_admin: Any) -> Iterator[str]:
    """Yield every address of the admin class for the newest, the middle and the oldest row."""
    rows = model._default_manager.order_by("pk").values_list("pk", flat=True)
    first, last = rows.first(), rows.reverse().first()
    keys = [key for key in (last, first) if key is not None]
    if isinstance(first, int) and isinstance(last, int):
        keys += list(rows.filter(pk__gte=(first + last) // 2)[:1])
    base = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
    from django.contrib.admin.utils import quote as quote_key

    for pattern in model_admin.get_urls():
        route = str(pattern.pattern)
        if route == "<path:object_id>/":  # Django redirects it
            continue
        if "<" not in route:
            yield base + route
            continue
        for key in dict.fromkeys(keys):
            yield base + re.sub(r"<(?:\w+:)?\w+>", lambda _, key=key: quote_key(str(key)), route)  # type: ignore[misc]


# All other paths.


def path_addresses(samples: Samples) -> Iterator[str]:
    """Yield every path of the URL configuration outside of the admin, with each sample of its argument."""
    from django.urls import get_resolver

    for route in routes(get_resolver().url_patterns, "/"):
        if route.startswith("/admin"):
            continue
        names = re.findall(r"<(?:\w+:)?(\w+)>", route)
        choices = [samples.for_path(name, route) for name in names]
        for values in itertools.product(*choices):
            path = route
            for value in values:
                path = re.sub(r"<(?:\w+:)?\w+>", lambda _, value=value: quote(value), path, count=1)  # type: ignore[misc]
            yield path


def routes(patterns: Iterable[Any], begin: str) -> Iterator[str]:
    for pattern in patterns:
        text = re.sub(r"^\^|\$$", "", str(pattern.pattern))
        text = re.sub(r"\(\?P<(\w+)>[^)]*\)", r"<\1>", text)
        if nested := getattr(pattern, "url_patterns", None):
            yield from routes(nested, begin + text)
        else:
            yield begin + text


def api_lists(samples: Samples, extent: Extent) -> Iterator[str]:
    """Yield each value of each query parameter of the OpenAPI document, and pairs of them, and deep cursors."""
    from drf_spectacular.generators import SchemaGenerator

    from runners.api.pagination import cursor_of

    document = SchemaGenerator().get_schema(request=None, public=True)
    for path, methods in document["paths"].items():
        parameters = [each for each in methods.get("get", {}).get("parameters", []) if each["in"] == "query"]
        if not parameters:
            continue
        for values in itertools.product(*(samples.for_path(name, path)[:1] for name in re.findall(r"{(\w+)}", path))):
            filled = path
            for value in values:
                filled = re.sub(r"{\w+}", lambda _, value=value: quote(value), filled, count=1)  # type: ignore[misc]
            given = {each["name"]: values_of(each, samples) for each in parameters}
            if "cursor" in given:
                given["cursor"] = [cursor_of(samples.runs[1]), cursor_of(samples.runs[2] + 1)]
            is_list = "cursor" in given  # others ask one experiment, run or operation
            yield from combinations(filled, given if is_list else {}, extent)


def values_of(parameter: Mapping[str, Any], samples: Samples) -> list[str]:
    schema = parameter["schema"]
    if enum := schema.get("enum") or schema.get("items", {}).get("enum"):
        return [str(each) for each in enum if each not in (None, "")]
    if schema.get("type") == "boolean":
        return ["true", "false"]
    if parameter["name"] in samples.values:
        return samples.values[parameter["name"]]
    return [str(schema.get("minimum", 1))] if schema.get("type") == "integer" else [ABSENT]


def combinations(path: str, given: Mapping[str, list[str]], extent: Extent) -> Iterator[str]:
    """Yield each value alone, and each pair of two parameters with the first, second and last values."""
    yield from (with_query(path, {name: value}) for name, values in given.items() for value in values)
    few = {name: [*values[: extent.paired - 1], values[-1]] for name, values in given.items() if values}
    for (one, first), (other, second) in itertools.combinations(few.items(), 2):
        yield from (with_query(path, {one: a, other: b}) for a, b in itertools.product(first, second))


def run_list_pages(samples: Samples, extent: Extent) -> Iterator[str]:
    """Yield the list of runs with each filter, order, search and page, and pairs of them, whole and as a fragment."""
    from runners.pages.run_filters import RunFilterForm

    given: dict[str, list[str]] = {}
    for name, item in RunFilterForm({}, {}).fields.items():
        choices = [str(value) for value, _ in getattr(item, "choices", []) if value]
        given[name] = choices or samples.values[name]
    yield "/runs?mine=0"
    yield from combinations("/runs", given, extent)
    for path in ("/", "/runs/list"):
        yield from (f"{path}?mine={value}" for value in given["mine"])


def history_pages(samples: Samples, extent: Extent) -> Iterator[str]:
    from runners.pages.views.history import GROUPINGS, SPANS

    given = {"by": list(GROUPINGS), "days": list(SPANS), "expid": samples.values["expid"]}
    yield from combinations("/history", given, extent)


# --- report -----------------------------------------------------------------------------------------------------------


def explain(answer: Answer) -> str:
    """Return the plan of the slowest statement of an answer."""
    from django.db import connection

    seconds, sql, params = max(answer.queries)
    text = f"  {1000 * seconds:.0f} ms: {sql}\n  {params}\n"
    if not sql.startswith("SELECT"):
        return text
    connection.connection.time_limit = None
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS) {sql}", params)
        return text + "\n".join(f"    {line}" for (line,) in cursor.fetchall())


def check(walker: Walker, found: list[Address]) -> int:
    """Ask each address once. Print those with status 500 or 503, a plan without an index, or too many queries."""
    wrong = 0
    for address in found:
        answer = walker.ask(address)
        mistakes = [f"status {answer.status}"] if answer.status in (500, 503) else []
        mistakes += walker.mistakes(answer)
        wrong += bool(mistakes)
        sys.stdout.write("".join(f"{address.who} {address.path}\n    {mistake}\n" for mistake in mistakes))
    sys.stdout.write(f"{len(found)} addresses asked, {wrong} of them wrong\n")
    return int(bool(wrong or not found))


def main(arguments: list[str] | None = None) -> int:
    from runners.models import AuditRecord, RunnerRun

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", type=re.compile, help="ask only addresses in which this is found")
    parser.add_argument("--slow", type=int, default=int(1000 * SLOW), metavar="MS", help="print those above")
    parser.add_argument("--explain", action="store_true", help="print the plan of the slowest statement of each")
    parser.add_argument("--list", action="store_true", help="print the addresses, and ask none")
    parser.add_argument("--plans", action="store_true", help="check plans and numbers of queries instead of times")
    parser.add_argument("--few", action="store_true", help="fewer values of each filter")
    parser.add_argument("--cpu", action="store_true", help="count processor time, for a loaded machine")
    options = parser.parse_args(arguments)
    slow = options.slow / 1000
    logging.disable(logging.CRITICAL)  # an address that answers 404 or 502 is no mistake here
    say = sys.stdout.write
    with no_machines():
        walker, samples = Walker(by_cpu=options.cpu, by_plan=options.plans), Samples.load()
        found = addresses(walker, samples, FEW if options.few else Extent())
        if options.only:
            found = [each for each in found if options.only.search(f"{each.who} {each.path}")]
        if options.list:
            say("".join(f"{each.who:6} {each.path}\n" for each in found))
            return 0
        if options.plans:
            return check(walker, found)
        control = [walker.ask(Address(CONTROL)) for _ in range(20)]
        start, answers = time.monotonic(), []
        for address in found:
            answers.append(answer := walker.fastest(address, slow=slow))
            if walker.cost(answer) > slow or answer.status == 500:
                say(f"{answer}\n" + (f"{explain(answer)}\n" if options.explain and answer.queries else ""))
                sys.stdout.flush()
        control += [walker.ask(Address(CONTROL)) for _ in range(20)]
    late = sorted((each for each in answers if walker.cost(each) > slow), key=walker.cost, reverse=True)
    broken = [each for each in answers if each.status == 500]
    say(f"\n{len(late)} of {len(answers)} addresses above {options.slow} ms, {len(broken)} with status 500\n{HEAD}\n")
    say("".join(f"{each}\n" for each in (*late, *broken)))
    walker.connect()
    rows = f"{RunnerRun.objects.count():,} runs, {AuditRecord.objects.count():,} audit records"
    say(f"{rows}; {time.monotonic() - start:.0f} s; load {os.getloadavg()[0]:.1f}; ")
    controls = sorted(each.seconds for each in control)
    cpu = min(each.cpu + each.database_cpu for each in control)
    say(f"control request {1000 * controls[0]:.0f} to {1000 * controls[-1]:.0f} ms, {1000 * cpu:.0f} ms of CPU\n")
    for name, cost in (("time", lambda each: each.seconds), ("CPU", lambda each: each.cpu + each.database_cpu)):
        costs = sorted(1000 * cost(each) for each in answers)
        middle, most = costs[len(costs) // 2], costs[len(costs) * 99 // 100]
        say(f"{name}: median {middle:.0f} ms, 99 % within {most:.0f} ms, slowest {costs[-1]:.0f} ms\n")
    return int(bool(late or broken))


if __name__ == "__main__":
    django.setup()
    sys.exit(main())
