"""The addresses of several hosts in DATABASE_URL."""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.db import connection

from runners_project import bounded
from runners_project.postgresql.base import DatabaseWrapper


def test_a_name_that_the_resolver_does_not_answer_leaves_the_time_of_the_other_hosts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [time.monotonic()]

    def resolve(name: str, port: int, deadline: float) -> list[Any]:
        if name == "db1" or deadline <= now[0]:
            now[0] = max(now[0], deadline)
            raise bounded.NameServerSilent
        return [(2, ("192.0.2.2", port))]

    monkeypatch.setattr(bounded, "resolve", resolve)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    names = {"HOST": "db1,db2", "NAME": "x", "USER": "x", "PASSWORD": "", "PORT": "", "TIME_ZONE": None}
    wrapper = DatabaseWrapper({**connection.settings_dict, **names, "OPTIONS": {"connect_timeout": 2}}, "other")
    found = wrapper._with_addresses(wrapper.get_connection_params())
    assert (found["host"], found["hostaddr"], found["port"]) == ("db2", "192.0.2.2", "5432")
    assert found["target_session_attrs"] == "read-write"
