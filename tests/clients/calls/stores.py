"""LanceDB, milvus-model, LightRAG and Mem0."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

os.environ["MEM0_TELEMETRY"] = "False"

from runner import DOCUMENTS, MODEL, call, main


def on_cohere(url: str) -> None:
    """Cohere's client reads its address from the environment, once, when it is imported."""
    os.environ["CO_API_URL"] = url
    users = ("cohere", "milvus_model.reranker.cohere", "lancedb.rerankers.cohere", "mem0.reranker.cohere_reranker")
    for name in list(sys.modules):
        if any(name == user or name.startswith(f"{user}.") for user in users):
            del sys.modules[name]


def from_table(reranker: Any, query: str) -> list[int]:
    """The order that a reranker of LanceDB gives to the rows of a search."""
    import pyarrow as pa

    rows = pa.table({"text": DOCUMENTS, "_rowid": [0, 1, 2], "_distance": [0.1, 0.2, 0.3]})
    found = reranker.rerank_vector(query, rows).sort_by([("_relevance_score", "descending")])
    return [DOCUMENTS.index(text) for text in found["text"].to_pylist()]


@call("lancedb", "CohereReranker")
def lancedb_cohere(url: str, key: str, query: str) -> Sequence[int]:
    on_cohere(url)
    from lancedb.rerankers.cohere import CohereReranker

    return from_table(CohereReranker(MODEL, api_key=key), query)


@call("lancedb", "JinaReranker")
def lancedb_jina(url: str, key: str, query: str) -> Sequence[int]:
    from lancedb.rerankers import jinaai

    # The address is a constant of the module.
    jinaai.API_URL = f"{url}/v1/rerank"
    return from_table(jinaai.JinaReranker(MODEL, api_key=key), query)


@call("lancedb", "VoyageAIReranker")
def lancedb_voyage(url: str, key: str, query: str) -> Sequence[int]:
    import voyageai
    from lancedb.rerankers import VoyageAIReranker

    reranker = VoyageAIReranker(MODEL, api_key=key)
    # It takes no address; its client is replaced.
    reranker.__dict__["_client"] = voyageai.Client(api_key=key, base_url=f"{url}/v1", max_retries=0)
    return from_table(reranker, query)


@call("lancedb", "TypeSafeReranker")
def lancedb_typesafe(url: str, key: str, query: str) -> Sequence[int]:
    return from_table(typesafe(url, key, 1), query)


@call("lancedb", "TypeSafeReranker, batch_size=40")
def lancedb_typesafe_batch(url: str, key: str, query: str) -> Sequence[int]:
    return from_table(typesafe(url, key, 40), query)


def typesafe(url: str, key: str, batch_size: int) -> Any:
    from lancedb.rerankers import TypeSafeReranker
    from typesafe_sdk import RetryPolicy, TypeSafeClient

    reranker = TypeSafeReranker(MODEL, api_key=key, batch_size=batch_size)
    reranker.__dict__["_client"] = TypeSafeClient(api_key=key, base_url=url, retry=RetryPolicy(max_retries=0))
    return reranker


@call("milvus-model", "CohereRerankFunction")
def milvus_cohere(url: str, key: str, query: str) -> Sequence[int]:
    on_cohere(url)
    from milvus_model.reranker.cohere import CohereRerankFunction

    # Cohere's newer client has no return_documents, and the function passes it on unless it is empty.
    function = CohereRerankFunction(MODEL, api_key=key)
    function.rerank_config = _WithoutDocuments()
    return [row.index for row in function(query, DOCUMENTS)]


class _WithoutDocuments(dict[str, bool]):
    """Options to pass on: none; and the documents do not come back."""

    def __getitem__(self, key: str) -> bool:
        return False


@call("milvus-model", "JinaRerankFunction")
def milvus_jina(url: str, key: str, query: str) -> Sequence[int]:
    # A package of that name stands in the way of the module, whose constant the address is.
    module = importlib.import_module("milvus_model.reranker.jinaai")
    module.API_URL = f"{url}/jina/v1/rerank"
    return [row.index for row in module.JinaRerankFunction(MODEL, api_key=key)(query, DOCUMENTS)]


@call("milvus-model", "VoyageRerankFunction")
def milvus_voyage(url: str, key: str, query: str) -> Sequence[int]:
    import voyageai
    from milvus_model.reranker.voyageai import VoyageRerankFunction

    function = VoyageRerankFunction(MODEL, api_key=key)
    function.client = voyageai.Client(api_key=key, base_url=f"{url}/v1", max_retries=0)
    return [row.index for row in function(query, DOCUMENTS)]


def lightrag_call(name: str, path: str) -> None:
    """One rerank function of LightRAG, with the whole address."""

    @call("lightrag-hku", name)
    def rank(url: str, key: str, query: str) -> Sequence[int]:
        import lightrag.rerank
        from tenacity import RetryError, wait_none

        lightrag.rerank.generic_rerank_api.retry.wait = wait_none()
        function = getattr(lightrag.rerank, name)
        try:
            rows = asyncio.run(function(query, DOCUMENTS, top_n=3, api_key=key, model=MODEL, base_url=f"{url}{path}"))
        except RetryError as error:
            # Its own log has the last attempt's error.
            raise error.last_attempt.exception() or error from None
        return [row["index"] for row in rows]


for function, where in {
    "cohere_rerank": "/v2/rerank",
    "jina_rerank": "/v1/rerank",
    "ali_rerank": "/api/v1/services/rerank/text-rerank/text-rerank",
}.items():
    lightrag_call(function, where)


def memories(reranker: Any, query: str) -> list[int]:
    """The order that a reranker of Mem0 gives to memories; it keeps the old one where it met an error."""
    rows = reranker.rerank(query, [{"memory": document, "place": place} for place, document in enumerate(DOCUMENTS)])
    return [row["place"] for row in rows]


@call("mem0ai", "CohereReranker")
def mem0_cohere(url: str, key: str, query: str) -> Sequence[int]:
    on_cohere(url)
    from mem0.configs.rerankers.cohere import CohereRerankerConfig
    from mem0.reranker.cohere_reranker import CohereReranker

    return memories(CohereReranker(CohereRerankerConfig(model=MODEL, api_key=key)), query)


@call("mem0ai", "ZeroEntropyReranker")
def mem0_zeroentropy(url: str, key: str, query: str) -> Sequence[int]:
    os.environ["ZEROENTROPY_BASE_URL"] = f"{url}/v1"
    from mem0.configs.rerankers.zero_entropy import ZeroEntropyRerankerConfig
    from mem0.reranker.zero_entropy_reranker import ZeroEntropyReranker

    return memories(ZeroEntropyReranker(ZeroEntropyRerankerConfig(model=MODEL, api_key=key)), query)


main()
