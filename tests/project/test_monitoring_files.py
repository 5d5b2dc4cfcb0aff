"""The alerts and the Grafana dashboard of deploy/monitoring: they are valid, and use metrics that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest
import yaml
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

from runners.services import monitoring
from tests.support.rows import saved_run
from tests.support.servers import ROOT

FOLDER = ROOT / "deploy" / "monitoring"
DASHBOARD = json.loads((FOLDER / "grafana-dashboard.json").read_text())
RULES = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"][0]["rules"]


def expressions() -> list[str]:
    return [rule["expr"] for rule in RULES] + [
        each["expr"] for panel in DASHBOARD["panels"] for each in panel["targets"]
    ]


@pytest.fixture
def known(db: None) -> Iterator[set[str]]:
    """Yield the names of all metrics, as a server with a watch exposes them."""
    saved_run()
    monitoring.STATE.forget()
    families = list(text_string_to_metric_families(monitoring.exposition().decode()))
    names = {family.name for family in families}
    yield names | {f"{name}{end}" for name in names for end in ("_total", "_bucket", "_count", "_sum")}
    monitoring.STATE.forget()


def test_the_expressions_are_valid() -> None:
    for expression in expressions():
        promql_parser.parse(expression)
    with pytest.raises(ValueError):
        promql_parser.parse("rate(autosubmit_runners_requests_total[5m)")


def test_the_expressions_use_metrics_that_exist(known: set[str], client: Client) -> None:
    known.add("autosubmit_runners_watch_age_seconds")  # only after a sign of a watch
    used = {name for each in expressions() for name in re.findall(r"autosubmit_runners_[a-z_]+", each)}
    assert len(used) > 10
    assert used <= known


def test_each_alert_tells_what_is_wrong() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    assert all(rule["annotations"]["summary"] and rule["labels"]["severity"] for rule in RULES)


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        place: dict[str, Any] = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]
