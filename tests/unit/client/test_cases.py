"""One file of cases, each run with both clients: what is sent, waited for, answered and raised is the same."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from rerankd.client import AsyncClient, Client, ClientError, Document, Query, RankedResults, Result, errors

CASES = json.loads((Path(__file__).parent / "cases.json").read_text(encoding="utf-8"))

Outcome = RankedResults | list[Any] | ClientError


class Stage:
    """Plays a case's exchanges and keeps what was sent and waited."""

    def __init__(self, case: dict[str, Any]) -> None:
        self.exchanges = iter(case["exchanges"])
        self.sent: list[dict[str, Any]] = []
        self.headers: list[httpx.Headers] = []
        self.waits: list[float] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.sent.append({"path": request.url.path, "body": json.loads(request.content or "null")})
        self.headers.append(request.headers)
        exchange = next(self.exchanges)
        if "fault" in exchange:
            raise getattr(httpx, exchange["fault"])("on purpose", request=request)
        content = {"text": exchange["text"]} if "text" in exchange else {"json": exchange["body"]}
        return httpx.Response(exchange["status"], headers=exchange.get("headers"), **content)


def arguments(call: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    given = {name: value for name, value in call.items() if name != "method"}
    if "documents" in given:
        given["documents"] = [Document(**one) if isinstance(one, dict) else one for one in given["documents"]]
    if "queries" in given:
        given["queries"] = [Query(**one) for one in given["queries"]]
    return call["method"], given


def play_sync(case: dict[str, Any], stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    monkeypatch.setattr(time, "sleep", stage.waits.append)
    method, given = arguments(case["call"])
    with Client("http://server.test/base/", "secret", transport=httpx.MockTransport(stage.answer)) as client:
        try:
            return getattr(client, method)(**given)
        except ClientError as error:
            return error


def play_async(case: dict[str, Any], stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    async def sleep(seconds: float) -> None:
        stage.waits.append(seconds)

    async def play() -> Outcome:
        transport = httpx.MockTransport(stage.answer)
        async with AsyncClient("http://server.test/base/", "secret", transport=transport) as client:
            call: Callable[..., Awaitable[Any]] = getattr(client, method)
            try:
                return await call(**given)
            except ClientError as error:
                return error

    monkeypatch.setattr(asyncio, "sleep", sleep)
    method, given = arguments(case["call"])
    return asyncio.run(play())


def described(item: RankedResults | errors.StatusError) -> dict[str, Any]:
    if isinstance(item, errors.StatusError):
        return {"error": type(item).__name__, "message": item.message}
    said: dict[str, Any] = {} if item.nothing_relevant is None else {"nothing_relevant": item.nothing_relevant}
    if any(rows := [row_facts(result) for result in item]):
        said["rows"] = rows
    return said | {
        "order": [result.index for result in item],
        "scores": list(item.scores),
        "texts": [result.document.text for result in item],
        "model": item.model,
        "id": item.id,
        "tokens": item.usage.total_tokens if item.usage else None,
        "errors": [[error.index, error.code, error.message] for error in item.errors],
    }


def row_facts(result: Result) -> dict[str, Any]:
    """What a result has beside its score, as far as it has any."""
    best = result.best_passage
    known = {
        "best_passage": best and [best.start, best.end, best.score],
        "relevant_spans": [[span.start, span.end, span.score] for span in result.relevant_spans] or None,
        "model_score": result.model_score,
        "rescored": result.rescored,
    }
    return {name: value for name, value in known.items() if value is not None}


@pytest.mark.parametrize("play", [play_sync, play_async])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_both_clients_do_the_same(case: dict[str, Any], play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(case)
    outcome = play(case, stage, monkeypatch)
    if "error" in case:
        assert isinstance(outcome, ClientError), outcome
        expected = case["error"] | {"kind": case["error"]["kind"]}
        found = {"kind": type(outcome).__name__} | {
            name: getattr(outcome, name) for name in expected if name != "kind"
        }
        assert found == expected
    elif "answer" in case:
        assert json.loads(json.dumps(outcome, default=dataclasses.asdict)) == case["answer"]
    else:
        assert not isinstance(outcome, ClientError), outcome
        items = outcome if isinstance(outcome, list) else [outcome]
        assert [described(item) for item in items] == case["ranked"]
    assert len(stage.sent) == len(case["exchanges"])
    assert stage.sent[: len(case.get("sent", []))] == [
        {"path": f"/base{sent['path']}", "body": sent["body"]} for sent in case.get("sent", [])
    ]
    assert len(stage.waits) == len(case.get("waits", []))
    assert all(low <= wait <= high for wait, (low, high) in zip(stage.waits, case.get("waits", []), strict=True))


@pytest.mark.parametrize("play", [play_sync, play_async])
def test_every_attempt_carries_the_key_and_the_time_that_is_left(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(case for case in CASES if case["name"].startswith("503"))
    stage = Stage(case)
    play(case, stage, monkeypatch)
    left = [int(headers["X-Request-Timeout-Ms"]) for headers in stage.headers]
    assert {headers["Authorization"] for headers in stage.headers} == {"Bearer secret"}
    assert 29_000 < left[2] <= left[1] <= left[0] <= 30_000


def test_metadata_comes_back_with_its_document() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"scores": [0.1, 0.9]})

    documents = [Document("a"), Document("b", id="7", metadata={"page": 2})]
    with Client("http://server.test", transport=httpx.MockTransport(answer)) as client:
        results = client.rank("q", documents)
    assert results[0].document is documents[1]
    assert results.top(1) == results[:1]
    assert results.top(9) == tuple(results)
    assert results.top(0) == ()
