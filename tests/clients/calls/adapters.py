"""rerankd's own adapters, and packages that rerank through decision endpoints."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "src"))

from runner import DOCUMENTS, MODEL, call, main

INSTRUCTION = "Given a question, find the text that answers it"


@call("langchain-core", "rerankd.integrations.langchain.RerankdRerank")
def langchain(url: str, key: str, query: str) -> Sequence[int]:
    from langchain_core.documents import Document

    from rerankd.integrations.langchain import RerankdRerank

    documents = [Document(text, id=str(place), metadata={"place": place}) for place, text in enumerate(DOCUMENTS)]
    reranker = RerankdRerank(base_url=url, api_key=key, top_n=3, instruction=INSTRUCTION, model=MODEL)
    found = reranker.compress_documents(documents, query)
    assert found == asyncio.run(reranker.acompress_documents(documents, query))
    assert [document.metadata["place"] for document in found] == [int(document.id or "") for document in found]
    scores = [document.metadata["relevance_score"] for document in found]
    assert scores == sorted(scores, reverse=True)
    assert all("relevance_score" not in document.metadata for document in documents)
    assert "sent-key" not in repr(RerankdRerank(base_url=url, api_key="sent-key"))
    assert list(reranker.compress_documents([], query)) == []
    return [document.metadata["place"] for document in found]


@call("llama-index-core", "rerankd.integrations.llama_index.RerankdRerank")
def llama_index(url: str, key: str, query: str) -> Sequence[int]:
    from llama_index.core.schema import NodeWithScore, TextNode

    from rerankd.integrations.llama_index import RerankdRerank

    nodes = [NodeWithScore(node=TextNode(id_=str(place), text=text)) for place, text in enumerate(DOCUMENTS)]
    reranker = RerankdRerank(base_url=url, api_key=key, top_n=3, instruction=INSTRUCTION, model=MODEL)
    found = reranker.postprocess_nodes(nodes, query_str=query)
    later = asyncio.run(reranker.apostprocess_nodes(nodes, query_str=query))
    assert [row.node.node_id for row in later] == [row.node.node_id for row in found]
    assert len(RerankdRerank(base_url=url, api_key=key, top_n=1).postprocess_nodes(nodes, query_str=query)) == 1
    assert reranker.postprocess_nodes([], query_str=query) == []
    return [int(row.node.node_id) for row in found]


@call("graphiti-core", "rerankd.integrations.graphiti.RerankdRerankerClient")
def graphiti(url: str, key: str, query: str) -> Sequence[int]:
    from graphiti_core.cross_encoder.client import CrossEncoderClient

    from rerankd.integrations.graphiti import RerankdRerankerClient

    client = RerankdRerankerClient(url, key, instruction=INSTRUCTION, model=MODEL)
    assert isinstance(client, CrossEncoderClient)

    async def rank() -> list[tuple[str, float]]:
        assert await client.rank(query, []) == []
        return await client.rank(query, DOCUMENTS)

    return [DOCUMENTS.index(passage) for passage, _ in asyncio.run(rank())]


@call("decisions-reranker", "DecisionsReranker.rerank")
def decisions_reranker(url: str, key: str, query: str) -> Sequence[int]:
    from decisions_reranker import DecisionsReranker, Document
    from openai import OpenAI

    reranker = DecisionsReranker(OpenAI(api_key=key, base_url=f"{url}/v1", max_retries=0), model=MODEL)
    documents = [Document(str(place), text) for place, text in enumerate(DOCUMENTS)]
    return [int(row.id) for row in reranker.rerank(query, documents)]


@call("hev-rerank", "rerank")
def hev(url: str, key: str, query: str) -> Sequence[int]:
    from hev_rerank import rerank
    from typesafe_sdk import RetryPolicy, TypeSafeClient

    client = TypeSafeClient(api_key=key, base_url=url, retry=RetryPolicy(max_retries=0))
    return [row.index for row in rerank(query, DOCUMENTS, client=client, model=MODEL)]


@call("langchain-zerank", "ZeroEntropyRerank")
def zerank(url: str, key: str, query: str) -> Sequence[int]:
    from langchain_core.documents import Document
    from langchain_zerank import ZeroEntropyRerank
    from zeroentropy import ZeroEntropy

    client = ZeroEntropy(api_key=key, base_url=f"{url}/v1", max_retries=0)
    documents = [Document(text, metadata={"place": place}) for place, text in enumerate(DOCUMENTS)]
    found = ZeroEntropyRerank(client=client, model=MODEL).compress_documents(documents, query)
    return [document.metadata["place"] for document in found]


main()
