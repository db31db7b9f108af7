"""Callers that are no Python package: what each sends, read from its source, and what it reads of the answer."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

from runner import DOCUMENTS, call, main


def post(url: str, body: Any, headers: dict[str, str]) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"{error.code}: {error.read().decode()}") from None


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        assert 200 <= answer.status < 300
        content: bytes = answer.read()
        return content


def by_score(scores: Sequence[float]) -> list[int]:
    return sorted(range(len(scores)), key=lambda place: -scores[place])


@call("Weaviate", "reranker-transformers", version="1.34")
def weaviate(url: str, key: str, query: str) -> Sequence[int]:
    # It has no key to send.
    get(f"{url}/weaviate/.well-known/ready")
    assert isinstance(json.loads(get(f"{url}/weaviate/meta")), dict)
    body = {"query": query, "documents": DOCUMENTS, "property": ""}
    answer = post(f"{url}/weaviate/rerank", body, {})
    assert answer["query"] == query
    assert [row["document"] for row in answer["scores"]] == DOCUMENTS
    return by_score([row["score"] for row in answer["scores"]])


@call("Weaviate", "reranker-cohere", version="1.34")
def weaviate_cohere(url: str, key: str, query: str) -> Sequence[int]:
    body = {"model": "tiny", "query": query, "documents": DOCUMENTS, "return_documents": False}
    answer = post(
        f"{url}/v2/rerank", body, {"Authorization": f"Bearer {key}", "Request-Source": "unspecified:weaviate"}
    )
    return [row["index"] for row in answer["results"]]


@call("Elasticsearch", "inference, hugging_face", version="9.1")
def elasticsearch(url: str, key: str, query: str) -> Sequence[int]:
    body = {"documents": DOCUMENTS, "query": query, "return_documents": True, "top_n": 3}
    rows = post(f"{url}/tei/rerank", body, {"Authorization": f"Bearer {key}"})
    assert all(row.keys() == {"index", "score", "text"} for row in rows)
    return [row["index"] for row in rows]


@call("Elasticsearch", "inference, custom", version="9.1")
def elasticsearch_custom(url: str, key: str, query: str) -> Sequence[int]:
    body = {"query": query, "documents": DOCUMENTS}
    rows = post(f"{url}/v1/rerank", body, {"Authorization": f"Bearer {key}"})["results"]
    assert all(isinstance(row["relevance_score"], float) for row in rows)
    return [row["index"] for row in rows]


@call("OpenSearch", "cross-encoder on SageMaker", version="3.2")
def opensearch(url: str, key: str, query: str) -> Sequence[int]:
    body = {"inputs": [{"text": query, "text_pair": document} for document in DOCUMENTS]}
    rows = post(f"{url}/predict", body, {"Authorization": f"Bearer {key}"})
    return by_score([row["score"] for row in rows])


@call("Milvus", "ranker, vllm", version="2.6")
def milvus_vllm(url: str, key: str, query: str) -> Sequence[int]:
    body = {"model": "tiny", "query": query, "documents": DOCUMENTS}
    rows = post(f"{url}/v2/rerank", body, {"Authorization": f"Bearer {key}"})["results"]
    scores = {row["index"]: row["relevance_score"] for row in rows}
    return by_score([scores[place] for place in range(3)])


@call("Milvus", "ranker, tei", version="2.6")
def milvus_tei(url: str, key: str, query: str) -> Sequence[int]:
    body = {"query": query, "texts": DOCUMENTS, "truncate": True}
    rows = post(f"{url}/rerank", body, {"Authorization": f"Bearer {key}"})
    return [row["index"] for row in rows]


@call("LibreChat", "rag-api", version="0.8")
def librechat(url: str, key: str, query: str) -> Sequence[int]:
    candidates = [{"id": str(place), "text": text, "base_score": 0.5} for place, text in enumerate(DOCUMENTS)]
    body = {"profile": "default", "query": query, "candidates": candidates, "top_n": 3}
    answer = post(f"{url}/v1/rerank", body, {"Authorization": f"Bearer {key}"})
    assert isinstance(answer["model"], str)
    assert all(isinstance(row["score"], float) for row in answer["results"])
    return [row["index"] for row in answer["results"]]


main()
