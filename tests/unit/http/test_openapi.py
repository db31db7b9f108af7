from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.standin import StandInService

from rerankd.http.app import create_app
from rerankd.http.openapi import _translate
from rerankd.settings import Settings
from rerankd.wire.registry import ROUTES


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(Settings(), StandInService()).openapi()


def schemas_in(value: Any) -> Iterator[dict[str, Any]]:
    """Every object outside of the examples, which are data."""
    if isinstance(value, list):
        for inner in value:
            yield from schemas_in(inner)
    elif isinstance(value, dict):
        yield value
        for key, inner in value.items():
            if key not in ("example", "examples"):
                yield from schemas_in(inner)


def test_every_path_of_the_wire_is_described(document: dict[str, Any]) -> None:
    for route in ROUTES:
        operation = document["paths"][route.path]["post"]
        content = operation["requestBody"]["content"]["application/json"]
        assert content["examples"]
        assert content["schema"]
        # Text-embeddings-inference says 422 where the others say 400.
        assert {"200", "413", "429", "503", "504"} <= set(operation["responses"])
        assert {"400", "422"} & set(operation["responses"])


def test_a_parameter_in_a_path_is_described(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for operation in operations.values():
            named = {parameter["name"] for parameter in operation.get("parameters", ())}
            assert named == {part[1:-1] for part in path.split("/") if part.startswith("{")}, path


def test_operations_have_names_of_their_own(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names))


def test_nothing_in_it_is_newer_than_its_version(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.0.3"
    for schema in schemas_in(document):
        assert not isinstance(schema.get("type"), list)
        assert schema.get("type") != "null"
        assert "const" not in schema


def test_the_key_is_described_and_the_probes_are_there(document: dict[str, Any]) -> None:
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert {"/", "/health", "/livez", "/readyz", "/metrics", "/info", "/v1/models"} <= set(document["paths"])


def test_a_type_that_may_be_null_becomes_nullable() -> None:
    assert _translate({"type": ["string", "null"], "minLength": 1}) == {
        "type": "string",
        "minLength": 1,
        "nullable": True,
    }
    assert _translate({"type": ["string", "integer"]}) == {"anyOf": [{"type": "string"}, {"type": "integer"}]}


def test_a_constant_becomes_a_choice_of_one() -> None:
    assert _translate({"const": "text"}) == {"enum": ["text"]}


def test_examples_are_data_and_stay_as_they_are() -> None:
    example = {"examples": {"one": {"value": {"type": ["string", "null"]}}}}
    assert _translate(example) == example


@pytest.mark.promise("U10")
def test_a_validator_finds_no_fault_in_it(document: dict[str, Any]) -> None:
    validator = pytest.importorskip("openapi_spec_validator", reason="openapi-spec-validator is not installed")
    validator.validate(document)


@pytest.mark.promise("U13")
def test_it_names_the_path_under_which_a_proxy_shows_it(service: StandInService) -> None:
    for root_path, url in (("", "/"), ("/prefix", "/prefix"), ("/prefix/", "/prefix")):
        assert create_app(Settings(root_path=root_path), service).openapi()["servers"] == [{"url": url}]


async def test_it_is_served(client: httpx.AsyncClient, document: dict[str, Any]) -> None:
    assert (await client.get("/openapi.json")).json() == document
