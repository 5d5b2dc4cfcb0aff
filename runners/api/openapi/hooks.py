"""Hooks that change the OpenAPI document of drf-spectacular, so that clients generated from it are easy to use.

Each hook takes and returns the whole document (settings: POSTPROCESSING_HOOKS).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from runners.api.openapi.describe import COMMON, READING, explained
from runners.api.openapi.examples import recorded
from runners.models import RunReason
from runners.services.cancelling import JobOutcome
from runners.services.machines.jobs import ORDERINGS
from runners.web.problems import PROBLEM_CONTENT_TYPE

Document = dict[str, Any]

OVERVIEW = """\
Runs Autosubmit commands on the machines of its profiles, locally or over SSH.

- **Authentication:** `Authorization: Bearer TOKEN`, with a token of this service or a login of the Autosubmit API.
- **Main workflow:** create-experiment, create-job-list, run-experiment; then get-runner-run-status until `status` is no
  longer `ACTIVE`. The log is at `runs/{runner_id}/log`. `profile_params` gives the open parameters of a profile.
- **Errors** have one body, `Problem`. Programs read `code`, which is stable. People read `detail`, which has the
  remedy. `errors` names the rejected members. Each operation lists its codes, each with an example.
- **Retries:** a command that is retried with the same `Idempotency-Key` is executed once. `dry_run: true` returns
  what a command would execute (`PlanAnswer`) and executes nothing.
- **Limits:** 429 has `Retry-After`. It is the response to too many commands of one person, or too many requests without
  credentials from one address. A body needs a `Content-Length` (else 411) of at most a megabyte (else 413), and the
  header `Content-Type: application/json` (else 415).
- **Long commands** continue without their request with `Prefer: respond-async`.

Clients have to ignore unknown members: new ones can be added.
"""

EMPTY_TEXT = {"type": "string", "maxLength": 0}

# Names for the values of enumerations, for generated code: `create-job-list` is not a valid name in any language.
ENUM_WORDS: dict[str, dict[str, str]] = {
    "OperationKind": {},
    "CommandPermission": {},
    "RunReason": {"": "NOT_TERMINATED"},
    "CancelOutcome": {"": "NOT_REQUESTED"},
    "RunOrdering": {"-created": "NEWEST_FIRST", "created": "OLDEST_FIRST"},
    "JobOrdering": {f"-{name}": f"{name.upper()}_DESCENDING" for name in ORDERINGS},
}
# Enumerations that occur only in queries or as values of mappings. There drf-spectacular gives them no name.
UNNAMED_ENUMS = {
    "RunOrdering": ["-created", "created"],
    "LogEncoding": ["text", "base64"],
    "JobOrdering": [*ORDERINGS, *(f"-{name}" for name in ORDERINGS)],
    "JobLogStream": ["err", "out"],
    "JobCancelOutcome": [outcome.value for outcome in JobOutcome],
    "RunEndReason": list(RunReason.values),  # in queries; the member of a run may also be empty
}

# Descriptions of members that mean the same in all schemas, for serializers that do not describe them.
MEMBERS = {
    "expid": "The experiment.",
    "message": "What was done, for people.",
    "warnings": "Warnings of Autosubmit, although the command succeeded.",
    "created": "Time of the request.",
    "finished": "Time of the end; null before.",
    "profile_name": "The profile.",
    "started_by": "The person who started it; empty without a signed-in person.",
    "stopped_by": "The person who stopped it; empty otherwise.",
    "runner": "The runner that reaches its machine.",
    "module_loader": "The module loader that prepares its environment.",
    "command_params": "The parameters of the Autosubmit command.",
    "milliseconds": "Duration.",
    "operation_id": "The number of this operation.",
    "argv": "The command, word by word.",
    "exit_code": "The exit code; null before the end, and if it is unknown.",
}
HEADERS: dict[str, dict[str, Any]] = {
    "401": {"WWW-Authenticate": {"schema": {"type": "string"}, "description": "How to authenticate."}},
    "429": {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds after which to try again."}},
    "502": {
        "Retry-After": {
            "schema": {"type": "integer"},
            "description": "Seconds until the machine is contacted again, if its failure is stored.",
        }
    },
    "503": {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds after which to try again."}},
}


def operations(document: Document) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the path, the method and the OpenAPI object of each operation."""
    for path, methods in document["paths"].items():
        for method, described in methods.items():
            yield path, method, described


def describe(result: Document, generator: Any, request: Any, public: bool) -> Document:
    """Add the descriptions that the serializers do not have: of the document itself, of members and of responses."""
    result["info"]["description"] = OVERVIEW
    result["info"]["license"] = {"name": "BSD-3-Clause", "identifier": "BSD-3-Clause"}
    schemas = result["components"]["schemas"]
    for schema in schemas.values():
        for name, member in schema.get("properties", {}).items():
            if name in MEMBERS and not member.get("description"):
                if "$ref" in member:  # many generators ignore a description beside a reference
                    member["allOf"] = [{"$ref": member.pop("$ref")}]
                member["description"] = MEMBERS[name]
    for _, _, described in operations(result):
        described.setdefault("security", [])  # an operation that needs no credentials says so
        for answer in described["responses"].values():
            for content in answer.get("content", {}).values():
                name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
                words = schemas.get(name, {}).get("description", "")
                if not answer["description"]:
                    answer["description"] = words.split("\n")[0] or "Success; with `dry_run`, the plan."
    return result


def close_request_bodies(result: Document, generator: Any, request: Any, public: bool) -> Document:
    """Forbid additional members in request bodies, because StrictSerializer rejects unknown members.

    Two more changes help generated clients. "This pattern, or empty" becomes one string type with a pattern:
    drf-spectacular makes a union of two strings, for which clients get two types. Defaults become a part of the
    description: openapi-typescript treats a member with a `default` as always present, so every request would have to
    name all of them.
    """
    for name, schema in result["components"]["schemas"].items():
        if name.endswith("OrPlan"):
            # Clients take the first schema that matches. A plan has all members of some responses and more. So the plan
            # is the first schema, and `oneOf` would be wrong, because a plan can match both schemas.
            schema["anyOf"] = schema.pop("oneOf")
        if name.endswith(("Request", "Params")):
            schema["additionalProperties"] = False
            for member in schema["properties"].values():
                if member.get("oneOf", [])[1:] == [EMPTY_TEXT]:
                    member.update(member.pop("oneOf")[0])
                if member.pop("default", None) is False:
                    member["description"] = f"{member['description']} Default: false."
    return result


def name_enums(result: Document, generator: Any, request: Any, public: bool) -> Document:
    """Give each set of choices one named type, also in queries and also if the empty text is one of the choices."""
    schemas = result["components"]["schemas"]
    blank = schemas.pop("BlankEnum", None) and {"$ref": "#/components/schemas/BlankEnum"}
    for schema in schemas.values():
        for member in schema.get("properties", {}).values():
            if blank and blank in member.get("oneOf", []):
                (known,) = (each for each in member.pop("oneOf") if each != blank)
                member["allOf"] = [known]
                values = schemas[known["$ref"].rpartition("/")[2]]["enum"]
                if "" not in values:
                    values.insert(0, "")
    for name, choices in UNNAMED_ENUMS.items():
        schemas[name] = {"enum": choices, "type": "string"}
    for name, words in ENUM_WORDS.items():
        schemas[name]["x-enum-varnames"] = [
            words.get(value, value.upper().replace("-", "_")) for value in schemas[name]["enum"]
        ]
    names = {tuple(sorted(schema["enum"])): name for name, schema in schemas.items() if "enum" in schema}
    mappings = [
        (member, "additionalProperties")
        for schema in schemas.values()
        for member in schema.get("properties", {}).values()
        if isinstance(member.get("additionalProperties"), dict)
    ]
    parameters = [
        (parameter, "schema") for _, _, described in operations(result) for parameter in described.get("parameters", [])
    ]
    for holder, place in (*mappings, *parameters):
        schema = holder[place]
        if known := names.get(tuple(sorted(schema.get("enum", [])))):
            reference = {"$ref": f"#/components/schemas/{known}"}
            # Many generators ignore members beside a reference.
            has_default = "default" in schema
            holder[place] = {"allOf": [reference], "default": schema["default"]} if has_default else reference
    result["components"]["schemas"] = dict(sorted(schemas.items()))
    return result


def complete_errors(result: Document, generator: Any, request: Any, public: bool) -> Document:
    """Add the common errors to the operations that declare no errors, and the headers of error responses to all."""
    for path, method, described in operations(result):
        codes = COMMON if method == "post" else READING
        if path.startswith("/v4/user-settings/"):
            codes = (*codes, "not_found")
        answers = described["responses"]
        if not any(status >= "400" for status in answers):
            for status, text in explained(*codes).items():
                content = {PROBLEM_CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
                answers[str(status)] = {"content": content, "description": text}
        for status in HEADERS.keys() & answers.keys():
            answers[status].setdefault("headers", {}).update(HEADERS[status])
    return result


def add_examples(result: Document, generator: Any, request: Any, public: bool) -> Document:
    """Add the recorded examples. Errors that are equal everywhere become shared components."""
    examples = recorded()
    bodies: dict[str, list[Any]] = {}  # the bodies of all operations, by error code
    for kept in examples.values():
        for status, named in kept.items():
            for code, body in named.items() if status >= "400" and status.isdigit() else ():
                bodies.setdefault(code, []).append(body)
    shared = {code: same[0] for code, same in bodies.items() if len(same) > 1 and all(each == same[0] for each in same)}
    for _, _, described in operations(result):
        kept = examples.get(described["operationId"], {})
        places = [("request", described.get("requestBody", {})), *described["responses"].items()]
        for key, place in places:
            content = place.get("content", {}).get("application/json") or place.get("content", {}).get(
                PROBLEM_CONTENT_TYPE
            )
            if content and key in kept:
                content["examples"] = {
                    name: {"$ref": f"#/components/examples/{name}"} if name in shared else _example(body)
                    for name, body in kept[key].items()
                }
    result["components"]["examples"] = {code: _example(body) for code, body in sorted(shared.items())}
    return result


def _example(body: Any) -> dict[str, Any]:
    summary = {"summary": body["title"]} if isinstance(body, dict) and "title" in body else {}
    return {**summary, "value": body}
