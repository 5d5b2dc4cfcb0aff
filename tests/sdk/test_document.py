"""The OpenAPI document as the author of a front end reads it: nothing unnamed or unexplained, and examples that fit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from runners.api.exception_handler import KINDS, PROBLEM_TYPE
from runners_project.pages import openapi_document

ROOT = Path(__file__).parent.parent.parent
DOCUMENT: dict[str, Any] = json.loads(openapi_document("json"))
OPERATIONS = {
    operation["operationId"]: (method, path, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
# Codes that no operation can answer: they come from outside of all of them.
OUTSIDE = {"method_not_allowed"}


def resolved(reference: str) -> Any:
    place: Any = DOCUMENT
    for name in reference.removeprefix("#/").split("/"):
        place = place[name]
    return place


def errors_of(schema: dict[str, Any], value: Any) -> list[str]:
    """What a validator of JSON Schema says about an example."""
    whole = {**schema, "components": DOCUMENT["components"]}
    return [error.message for error in Draft202012Validator(whole).iter_errors(value)]


def contents(operation: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Status (or "request"), media type and content of everything that goes in and out."""
    for media, content in operation.get("requestBody", {"content": {}})["content"].items():
        yield "request", media, content
    for status, answer in operation["responses"].items():
        for media, content in answer["content"].items():
            yield status, media, content


def test_every_operation_has_a_name_of_its_own_that_was_chosen() -> None:
    count = sum(len(methods) for methods in DOCUMENT["paths"].values())
    assert len(OPERATIONS) == count
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)+", name) for name in OPERATIONS)
    assert not [name for name in OPERATIONS if name.startswith("v4_")]  # what drf-spectacular would make up


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
        if media == "text/plain" or status == "202":
            continue
        examples = [resolved(each["$ref"]) if "$ref" in each else each for each in content.get("examples", {}).values()]
        assert examples, f"{status} has no example"
        for each in examples:
            assert errors_of(content["schema"], each["value"]) == []


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_error_is_a_problem_with_codes_of_its_status(name: str) -> None:
    _, _, operation = OPERATIONS[name]
    failures = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
    assert {"401", "403", "429", "503"} <= failures.keys()
    for status, answer in failures.items():
        assert list(answer["content"]) == [PROBLEM_TYPE]
        content = answer["content"][PROBLEM_TYPE]
        assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
        for code, each in content["examples"].items():
            value = resolved(each["$ref"])["value"]
            assert (value["code"], str(value["status"])) == (code, status)


def test_every_code_of_the_service_has_an_example_in_the_document() -> None:
    assert set(DOCUMENT["components"]["examples"]) == {kind.code for kind in KINDS.values()} - OUTSIDE


def test_enumerations_have_names_that_do_not_change() -> None:
    names = {name for name, schema in DOCUMENT["components"]["schemas"].items() if "enum" in schema}
    assert names == {
        *("CheckStageName", "FinalStatus", "LogEncoding", "ModuleLoaderType", "OperationKind", "OperationStatus"),
        *("ParameterType", "RunOrdering", "RunReason", "RunStatus", "RunnerType"),
    }
    inline = re.findall(r'"enum":', json.dumps(DOCUMENT))
    assert len(inline) == len(names), "an enumeration without a name: generators would make one up"


def test_the_readmes_requests_are_the_examples() -> None:
    """What is copied from one place works like what is copied from the other."""
    readme = (ROOT / "README.md").read_text()
    asked = 0
    for command, text in re.findall(r"^post (\S+) '(.*)'$", readme, re.MULTILINE):
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
    assert asked == 7
