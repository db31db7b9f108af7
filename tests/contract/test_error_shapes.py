"""Every error class in every dialect: status, body, Retry-After. The expected table is errors.json."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contract.answers import play

from rerankd.errors import ServiceError
from rerankd.wire.base import Dialect
from rerankd.wire.registry import ROUTES

FAMILIES = json.loads((Path(__file__).parent / "errors.json").read_text("utf-8"))
DIALECTS = {dialect.name: dialect for route in ROUTES for dialect in route.dialects}
FAMILY_OF = {name: family for family, row in FAMILIES.items() for name in row["dialects"]}
MESSAGE = "what went wrong"


def classes(root: type[ServiceError] = ServiceError) -> Iterator[type[ServiceError]]:
    yield root
    for child in root.__subclasses__():
        yield from classes(child)


# An error that shares its parent's code is its parent to every client.
CLASSES = {error.code: error for error in reversed(list(classes())) if error.__module__ == "rerankd.errors"}


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=list(DIALECTS))
@pytest.mark.parametrize("error", CLASSES.values(), ids=list(CLASSES))
def test_an_error_has_the_status_of_its_dialect(dialect: Dialect, error: type[ServiceError]) -> None:
    answer = dialect.render_error(error(MESSAGE, param="field", retry_after=2.5), "req-1")
    assert answer.status == FAMILIES[FAMILY_OF[dialect.name]]["statuses"][error.code]
    assert (answer.headers.get("Retry-After") == "3") == error.retryable
    assert MESSAGE in json.dumps(answer.body)


@pytest.mark.parametrize("name", DIALECTS)
def test_an_error_has_the_shape_of_its_dialect(name: str) -> None:
    example = FAMILIES[FAMILY_OF[name]]["example"]
    error = CLASSES[example["code"]](MESSAGE, param="field")
    assert DIALECTS[name].render_error(error, "req-1").body == example["body"]


def test_every_error_and_every_dialect_is_in_the_table() -> None:
    assert set(FAMILY_OF) == set(DIALECTS)
    for family in FAMILIES.values():
        assert set(family["statuses"]) == set(CLASSES)


def test_no_client_of_a_documents_shape_meets_a_422() -> None:
    for family, row in FAMILIES.items():
        assert family == "tei" or 422 not in row["statuses"].values()


@pytest.mark.promise("W2")
@pytest.mark.parametrize("path", ["/rerank", "/", "/tei", "/tei/rerank", "/invocations"])
def test_empty_texts_are_what_text_embeddings_inference_calls_empty(path: str) -> None:
    answer = play(path, {"query": "q", "texts": []})
    assert answer["status"] == 400
    assert answer["response"] == {"error": "texts must not be empty", "error_type": "Empty"}


def test_a_retryable_error_without_a_time_still_says_when_to_come_back() -> None:
    answer = DIALECTS["cohere-v2"].render_error(CLASSES["overloaded"](MESSAGE), "req-1")
    assert answer.headers["Retry-After"] == "1"
