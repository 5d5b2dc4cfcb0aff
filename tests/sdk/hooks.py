"""What Schemathesis has to know to get beyond 404: names that exist. It is loaded by schemathesis.toml, not by pytest.

WITH_PROFILE_PARAMS: whether `profile_params` are generated, too. Most of them do not fit the profile, which is a 400 by
rules that no schema can tell. Without them every other request that fits the schema has to be accepted.
"""

from __future__ import annotations

import os
from typing import Any

import schemathesis

EXPIDS = ["a001", "a002"]
PROFILES = ["LOCAL_STUB"]
CURSOR = "cnVuIDE"  # run 1


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
                    parameter["schema"] = {"type": "string", "enum": [CURSOR]}
                elif (parameter["name"], parameter["in"]) == ("name", "path"):
                    parameter["schema"] = {"type": "string", "enum": PROFILES}
                elif (parameter["name"], parameter["in"]) == ("id", "path"):
                    parameter["schema"] = {"type": "integer", "minimum": 1, "maximum": 20}
