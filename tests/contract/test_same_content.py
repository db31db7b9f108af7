"""H-08: the same content by every dialect is the same request, hence the same token ids and scores."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from tests.contract.answers import TABLE

from rerankd.types import RerankRequest
from rerankd.wire.base import ReadLimits
from rerankd.wire.registry import ROUTES

QUERY = "法国的首都是哪里？"
DOCUMENTS = ["Paris is\nthe capital. <|im_end|>", "  Berlin \t", "", "yes"]
INSTRUCTION = "Given a question, find its answer"
PLAIN = {"query": QUERY, "documents": DOCUMENTS}
AS_OBJECTS = [{"text": document} for document in DOCUMENTS]

BODIES: dict[str, dict[str, Any]] = {
    "native": PLAIN,
    "superset": {"query": {"text": QUERY}, "documents": AS_OBJECTS},
    "cohere-v1": {"query": QUERY, "documents": AS_OBJECTS},
    "cohere-v2": PLAIN,
    "jina": {"query": QUERY, "documents": AS_OBJECTS},
    "voyage": {**PLAIN, "top_k": None},
    "vllm": {**PLAIN, "query": {"content": [{"type": "text", "text": QUERY}]}},
    "vllm-score": {"text_1": QUERY, "text_2": DOCUMENTS},
    "tei": {"query": QUERY, "texts": DOCUMENTS},
    "tei-predict": {"inputs": [[QUERY, document] for document in DOCUMENTS]},
    "infinity": PLAIN,
    "xinference": PLAIN,
    "siliconflow": PLAIN,
    "dashscope": {"input": PLAIN, "parameters": {}},
    "dashscope-compatible": PLAIN,
    "mixedbread": {"query": QUERY, "input": DOCUMENTS},
    "nvidia": {"query": {"text": QUERY}, "passages": AS_OBJECTS},
    "llamacpp": PLAIN,
    "sglang": PLAIN,
    "deepinfra": {"queries": [QUERY] * len(DOCUMENTS), "documents": DOCUMENTS},
    "native-batch": {"pairs": [PLAIN]},
    "pinecone": {"query": QUERY, "documents": AS_OBJECTS, "rank_fields": ["text"]},
    "zeroentropy": PLAIN,
    "isaacus": {"query": QUERY, "texts": DOCUMENTS},
    "librechat": {"query": QUERY, "candidates": AS_OBJECTS},
    "weaviate": {**PLAIN, "property": ""},
    "elasticsearch": PLAIN,
    "systemone": {
        "state": {"query": QUERY, "documents": DOCUMENTS},
        "questions": {
            str(place): {"type": "noul", "instructions": f"Is `documents[{place}]` relevant?"}
            for place in range(len(DOCUMENTS))
        },
    },
    "decisions": {
        "input": QUERY,
        "questions": [
            {"type": "predicate", "instructions": f"Is `document` relevant? Document: {text}"}
            for text in DOCUMENTS
            if text
        ],
    },
}
QUESTIONS = {"systemone", "decisions"}
"""Dialects whose instruction is the question."""

ROUTE_OF = {dialect.name: (route, dialect) for route in ROUTES for dialect in route.dialects}

SPELLINGS: tuple[dict[str, Any], ...] = (
    {"instruction": INSTRUCTION},
    {"instruct": INSTRUCTION},
    {"chat_template_kwargs": {"instruction": INSTRUCTION}},
    {"kwargs": '{"instruction": "Given a question, find its answer"}'},
    {"kwargs": {"instruction": INSTRUCTION}},
)

pytestmark = pytest.mark.promise("H-08")


def request_of(name: str, extra: dict[str, Any]) -> RerankRequest:
    route, dialect = ROUTE_OF[name]
    body = BODIES[name] | extra
    if name == "native-batch":
        body = {"pairs": [PLAIN | extra]}
    requests = dialect.parse(body, ReadLimits()).requests
    assert len(requests) == 1, f"{name} at {route.path} made {len(requests)} requests of one query"
    return requests[0]


@pytest.mark.parametrize("name", [name for name in ROUTE_OF if name not in QUESTIONS])
def test_the_same_content_is_the_same_request(name: str) -> None:
    assert request_of(name, {}) == RerankRequest(query=QUERY, documents=tuple(DOCUMENTS))


def test_questions_about_documents_are_the_same_request_with_the_question_for_instruction() -> None:
    asked = RerankRequest(query=QUERY, documents=tuple(DOCUMENTS), instruction="Is `document` relevant?")
    assert request_of("systemone", {}) == asked
    # Inside a text blanks around a document are no part of it, and an empty one cannot be told from none.
    stripped = tuple(text.strip() for text in DOCUMENTS if text)
    assert request_of("decisions", {}) == dataclasses.replace(asked, documents=stripped)


@pytest.mark.parametrize("name", [name for name in ROUTE_OF if name not in QUESTIONS])
@pytest.mark.parametrize("spelling", SPELLINGS, ids=["instruction", "instruct", "template", "string", "object"])
def test_an_instruction_is_read_by_any_of_its_names(name: str, spelling: dict[str, Any]) -> None:
    assert request_of(name, spelling).instruction == INSTRUCTION


def test_dashscope_says_its_instruction_among_the_parameters() -> None:
    extra = {"parameters": {"instruct": INSTRUCTION}}
    assert request_of("dashscope", extra).instruction == INSTRUCTION


def test_a_mount_reads_what_its_root_path_reads() -> None:
    for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
        root, mounted = TABLE.find(path), TABLE.find(f"/vllm{path}")
        assert root is not None
        assert mounted is not None
        asked = [found[0].choose(PLAIN).parse(PLAIN, ReadLimits()).requests for found in (root, mounted)]
        assert asked[0] == asked[1]
