"""Servers are compared only if they read the same tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.payloads import PAYLOADS
from benchmarks.rivals import tokens
from benchmarks.rivals.openvino_rerank import framed
from benchmarks.serve import row
from benchmarks.workloads import Texts
from tokenizers import Tokenizer


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
    prompt = texts.prompt(body["query"], body["documents"])
    for document, tail in zip(documents, prompt.tails, strict=True):
        whole = [*prompt.prefix.tolist(), *tail.tolist()]
        assert tokenizer.encode(query + document, add_special_tokens=False).ids == whole


def test_a_server_that_counts_other_tokens_is_void(texts: Texts, monkeypatch: pytest.MonkeyPatch) -> None:
    body = PAYLOADS["10x64"].body(-1)
    right = sum(texts.prompt(body["query"], body["documents"]).pair_tokens)
    for found, words in ((right, ""), (right - 1, f"void: it reads {right - 1} tokens instead of {right}"),
                         (None, f"void: it reads an unknown number of tokens instead of {right}")):  # fmt: skip
        monkeypatch.setattr(tokens, "reported", lambda url, body, found=found: found)
        assert tokens.verdict(texts, "http://x", {}, is_framed=False) == words


def test_a_void_row_shows_its_reason_and_no_figure() -> None:
    load = {"server": "x", "payload": "10x64", "rate": 1.0, "concurrency": None, "requests": 2, "void": "void: why"}
    shown = row(load)
    assert shown["p50 s"] == "void: why"
    assert shown["pairs/s"] == shown["tokens/s"] == shown["p99 s"] == ""
