"""One file of cases, asked of a server by both clients and of the model in this process: the results are the same."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.live import LiveServer

from rerankd import Reranker
from rerankd.client import AsyncClient, Client, ClientError, Document, Passage, Query, RankedResults
from rerankd.errors import ServiceError

CASES = json.loads((Path(__file__).parent / "ranked_cases.json").read_text(encoding="utf-8"))

Ask = Callable[[str, dict[str, Any]], Any]


def documents_of(values: list[Any]) -> list[str | Document]:
    """Texts; an object is a document's fields, a list a text and how often it is repeated."""
    texts = (one[0] * one[1] if isinstance(one, list) else one for one in values)
    return [Document(**one) if isinstance(one, dict) else one for one in texts]


def arguments(given: dict[str, Any]) -> dict[str, Any]:
    given = dict(given)
    if "documents" in given:
        given["documents"] = documents_of(given["documents"])
    if "queries" in given:
        given["queries"] = [
            Query(**query | {"documents": documents_of(query["documents"])}) for query in given["queries"]
        ]
    if "pairs" in given:
        given["pairs"] = [tuple(pair) for pair in given["pairs"]]
    return given


@pytest.fixture(scope="module")
def reranker() -> Iterator[Reranker]:
    # As the server was started.
    with Reranker("tiny", engine="onnx", threads=1, max_pair_tokens=2048) as model:
        yield model


@pytest.fixture(params=["client", "async client", "in process"])
def ask(request: pytest.FixtureRequest, tiny_server: LiveServer, reranker: Reranker) -> Ask:
    def by_client(method: str, given: dict[str, Any]) -> Any:
        with Client(tiny_server.url) as client:
            return getattr(client, method)(**given)

    def by_async_client(method: str, given: dict[str, Any]) -> Any:
        async def call() -> Any:
            async with AsyncClient(tiny_server.url) as client:
                return await getattr(client, method)(**given)

        return asyncio.run(call())

    def in_process(method: str, given: dict[str, Any]) -> Any:
        return getattr(reranker, method)(**given)

    return {"client": by_client, "async client": by_async_client, "in process": in_process}[request.param]


def within_a_millionth(score: float) -> Any:
    """Batches are cut in more than one way."""
    return pytest.approx(score, abs=1e-6)


def described(outcome: Any, number: Callable[[float], Any] = float) -> Any:
    """All but the answer's id and counts of ``meta``."""
    if isinstance(outcome, list | tuple) and not isinstance(outcome, RankedResults):
        return [described(item, number) for item in outcome]
    if isinstance(outcome, float):
        return number(outcome)
    if isinstance(outcome, ClientError | ServiceError):
        return type(outcome).__name__, str(outcome)
    return {
        "results": [
            (row.index, number(row.score), row.document, described_passage(row.best_passage, number))
            for row in outcome
        ],
        "scores": described(list(outcome.scores), number),
        "model": outcome.model or "tiny",
        "errors": outcome.errors,
        "warnings": outcome.warnings,
        "long_documents": outcome.meta.get("long_documents"),
        "nothing_relevant": outcome.nothing_relevant,
    }


def described_passage(passage: Passage | None, number: Callable[[float], Any]) -> Any:
    return passage and (passage.start, passage.end, number(passage.score))


def outcome(ask: Ask, case: dict[str, Any]) -> Any:
    try:
        return ask(case["method"], arguments(case["given"]))
    except (ClientError, ServiceError) as error:
        return error


@pytest.fixture(scope="module")
def reference(tiny_server: LiveServer) -> Callable[[dict[str, Any]], Any]:
    """What the server says to a case, asked once."""
    known: dict[str, Any] = {}

    def by_server(method: str, given: dict[str, Any]) -> Any:
        with Client(tiny_server.url) as client:
            return getattr(client, method)(**given)

    def told(case: dict[str, Any]) -> Any:
        if case["name"] not in known:
            known[case["name"]] = outcome(by_server, case)
        return known[case["name"]]

    return told


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_results_are_those_of_a_server(
    case: dict[str, Any], ask: Ask, reference: Callable[[dict[str, Any]], Any]
) -> None:
    found, expected = outcome(ask, case), reference(case)
    if "error" in case:
        assert type(found).__name__ == type(expected).__name__ == case["error"]
    elif case["method"] == "rank":
        assert found.usage == expected.usage
        assert bool(found.warnings) == case.get("warns", False)
        assert sum(row.best_passage is not None for row in found) == case.get("passages", 0)
    assert described(found) == described(expected, within_a_millionth)
    assert ("error" in case) == isinstance(found, ClientError | ServiceError)


def test_a_name_that_is_not_served_in_process_is_not_found(reranker: Reranker) -> None:
    with pytest.raises(ServiceError, match="tiny") as caught:
        reranker.rank("q", ["a"], model="docs")
    assert caught.value.code == "not_found"


@pytest.mark.parametrize("option", [{"cascade": {"model": "first_stage"}}, {"fusion": "rrf"}, {"no_such": 1}])
def test_an_option_that_needs_a_server_is_refused_in_process(reranker: Reranker, option: dict[str, Any]) -> None:
    with pytest.raises(ServiceError, match="needs a server") as caught:
        reranker.rank("q", ["a"], **option)
    assert caught.value.param in option
