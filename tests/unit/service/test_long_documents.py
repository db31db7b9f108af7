"""What becomes of documents that are too long, seen from outside and rule by rule."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import httpx
import pytest
from tests.live import LiveServer
from tests.served import POISON_WORD, poison_script, served

from rerankd.cache.base import CachedScore
from rerankd.errors import ScoringError
from rerankd.prompt.passages import ChunkRule, Span, Split
from rerankd.service.long_documents import LongDocumentRule, SplitDocuments, combine
from rerankd.settings import ModelSettings, Settings
from rerankd.types import ChunkAggregation, LongDocumentMode, LongDocuments, PairRef, RerankRequest

FILLER = "The committee discussed the budget of the transport office and postponed the decision to a later meeting. "
NEEDLE = "The capital of France is Paris."
QUERY = "What is the capital of France?"
PLAIN = RerankRequest("q", ("d",))


def long_text(characters: int, end: str = "") -> str:
    return (FILLER * (characters // len(FILLER) + 1))[: characters - len(end)] + end


@pytest.fixture(scope="module")
def texts() -> list[str]:
    hay = long_text(100_000)
    return [hay, long_text(100_000, f" {NEEDLE}"), "Bananas are yellow."]


def ask(server: LiveServer, path: str, **body: Any) -> dict[str, Any]:
    response = httpx.post(server.url + path, json={"query": QUERY, **body}, timeout=60)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_a_needle_at_the_end_is_found_at_its_offsets(tiny_server: LiveServer, texts: list[str]) -> None:
    answer = ask(tiny_server, "/rerank", documents=texts, long_documents="chunk")
    best = answer["results"][0]
    assert best["index"] == 1
    where = best["best_passage"]
    assert NEEDLE in texts[1][where["start"] : where["end"]]
    assert where["score"] == best["relevance_score"]
    assert answer["meta"]["long_documents"]["split_documents"] == 2
    assert answer["meta"]["long_documents"]["truncated_documents"] == 0


def test_a_needle_at_the_end_is_lost_where_documents_are_cut(tiny_server: LiveServer, texts: list[str]) -> None:
    answer = ask(tiny_server, "/rerank", documents=texts, long_documents="truncate")
    assert answer["scores"][0] == answer["scores"][1]
    assert answer["meta"]["long_documents"] == {"mode": "truncate", "truncated_documents": 2}


def test_long_documents_may_be_refused(tiny_server: LiveServer, texts: list[str]) -> None:
    body = {"query": QUERY, "documents": texts, "long_documents": "error"}
    response = httpx.post(f"{tiny_server.url}/rerank", json=body, timeout=60)
    assert response.status_code in (400, 413, 422)
    assert "limit" in response.json()["message"]


def test_spans_are_answered_in_coheres_shape(tiny_server: LiveServer, texts: list[str]) -> None:
    document = f"Bananas are yellow and grow in bunches. {NEEDLE} The weather is fine today, and the sea is calm."
    answer = ask(
        tiny_server,
        "/v2/rerank",
        documents=[document, "Nothing here."],
        model="tiny",
        relevant_spans={"mode": "enabled", "threshold": 0.3, "max_spans": 2},
    )
    (row,) = [row for row in answer["results"] if row["index"] == 0]
    spans = row["relevant_spans"]
    assert NEEDLE in document[spans[0]["start"] : spans[0]["end"]]
    assert len(spans) <= 2
    assert [span["score"] for span in spans] == sorted((span["score"] for span in spans), reverse=True)
    assert all(span["score"] >= 0.3 for span in spans)


def test_spans_never_overlap(tiny_server: LiveServer) -> None:
    document = f"{NEEDLE} " * 40
    asked = {"mode": "enabled", "threshold": 0}
    answer = ask(tiny_server, "/rerank", documents=[document], relevant_spans=asked)
    spans = sorted((span["start"], span["end"]) for span in answer["results"][0]["relevant_spans"])
    assert len(spans) > 3
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


def test_spans_that_were_not_asked_for_are_not_there(tiny_server: LiveServer) -> None:
    answer = ask(tiny_server, "/rerank", documents=[NEEDLE], relevant_spans={"mode": "disabled"})
    assert "relevant_spans" not in answer["results"][0]


async def test_the_cache_knows_passages() -> None:
    text = long_text(6_000)
    fields = {"long_documents": "chunk", "chunk_tokens": 64}
    async with served(cache="memory") as server:
        first = (await server.rerank("q", [text], **fields)).json()
        scored = server.engine.pairs
        again = (await server.rerank("q", [text], **fields)).json()
        assert server.engine.pairs == scored
        assert again["scores"] == first["scores"]
        assert again["meta"]["cached_documents"] == 1
        # One more sentence at the end: all passages but the last are known.
        await server.rerank("q", [text + " One more sentence at the very end of it."], **fields)
        assert 1 <= server.engine.pairs - scored <= 2
        assert server.nothing_is_left()


async def test_a_rate_counts_passages() -> None:
    async with served(rate_limit="20/minute", rate_limit_unit="documents") as server:
        fine = await server.rerank("q", [long_text(3_000)], long_documents="chunk", chunk_tokens=128)
        chunks = fine.json()["meta"]["long_documents"]["chunks"]
        assert fine.headers.get_list("ratelimit-remaining") == [str(20 - chunks)]
        assert chunks > 2
        scored = server.engine.pairs
        refused = await server.rerank("q", [long_text(5_000)], long_documents="chunk", chunk_tokens=64)
        assert refused.status_code in (413, 429)
        assert server.engine.pairs == scored


async def test_a_passage_that_fails_leaves_the_others_of_its_document() -> None:
    text = long_text(4_000, POISON_WORD)
    async with served(fake_script=poison_script("nan_on")) as server:
        answer = (await server.rerank("q", [text], long_documents="chunk", chunk_tokens=64)).json()
    assert answer["scores"][0] is not None
    assert "1 passages have no score" in " ".join(answer["meta"]["warnings"])


async def test_a_served_name_has_a_rule_of_its_own() -> None:
    models = {"long": ModelSettings(long_documents="chunk", chunk_tokens=32)}
    async with served(models=models) as server:
        own = (await server.rerank("q", [long_text(2_000)], model="long")).json()
        default = (await server.rerank("q", [long_text(2_000)])).json()
    assert own["meta"]["long_documents"]["chunks"] > 5
    assert "long_documents" not in default["meta"]


async def test_two_hundred_thousand_characters_are_split_and_scored() -> None:
    async with served() as server:
        answer = (await server.rerank("q", [long_text(200_000)], long_documents="chunk")).json()
    assert answer["meta"]["long_documents"]["chunks"] > 50
    assert answer["results"][0]["best_passage"]["end"] <= 200_000


@pytest.mark.parametrize(
    ("own", "asked", "truncate", "mode"),
    [
        ("truncate", None, None, "truncate"),
        ("truncate", "chunk", None, "chunk"),
        ("truncate", None, False, "error"),
        ("chunk", None, False, "chunk"),
        ("error", None, True, "truncate"),
        ("chunk", "truncate", False, "truncate"),
    ],
)
def test_the_nearest_rule_counts(
    own: LongDocumentMode, asked: LongDocumentMode | None, truncate: bool | None, mode: LongDocumentMode
) -> None:
    request = replace(PLAIN, truncate=truncate, long_documents=LongDocuments(mode=asked))
    assert LongDocumentRule(own).for_request(request).mode == mode


def test_a_request_may_lower_the_cap_and_not_raise_it() -> None:
    rule = LongDocumentRule.of(Settings(max_chunks_per_document=10))
    asks = [replace(PLAIN, long_documents=LongDocuments(max_chunks=most)) for most in (3, 99)]
    assert [rule.for_request(request).chunks.most for request in asks] == [3, 10]


@pytest.mark.parametrize(
    ("aggregation", "score"), [("max", 5.0), ("first", 1.0), ("mean", 2.0), ("min", 0.0), ("top_k_mean", 3.5)]
)
def test_passages_become_one_score(aggregation: ChunkAggregation, score: float) -> None:
    rule = LongDocumentRule("chunk", ChunkRule(), aggregation, top_k=2)
    split = SplitDocuments.of(["abcd"], [Split(tuple(Span(place, place + 1) for place in range(4)))])
    assert split.refs == tuple(PairRef(0, number) for number in range(4))
    combined = combine(rule, split, [CachedScore(logit, 10, False) for logit in (1.0, 5.0, 2.0, 0.0)])
    assert combined.pairs == (CachedScore(score, 40, False),)
    assert combined.best == ((Span(1, 2), 5.0),)


def test_a_document_without_any_scored_passage_has_the_error_of_the_first() -> None:
    split = SplitDocuments.of(["ab"], [Split((Span(0, 1), Span(1, 2)))])
    errors = [ScoringError("first"), ScoringError("second")]
    combined = combine(LongDocumentRule("chunk"), split, errors)
    assert (combined.pairs, combined.best) == ((errors[0],), (None,))
