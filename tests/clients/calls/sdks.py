"""The vendors' own Python clients."""

from __future__ import annotations

from collections.abc import Sequence

from runner import DOCUMENTS, MODEL, call, main

NO_RETRIES = {"max_retries": 0}


@call("cohere", "ClientV2.rerank")
def cohere_v2(url: str, key: str, query: str) -> Sequence[int]:
    import cohere

    client = cohere.ClientV2(api_key=key, base_url=url)
    answer = client.rerank(model=MODEL, query=query, documents=DOCUMENTS, top_n=3, request_options=NO_RETRIES)
    return [row.index for row in answer.results]


@call("cohere", "ClientV2.rerank with relevant_spans")
def cohere_spans(url: str, key: str, query: str) -> Sequence[int]:
    import cohere

    client = cohere.ClientV2(api_key=key, base_url=url)
    spans = cohere.RerankRelevantSpans(mode="enabled", threshold=0.0, max_spans=2)
    answer = client.rerank(
        model=MODEL, query=query, documents=DOCUMENTS, top_n=3, relevant_spans=spans, request_options=NO_RETRIES
    )
    for row in answer.results:
        assert 1 <= len(row.relevant_spans) <= 2
        assert all(0 <= span.start < span.end <= len(DOCUMENTS[row.index]) for span in row.relevant_spans)
        assert all(0 <= span.score <= 1 for span in row.relevant_spans)
    return [row.index for row in answer.results]


@call("cohere", "Client.rerank")
def cohere_v1(url: str, key: str, query: str) -> Sequence[int]:
    import cohere

    client = cohere.Client(api_key=key, base_url=url)
    documents = [{"text": document} for document in DOCUMENTS]
    answer = client.rerank(
        model=MODEL, query=query, documents=documents, return_documents=True, request_options=NO_RETRIES
    )
    assert [row.document.text for row in answer.results] == [DOCUMENTS[row.index] for row in answer.results]
    return [row.index for row in answer.results]


@call("voyageai", "Client.rerank")
def voyage(url: str, key: str, query: str) -> Sequence[int]:
    import voyageai

    client = voyageai.Client(api_key=key, base_url=f"{url}/v1", max_retries=0)
    answer = client.rerank(query, DOCUMENTS, model=MODEL)
    assert answer.total_tokens > 0
    return [row.index for row in answer.results]


@call("dashscope", "TextReRank.call")
def dashscope(url: str, key: str, query: str) -> Sequence[int]:
    import dashscope

    dashscope.base_http_api_url = f"{url}/api/v1"
    answer = dashscope.TextReRank.call(
        model="gte-rerank", query=query, documents=DOCUMENTS, top_n=3, return_documents=True, api_key=key
    )
    if answer.status_code != 200:
        raise RuntimeError(f"{answer.status_code} {answer.code}: {answer.message}")
    assert answer.output.results[0]["document"]["text"] in DOCUMENTS
    return [row["index"] for row in answer.output.results]


@call("mixedbread", "Mixedbread.rerank")
def mixedbread(url: str, key: str, query: str) -> Sequence[int]:
    from mixedbread import Mixedbread

    client = Mixedbread(api_key=key, base_url=url, max_retries=0)
    answer = client.rerank(query=query, input=DOCUMENTS, model=MODEL, top_k=3, return_input=True)
    return [row.index for row in answer.data]


@call("infinity_client", "api.default.rerank.sync")
def infinity(url: str, key: str, query: str) -> Sequence[int]:
    from infinity_client import AuthenticatedClient
    from infinity_client.api.default import rerank
    from infinity_client.models import RerankInput

    client = AuthenticatedClient(base_url=url, token=key, raise_on_unexpected_status=True)
    answer = rerank.sync(client=client, body=RerankInput(query=query, documents=DOCUMENTS, model=MODEL))
    return [row.index for row in answer.results]


@call("xinference-client", "RESTfulClient.get_model().rerank")
def xinference(url: str, key: str, query: str) -> Sequence[int]:
    from xinference_client import RESTfulClient

    model = RESTfulClient(url, api_key=key).get_model(MODEL)
    answer = model.rerank(DOCUMENTS, query, return_documents=True)
    return [row["index"] for row in answer["results"]]


@call("pinecone", "Pinecone.inference.rerank")
def pinecone(url: str, key: str, query: str) -> Sequence[int]:
    from pinecone import Pinecone, RetryConfig

    client = Pinecone(api_key=key, host=url, retry_config=RetryConfig(max_retries=0))
    answer = client.inference.rerank(model=MODEL, query=query, documents=DOCUMENTS, top_n=3)
    assert [row.document["text"] for row in answer.data] == [DOCUMENTS[row.index] for row in answer.data]
    return [row.index for row in answer.data]


@call("zeroentropy", "ZeroEntropy.models.rerank")
def zeroentropy(url: str, key: str, query: str) -> Sequence[int]:
    from zeroentropy import ZeroEntropy

    client = ZeroEntropy(api_key=key, base_url=f"{url}/v1", max_retries=0)
    return [row.index for row in client.models.rerank(model=MODEL, query=query, documents=DOCUMENTS).results]


@call("isaacus", "Isaacus.rerankings.create")
def isaacus(url: str, key: str, query: str) -> Sequence[int]:
    from isaacus import Isaacus

    client = Isaacus(api_key=key, base_url=f"{url}/v1", max_retries=0)
    answer = client.rerankings.create(model="kanon-2-reranker", query=query, texts=DOCUMENTS)
    return [row.index for row in answer.results]


@call("contextual-client", "ContextualAI.rerank.create")
def contextual(url: str, key: str, query: str) -> Sequence[int]:
    from contextual import ContextualAI

    client = ContextualAI(api_key=key, base_url=f"{url}/v1", max_retries=0)
    answer = client.rerank.create(model=MODEL, query=query, documents=DOCUMENTS, instruction="Find the answer")
    return [row.index for row in answer.results]


@call("together", "Together.rerank.create")
def together(url: str, key: str, query: str) -> Sequence[int]:
    from together import Together

    client = Together(api_key=key, base_url=url, max_retries=0)
    return [row.index for row in client.rerank.create(model=MODEL, query=query, documents=DOCUMENTS).results]


@call("openai", "OpenAI.decisions.create")
def openai_decisions(url: str, key: str, query: str) -> Sequence[int]:
    from openai import OpenAI

    client = OpenAI(api_key=key, base_url=f"{url}/v1", max_retries=0)
    questions = [
        {"type": "predicate", "name": str(place), "instructions": f"Does this text answer the query? {document}"}
        for place, document in enumerate(DOCUMENTS)
    ]
    answers = client.decisions.create(model=MODEL, input=query, questions=questions).answers
    return [int(answer.name) for answer in sorted(answers, key=lambda answer: -answer.probability)]


def rerankers_call(provider: str, path: str) -> None:
    """One provider of the package rerankers, whose ``url`` is the whole address."""

    @call("rerankers", f"APIRanker, {provider}")
    def rank(url: str, key: str, query: str) -> Sequence[int]:
        from rerankers.models.api_rankers import APIRanker

        ranker = APIRanker(MODEL, api_key=key, api_provider=provider, url=f"{url}{path}", verbose=0)
        return [row.document.doc_id for row in ranker.rank(query, DOCUMENTS).results]


for name, path in {
    "cohere": "/v1/rerank",
    "jina": "/v1/rerank",
    "voyage": "/voyage/v1/rerank",
    "mixedbread.ai": "/v1/reranking",
    "text-embeddings-inference": "/rerank",
}.items():
    rerankers_call(name, path)

main()
