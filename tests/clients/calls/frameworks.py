"""LangChain and LlamaIndex."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any

warnings.simplefilter("ignore")

from runner import DOCUMENTS, MODEL, call, main  # noqa: E402


def compressed(compressor: Any, query: str) -> Sequence[int]:
    """The order that a LangChain compressor gives to the documents."""
    from langchain_core.documents import Document

    documents = [Document(page_content=document) for document in DOCUMENTS]
    return [DOCUMENTS.index(document.page_content) for document in compressor.compress_documents(documents, query)]


def processed(postprocessor: Any, query: str) -> Sequence[int]:
    """The order that a LlamaIndex postprocessor gives to the documents."""
    from llama_index.core.schema import NodeWithScore, TextNode

    nodes = [NodeWithScore(node=TextNode(text=document), score=0.0) for document in DOCUMENTS]
    return [
        DOCUMENTS.index(row.node.get_content()) for row in postprocessor.postprocess_nodes(nodes, query_str=query)
    ]


@call("cohere", "ClientV2.rerank")
def cohere_v2(url: str, key: str, query: str) -> Sequence[int]:
    import cohere

    client = cohere.ClientV2(api_key=key, base_url=url)
    answer = client.rerank(model=MODEL, query=query, documents=DOCUMENTS, request_options={"max_retries": 0})
    return [row.index for row in answer.results]


@call("voyageai", "Client.rerank")
def voyage(url: str, key: str, query: str) -> Sequence[int]:
    import voyageai

    # The mount, because at /v1 this old client shows none of our errors.
    answer = voyageai.Client(api_key=key, base_url=f"{url}/voyage/v1").rerank(query, DOCUMENTS, model=MODEL)
    return [row.index for row in answer.results]


@call("langchain-cohere", "CohereRerank")
def langchain_cohere(url: str, key: str, query: str) -> Sequence[int]:
    import cohere
    from langchain_cohere import CohereRerank

    client = cohere.ClientV2(api_key=key, base_url=url)
    return compressed(CohereRerank(client=client, model=MODEL, top_n=3), query)


@call("langchain-community", "JinaRerank")
def langchain_jina(url: str, key: str, query: str) -> Sequence[int]:
    from langchain_community.document_compressors import jina_rerank

    # The address is a constant of the module.
    jina_rerank.JINA_API_URL = f"{url}/v1/rerank"
    return compressed(jina_rerank.JinaRerank(jina_api_key=key, top_n=3), query)


@call("langchain-community", "InfinityRerank")
def langchain_infinity(url: str, key: str, query: str) -> Sequence[int]:
    from infinity_client import Client
    from langchain_community.document_compressors.infinity_rerank import InfinityRerank

    InfinityRerank.model_rebuild(_types_namespace={"Client": Client})
    # Without the flag it drops every error, and the reranker falls over what is not there.
    headers = {"Authorization": f"Bearer {key}"}
    client = Client(base_url=url, headers=headers, raise_on_unexpected_status=True)
    return compressed(InfinityRerank(client=client, model=MODEL, top_n=3), query)


@call("langchain-community", "DashScopeRerank")
def langchain_dashscope(url: str, key: str, query: str) -> Sequence[int]:
    import dashscope
    from langchain_community.document_compressors.dashscope_rerank import DashScopeRerank

    dashscope.base_http_api_url = f"{url}/api/v1"
    return compressed(DashScopeRerank(dashscope_api_key=key, top_n=3), query)


@call("langchain-nvidia-ai-endpoints", "NVIDIARerank")
def langchain_nvidia(url: str, key: str, query: str) -> Sequence[int]:
    from langchain_nvidia_ai_endpoints import NVIDIARerank

    return compressed(NVIDIARerank(base_url=f"{url}/v1", model=MODEL, api_key=key, top_n=3), query)


@call("langchain-voyageai", "VoyageAIRerank")
def langchain_voyage(url: str, key: str, query: str) -> Sequence[int]:
    from langchain_voyageai import VoyageAIRerank

    return compressed(VoyageAIRerank(api_key=key, base_url=f"{url}/voyage/v1", model=MODEL), query)


@call("llama-index-postprocessor-contextual-rerank", "ContextualRerank")
def llama_contextual(url: str, key: str, query: str) -> Sequence[int]:
    from llama_index.postprocessor.contextual_rerank import ContextualRerank

    return processed(ContextualRerank(base_url=f"{url}/v1", api_key=key, model=MODEL, top_n=3), query)


@call("llama-index-postprocessor-cohere-rerank", "CohereRerank")
def llama_cohere(url: str, key: str, query: str) -> Sequence[int]:
    from llama_index.postprocessor.cohere_rerank import CohereRerank

    return processed(CohereRerank(base_url=url, api_key=key, model=MODEL, top_n=3), query)


@call("llama-index-postprocessor-jinaai-rerank", "JinaRerank")
def llama_jina(url: str, key: str, query: str) -> Sequence[int]:
    from llama_index.postprocessor.jinaai_rerank import JinaRerank

    return processed(JinaRerank(base_url=f"{url}/v1", api_key=key, model=MODEL, top_n=3), query)


@call("llama-index-postprocessor-voyageai-rerank", "VoyageAIRerank")
def llama_voyage(url: str, key: str, query: str) -> Sequence[int]:
    import voyageai
    from llama_index.postprocessor.voyageai_rerank import VoyageAIRerank

    postprocessor = VoyageAIRerank(model=MODEL, api_key=key, top_n=3)
    # It takes no address; its client is replaced.
    postprocessor._client = voyageai.Client(api_key=key, base_url=f"{url}/voyage/v1")
    return processed(postprocessor, query)


@call("llama-index-postprocessor-tei-rerank", "TextEmbeddingInference")
def llama_tei(url: str, key: str, query: str) -> Sequence[int]:
    from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

    return processed(TextEmbeddingInference(base_url=url, auth_token=f"Bearer {key}", top_n=3), query)


@call("llama-index-postprocessor-siliconflow-rerank", "SiliconFlowRerank")
def llama_siliconflow(url: str, key: str, query: str) -> Sequence[int]:
    from llama_index.postprocessor.siliconflow_rerank import SiliconFlowRerank

    return processed(SiliconFlowRerank(base_url=f"{url}/v1/rerank", api_key=key, model=MODEL, top_n=3), query)


@call("llama-index-postprocessor-dashscope-rerank", "DashScopeRerank")
def llama_dashscope(url: str, key: str, query: str) -> Sequence[int]:
    import dashscope
    from llama_index.postprocessor.dashscope_rerank import DashScopeRerank

    dashscope.base_http_api_url = f"{url}/api/v1"
    return processed(DashScopeRerank(api_key=key, top_n=3), query)


@call("llama-index-postprocessor-xinference-rerank", "XinferenceRerank")
def llama_xinference(url: str, key: str, query: str) -> Sequence[int]:
    from llama_index.postprocessor.xinference_rerank import XinferenceRerank

    return processed(XinferenceRerank(base_url=url, model=MODEL, top_n=3), query)


@call("llama-index-postprocessor-nvidia-rerank", "NVIDIARerank")
def llama_nvidia(url: str, key: str, query: str) -> Sequence[int]:
    from llama_index.postprocessor.nvidia_rerank import NVIDIARerank

    return processed(NVIDIARerank(base_url=f"{url}/v1", model=MODEL, api_key=key, top_n=3), query)


@call("llama-index-postprocessor-mixedbreadai-rerank", "MixedbreadAIRerank")
def llama_mixedbread(url: str, key: str, query: str) -> Sequence[int]:
    os.environ["MIXEDBREAD_BASE_URL"] = url
    from llama_index.postprocessor.mixedbreadai_rerank import MixedbreadAIRerank

    return processed(MixedbreadAIRerank(api_key=key, model=MODEL, top_n=3, max_retries=0), query)


main()
