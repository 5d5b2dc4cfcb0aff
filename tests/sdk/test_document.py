"""The OpenAPI document as a front-end author reads it: all names and descriptions are there, and the examples fit."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from jsonschema import Draft202012Validator

from runners.api.openapi.document import document
from runners.api.openapi.examples import recorded
from runners.web.problems import LENGTH_REQUIRED, PROBLEM_CONTENT_TYPE, PROBLEM_TYPES
from tests.sdk import clients
from tests.support.examples import UNRECORDED
from tests.support.paths import ROOT
from tests.support.processes import PATIENCE
from tests.support.requirements import need
from tests.support.servers import Answer, AppServer

DOCUMENT: dict[str, Any] = json.loads(document("json").body)
OPERATIONS = {
    operation["operationId"]: (method, path, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
# Codes that no operation can return, because they are raised outside of all operations.
OUTSIDE = {"method_not_allowed"}
# Operations that need no credentials.
OPEN = {"start_login", "poll_login"}


def resolved(reference: str) -> Any:
    place: Any = DOCUMENT
    for name in reference.removeprefix("#/").split("/"):
        place = place[name]
    return place


def errors_of(schema: dict[str, Any], value: Any) -> list[str]:
    """Return what a validator of JSON Schema reports about an example."""
    whole = {**schema, "components": DOCUMENT["components"]}
    return [error.message for error in Draft202012Validator(whole).iter_errors(value)]


def contents(operation: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield status (or "request"), media type and content of each request and response body."""
    for media, content in operation.get("requestBody", {"content": {}})["content"].items():
        yield "request", media, content
    for status, answer in operation["responses"].items():
        for media, content in answer["content"].items():
            yield status, media, content


def test_every_operation_has_a_name_of_its_own_that_was_chosen() -> None:
    count = sum(len(methods) for methods in DOCUMENT["paths"].values())
    assert len(OPERATIONS) == count
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)+", name) for name in OPERATIONS)
    assert not [name for name in OPERATIONS if name.startswith("v4_")]  # drf-spectacular would generate such a name


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_is_explained(name: str) -> None:
    _, _, operation = OPERATIONS[name]
    assert operation["summary"] and operation["description"]
    assert set(operation["tags"]) <= {tag["name"] for tag in DOCUMENT["tags"]}
    assert all(answer["description"] for answer in operation["responses"].values())
    unexplained = [
        parameter["name"] for parameter in operation.get("parameters", []) if not parameter.get("description")
    ]
    assert set(unexplained) <= {"id", "name", "status", "runner", "page_size"}


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_body_is_typed_and_has_an_example_that_fits(name: str) -> None:
    _, _, operation = OPERATIONS[name]
    for status, media, content in contents(operation):
        assert content["schema"], f"{status} {media}"
        if media == "text/plain":
            continue
        examples = [resolved(each["$ref"]) if "$ref" in each else each for each in content.get("examples", {}).values()]
        assert examples or name in UNRECORDED, f"{status} has no example"
        for each in examples:
            assert errors_of(content["schema"], each["value"]) == []


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_error_is_a_problem_with_codes_of_its_status(name: str) -> None:
    _, _, operation = OPERATIONS[name]
    failures = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
    assert ({"429", "503"} if name in OPEN else {"401", "429", "503"}) <= failures.keys()
    for status, answer in failures.items():
        assert list(answer["content"]) == [PROBLEM_CONTENT_TYPE]
        content = answer["content"][PROBLEM_CONTENT_TYPE]
        assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
        for code, each in content.get("examples", {}).items():
            value = (resolved(each["$ref"]) if "$ref" in each else each)["value"]
            assert (value["code"], str(value["status"])) == (code, status)


def documented(operation: dict[str, Any]) -> set[str]:
    """Return the codes that an operation documents."""
    failures = (answer for status, answer in operation["responses"].items() if status >= "400")
    return {code for answer in failures for code in re.findall(r"^- `(\w+)`", answer["description"], re.MULTILINE)}


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_code_of_an_operation_was_seen_there(name: str) -> None:
    """An operation documents exactly the codes that it can return."""
    statuses = recorded()[name].items()
    seen = {code for status, named in statuses if status.isdigit() and status >= "400" for code in named}
    assert documented(OPERATIONS[name][2]) == seen | UNRECORDED.get(name, set())
    assert not seen & UNRECORDED.get(name, set())


def test_every_code_of_the_service_is_in_the_document() -> None:
    told = {code for _, _, operation in OPERATIONS.values() for code in documented(operation)}
    assert told == {kind.code for kind in (*PROBLEM_TYPES.values(), LENGTH_REQUIRED)} - OUTSIDE


def test_enumerations_have_names_that_do_not_change() -> None:
    names = {name for name, schema in DOCUMENT["components"]["schemas"].items() if "enum" in schema}
    assert names == {
        *("CancelOutcome", "CheckStageName", "FinalStatus", "JobCancelOutcome", "LogEncoding", "ModuleLoaderType"),
        *("CommandParameterKind", "CommandPermission", "FirstStep", "JobLogStream", "JobOrdering", "RestartCause"),
        *("LoginScope", "LoginStatus", "MachineState", "TokenScope"),
        *("OperationKind", "OperationStatus", "ParameterType", "RunOrdering", "RunReason", "RunStatus", "RunnerType"),
        "RunEndReason",
    }
    inline = re.findall(r'"enum":', json.dumps(DOCUMENT))
    assert len(inline) == len(names), "an enumeration without a name: generators would make one up"


def test_the_readmes_requests_are_the_examples() -> None:
    """A request that is copied from the README works like one that is copied from the examples."""
    readme = (ROOT / "README.md").read_text()
    asked = 0
    for command, text in re.findall(r"^(?:EXPID=\$\()?post (\S+) '(.*)'", readme, re.MULTILINE):
        text = text.replace("'$EXPID'", "a001").replace("'$PROFILE'", "MY_RUNNER_PROFILE_1")
        body = json.loads(text.replace("'\"", '"').replace("\"'", '"'))
        if body.pop("dry_run", False):
            continue
        operation = DOCUMENT["paths"][f"/v4/runners/command/{command}"]["post"]
        content = operation["requestBody"]["content"]["application/json"]
        example = content["examples"]["Request"]["value"]
        assert {"profile_params": {}, "command_params": {}, **body} == {
            "profile_params": {},
            "command_params": {},
            **example,
        }
        assert errors_of(content["schema"], body) == []
        asked += 1
    assert asked == 5


def test_simultaneous_first_requests_all_get_the_document(make_app: Callable[..., AppServer]) -> None:
    """drf-spectacular's generator is not thread-safe: without the lock, most of these answers are 500."""
    app = make_app(workers=1, threads=12)
    together = threading.Barrier(12)

    def first(path: str) -> Answer:
        together.wait(30 * PATIENCE)
        return app.get(path)

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(first, ["/openapi.json", "/openapi.yaml"] * 6))
    assert [answer.status for answer in answers] == [200] * 12
    assert all(answer.body == DOCUMENT for answer in answers[::2])
    assert {answer.body for answer in answers[1::2]} == {(ROOT / "openapi.yaml").read_text()}


@pytest.mark.parametrize("path", ["/openapi.json", "/openapi.yaml"])
def test_a_client_that_has_the_document_gets_304(client: Client, path: str) -> None:
    answer = client.get(path)
    again = client.get(path, headers={"If-None-Match": answer["ETag"]})
    assert (again.status_code, again.content, again["ETag"]) == (304, b"", answer["ETag"])
    assert client.get(path, headers={"If-None-Match": '"another"'}).content == answer.content
    head = client.head(path)
    assert (head.status_code, head.content, head["ETag"]) == (200, b"", answer["ETag"])


BREAK: dict[str, tuple[Callable[[dict[str, Any]], object], set[str]]] = {
    "a type twice": (
        lambda document: document["components"]["schemas"]["Run"]["properties"]["pid"].update(type=["null", "null"]),
        {"openapi-spec-validator", "spectral", "redocly"},
    ),
    "no summary": (
        lambda document: document["paths"]["/v4/runners/runs"]["get"].pop("summary"),
        {"redocly"},
    ),
}


@pytest.mark.parametrize("fault", BREAK)
def test_the_linters_refuse_a_wrong_document(fault: str, tmp_path: Path) -> None:
    """The committed document itself is checked by `make openapi-lint`, a step of CI."""
    need(clients.NODE_PACKAGES.is_dir(), "Spectral and Redocly (tools/sdk/install)")
    break_it, tools = BREAK[fault]
    document = copy.deepcopy(DOCUMENT)
    break_it(document)
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(document))
    done = subprocess.run(
        [clients.SOURCES / "lint", path], capture_output=True, text=True, check=False, timeout=120 * PATIENCE
    )
    assert done.returncode == 1
    assert tools <= set(done.stderr.splitlines()[-1].rpartition(": ")[2].split())
