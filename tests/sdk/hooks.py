"""The names that Schemathesis needs to get responses other than 404. schemathesis.toml loads this module, not pytest.

WITH_PROFILE_PARAMS: whether `profile_params` are generated, too. Most of them do not fit the profile, which is a 400 by
rules that a schema cannot express. Without them, every other request that fits the schema must be accepted.
"""

from __future__ import annotations

import base64
import os
from datetime import UTC, datetime
from typing import Any

import schemathesis
from hypothesis import strategies

EXPIDS = ["a001", "a002"]
PROFILES = ["LOCAL_STUB"]
SEEN = {"type": "integer", "minimum": 1, "maximum": 20}  # numbers of rows that may exist


def cursor_of(number: int) -> str:
    return base64.urlsafe_b64encode(f"run {number}".encode()).decode().rstrip("=")


# The first and last moments of the calendar are as frequent as all others: computations with them overflow.
ENDS = strategies.sampled_from([datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
MOMENTS = ENDS | strategies.datetimes(timezones=strategies.just(UTC))
schemathesis.openapi.format("date-time", MOMENTS.map(lambda moment: moment.isoformat().replace("+00:00", "Z")))
schemathesis.openapi.format("cursor", strategies.integers(0, 10**18 - 1).map(cursor_of))


@schemathesis.hook
def before_load_schema(context: schemathesis.HookContext, raw_schema: dict[str, Any]) -> None:
    for name, schema in raw_schema["components"]["schemas"].items():
        if name.endswith("Request"):
            members = schema["properties"]
            if "expid" in members:
                members["expid"] = {"type": "string", "enum": EXPIDS}
            if "profile_name" in members:
                members["profile_name"] = {"type": "string", "enum": PROFILES}
            if "profile_params" in members and not os.environ.get("WITH_PROFILE_PARAMS"):
                members["profile_params"] = {"enum": [{}, None]}
    for methods in raw_schema["paths"].values():
        for operation in methods.values():
            for parameter in operation.get("parameters", []):
                if parameter["name"] == "cursor":
                    parameter["schema"] = {"type": "string", "format": "cursor"}
                elif (parameter["name"], parameter["in"]) == ("name", "path"):
                    parameter["schema"] = {"type": "string", "enum": PROFILES}
                elif (parameter["name"], parameter["in"]) == ("id", "path"):
                    parameter["schema"] = {"anyOf": [SEEN, {"type": "integer", "minimum": 0}]}
