"""Servers are compared only if they read the same tokens."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from benchmarks.payloads import PAYLOADS
from benchmarks.rivals import tokens
from benchmarks.rivals.openvino_rerank import framed
from benchmarks.rivals.seq_cls import STAND_IN, strippable
from benchmarks.serve import Answer, Measure, Plan, row
from benchmarks.workloads import Texts
from tokenizers import Tokenizer

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def texts(qwen3_file: Path) -> Texts:
    return Texts(qwen3_file)


@pytest.mark.parametrize("name", PAYLOADS)
def test_a_payload_has_the_tokens_it_is_named_for(name: str, texts: Texts) -> None:
    payload = PAYLOADS[name]
    lengths = tokens.shape(texts, payload.body(0))
    bare = tokens.shape(texts, {"query": "river " * 8, "documents": ["river"] * payload.documents})
    assert lengths.documents == payload.documents
    assert (lengths.prefix + lengths.tail) - (bare.prefix + bare.tail) in (payload.tokens - 1, payload.tokens - 2)


def test_framed_texts_put_together_are_the_prompt(texts: Texts, qwen3_file: Path) -> None:
    body = PAYLOADS["10x64"].body(0)
    query, documents = framed(body["query"], body["documents"], texts.instruction)
    tokenizer = Tokenizer.from_file(str(qwen3_file))
    pairs = texts.pairs(body["query"], body["documents"])
    for document, pair in zip(documents, pairs, strict=True):
        whole = pair.ids.tolist()
        assert tokenizer.encode(query + document, add_special_tokens=False).ids == whole


def test_framed_texts_that_infinity_strips_are_still_the_prompt(texts: Texts, qwen3_file: Path) -> None:
    tokenizer = strippable(Tokenizer.from_file(str(qwen3_file)))
    body = tokens.probe()
    sent = tokens.in_template(body, texts.instruction)
    pairs = texts.pairs(body["query"], body["documents"])
    for document, pair in zip(sent["documents"], pairs, strict=True):
        whole = pair.ids.tolist()
        # It reads the two as a pair, and counts them put together.
        assert tokenizer.encode(sent["query"].strip(), document.strip()).ids == whole
        assert tokenizer.encode(sent["query"] + document, add_special_tokens=False).ids == whole


def test_the_stand_in_is_a_text_like_any_other_elsewhere(qwen3_file: Path) -> None:
    plain, stripped = Tokenizer.from_file(str(qwen3_file)), strippable(Tokenizer.from_file(str(qwen3_file)))
    for text in (f"a {STAND_IN}", f"{STAND_IN} b", f"a{STAND_IN}b"):
        assert stripped.encode(text).ids == plain.encode(text).ids


def test_a_server_that_counts_other_tokens_is_void(texts: Texts, monkeypatch: pytest.MonkeyPatch) -> None:
    body = tokens.probe()
    right = sum(pair.tokens for pair in texts.pairs(body["query"], body["documents"]))
    for found, words in ((right, ""), (right - 1, f"void: it reads {right - 1} tokens instead of {right}"),
                         (None, f"void: it reads an unknown number of tokens instead of {right}")):  # fmt: skip
        answer = tokens.Reading(found, (0.5, 0.25))
        monkeypatch.setattr(tokens, "reading", lambda url, body, answer=answer: answer)
        assert tokens.verdict(texts, "http://x", {}, is_framed=False) == (words, (0.5, 0.25))


@pytest.mark.parametrize(
    "answer",
    [
        {"scores": [0.25, 0.75], "usage": {"total_tokens": 9}},
        {
            "results": [{"index": 1, "relevance_score": 0.75}, {"index": 0, "relevance_score": 0.25}],
            "usage": {"total_tokens": 9},
        },
    ],
)
def test_scores_are_read_in_the_order_of_the_documents(
    answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens.httpx, "post", lambda url, **_: _answer(answer))
    assert tokens.reading("http://x", {"documents": ["a", "b"]}) == tokens.Reading(9, (0.25, 0.75))
    with pytest.raises(RuntimeError, match="2 scores for 3 documents"):
        tokens.reading("http://x", {"documents": ["a", "b", "c"]})


def _answer(body: dict[str, Any], status: int = 200) -> httpx.Response:
    return httpx.Response(status, json=body, request=httpx.Request("POST", "http://x"))


def test_a_payload_is_named_with_its_rate_and_its_count() -> None:
    big, small = PAYLOADS["100x512"], PAYLOADS["10x64"]
    assert Plan.of("100x512*1", 20, []) == [Plan(big, None, 1, 1)]
    assert Plan.of("10x64@0.5", 20, []) == [Plan(small, 0.5, None, 20)]
    assert Plan.of("10x64@0.5*7", 20, [1, 8]) == [Plan(small, 0.5, None, 7)]
    assert Plan.of("10x64", 20, [1, 8]) == [Plan(small, None, 1, 20), Plan(small, None, 8, 20)]


def test_a_server_that_leaves_a_payload_is_not_asked_the_next(texts: Texts, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask(self: Measure, client: object, body: bytes, due: float) -> Answer:
        return Answer(1.0, "no answer within 9 s", is_lost=True) if body == b"50x256" else Answer(1.0)

    monkeypatch.setattr(Measure, "_ask", ask)
    monkeypatch.setattr(Measure, "_body", lambda self, payload, number: str(payload).encode())
    arguments = argparse.Namespace(limit=9.0, layout="small", framed=[])
    measure = Measure(arguments, texts, "x", "http://x", {}, None, None)
    plans = [plan for name in ("10x64*2", "50x256*2", "100x512*1") for plan in Plan.of(name, 1, [])]
    loads = list(measure.rows(plans))
    assert [(load.payload, load.requests, load.void) for load in loads] == [
        ("10x64", 2, ""),
        ("50x256", 1, "no answer within 9 s"),
        ("100x512", 0, "not asked after 50x256"),
    ]


def test_a_server_that_was_told_no_is_asked_on(texts: Texts, monkeypatch: pytest.MonkeyPatch) -> None:
    async def post(self: object, url: str, content: bytes, headers: object) -> httpx.Response:
        return _answer({}, 500 if len(json.loads(content)["documents"]) > 10 else 200)

    monkeypatch.setattr(httpx.AsyncClient, "post", post)
    arguments = argparse.Namespace(limit=9.0, layout="small", framed=[])
    measure = Measure(arguments, texts, "x", "http://x", {}, None, None)
    loads = list(measure.rows([*Plan.of("50x256*1", 1, []), *Plan.of("10x64*1", 1, [])]))
    assert [(load.failed, load.void) for load in loads] == [(1, "it answered 500"), (0, "")]


def test_a_void_row_shows_its_reason_and_no_figure() -> None:
    load = {"server": "x", "payload": "10x64", "rate": 1.0, "concurrency": None, "requests": 2, "void": "void: why"}
    shown = row(load)
    assert shown["p50 s"] == "void: why"
    assert shown["pairs/s"] == shown["tokens/s"] == shown["p99 s"] == ""
