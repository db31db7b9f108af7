"""LiteLLM and Haystack."""

from __future__ import annotations

import os
from collections.abc import Sequence

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

from runner import DOCUMENTS, MODEL, call, main


@call("cohere-haystack", "CohereRanker")
def haystack_cohere(url: str, key: str, query: str) -> Sequence[int]:
    from haystack.utils import Secret
    from haystack_integrations.components.rankers.cohere import CohereRanker

    return ranked(CohereRanker(model=MODEL, api_key=Secret.from_token(key), api_base_url=url), query)


@call("jina-haystack", "JinaRanker")
def haystack_jina(url: str, key: str, query: str) -> Sequence[int]:
    from haystack.utils import Secret
    from haystack_integrations.components.rankers.jina import JinaRanker

    return ranked(JinaRanker(model=MODEL, api_key=Secret.from_token(key), base_url=f"{url}/v1/rerank"), query)


@call("huggingface-api-haystack", "HuggingFaceTEIRanker")
def haystack_tei(url: str, key: str, query: str) -> Sequence[int]:
    from haystack.utils import Secret
    from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker

    return ranked(HuggingFaceTEIRanker(url=url, token=Secret.from_token(key), max_retries=0), query)


@call("vllm-haystack", "VLLMRanker")
def haystack_vllm(url: str, key: str, query: str) -> Sequence[int]:
    from haystack.utils import Secret
    from haystack_integrations.components.rankers.vllm import VLLMRanker

    return ranked(VLLMRanker(model=MODEL, api_key=Secret.from_token(key), api_base_url=f"{url}/v1"), query)


@call("nvidia-haystack", "NvidiaRanker")
def haystack_nvidia(url: str, key: str, query: str) -> Sequence[int]:
    from haystack.utils import Secret
    from haystack_integrations.components.rankers.nvidia import NvidiaRanker

    ranker = NvidiaRanker(model=MODEL, api_key=Secret.from_token(key), api_url=f"{url}/v1", top_k=3)
    ranker.warm_up()
    return ranked(ranker, query)


@call("voyage-embedders-haystack", "VoyageRanker")
def haystack_voyage(url: str, key: str, query: str) -> Sequence[int]:
    import voyageai
    from haystack.utils import Secret
    from haystack_integrations.components.rankers.voyage import VoyageRanker

    ranker = VoyageRanker(model=MODEL, api_key=Secret.from_token(key))
    # It takes no address; its client is replaced.
    ranker._client = voyageai.Client(api_key=key, base_url=f"{url}/v1", max_retries=0)
    return ranked(ranker, query)


def ranked(ranker: object, query: str) -> Sequence[int]:
    """The order that a Haystack ranker gives to the documents."""
    from haystack import Document

    documents = [Document(content=document) for document in DOCUMENTS]
    answer = ranker.run(query=query, documents=documents)  # type: ignore[attr-defined]
    return [DOCUMENTS.index(document.content) for document in answer["documents"]]


def litellm_call(provider: str, path: str = "") -> None:
    """One provider of LiteLLM, with the base address that its users are told to give."""

    @call("litellm", f"rerank({provider}/…)")
    def rank(url: str, key: str, query: str) -> Sequence[int]:
        import litellm

        litellm.suppress_debug_info = True
        answer = litellm.rerank(
            model=f"{provider}/{MODEL}", query=query, documents=DOCUMENTS, api_base=f"{url}{path}", api_key=key
        )
        rows = answer.results
        if provider == "deepinfra":
            # DeepInfra's shape has no order; LiteLLM leaves it to its user.
            rows = sorted(rows, key=lambda row: -row["relevance_score"])
        return [row["index"] for row in rows]


for name, base in {
    "cohere": "",
    "jina_ai": "",
    "hosted_vllm": "",
    "infinity": "/infinity",
    "huggingface": "",
    "voyage": "",
    "together_ai": "",
    "litellm_proxy": "",
    "nvidia_nim": "",
    "deepinfra": "",
    "dashscope": "/compatible-api/v1",
}.items():
    litellm_call(name, base)

main()
