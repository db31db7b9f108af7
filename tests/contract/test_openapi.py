"""Nothing in the OpenAPI text of a route is untrue: examples fit their schemas, and schemas fit recorded cases."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest
from tests.contract.answers import TABLE
from tests.contract.test_recorded_cases import CASES

from rerankd.wire import openapi
from rerankd.wire.registry import ROUTES, Route


def content(described: dict[str, Any]) -> dict[str, Any]:
    inner: dict[str, Any] = described["content"]["application/json"]
    return inner


def response_schema(case: dict[str, Any]) -> dict[str, Any]:
    found = TABLE.find(case["path"])
    assert found is not None
    schema: dict[str, Any] = content(openapi.describe(found[0])["responses"]["200"])["schema"]
    return schema


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
def test_the_examples_of_a_route_fit_its_schemas(route: Route) -> None:
    described = openapi.describe(route)
    for part in (described["requestBody"], *described["responses"].values()):
        for example in content(part)["examples"].values():
            assert jsonschema_rs.is_valid(content(part)["schema"], example["value"])


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
def test_the_example_of_a_dialect_is_its_own(route: Route) -> None:
    for dialect in route.dialects:
        assert route.choose(dialect.example) is dialect
        assert openapi.example_answer(dialect).status == 200


def test_recorded_answers_have_no_key_that_the_schema_does_not_show() -> None:
    for _, case in CASES:
        if case["status"] == 200 and isinstance(case["response"], dict):
            schema = response_schema(case)
            shown = {key for option in schema.get("anyOf", [schema]) for key in option.get("properties", {})}
            assert set(case["response"]) <= shown, case["case"]


def test_recorded_answers_fit_their_schemas() -> None:
    for dialect, case in CASES:
        if case["status"] == 200:
            answer = case["response"]
            if isinstance(answer, dict) and "created" in answer:
                answer = {**answer, "created": openapi.EXAMPLE_TIME}
            errors = jsonschema_rs.validator_for(response_schema(case)).iter_errors(answer)
            assert not list(errors), f"{dialect}: {case['case']}"


def test_the_document_of_a_route_is_the_same_at_every_start() -> None:
    assert json.dumps([openapi.describe(route) for route in ROUTES]) == json.dumps(
        [openapi.describe(route) for route in ROUTES]
    )
