"""LlamaIndex: a node postprocessor, for query engines and for calls of one's own."""

from __future__ import annotations

from typing import Any

from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr, SecretStr
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

from rerankd.client import Client
from rerankd.integrations._ranker import DEFAULT_URL, Ranker


class RerankdRerank(BaseNodePostprocessor):
    """Keeps the nodes that answer the query best; a node's score becomes its relevance.

        reranker = RerankdRerank(base_url="http://127.0.0.1:8000", top_n=3)
        index.as_query_engine(similarity_top_k=20, node_postprocessors=[reranker])

    ``ranker`` takes the place of ``base_url`` and ``api_key``: a ``Client`` with timeouts of its own, or a
    ``Reranker`` in this process.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    base_url: str = DEFAULT_URL
    api_key: SecretStr | None = None
    top_n: int | None = Field(default=None, ge=1)
    """How many nodes are kept; None for all."""
    instruction: str | None = None
    """What counts as relevant; None leaves it to the served name."""
    model: str | None = None
    """A served name; None for the server's first."""
    threshold: float | None = None
    """The least score of a node that is kept."""
    ranker: Ranker | None = Field(default=None, exclude=True)
    _ranker: Ranker = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        """Makes the client; nothing is asked yet."""
        super().model_post_init(context)
        key = None if self.api_key is None else self.api_key.get_secret_value()
        self._ranker = self.ranker or Client(self.base_url, key)

    @classmethod
    def class_name(cls) -> str:
        return "RerankdRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise ValueError("ranking needs a query: give query_bundle or query_str")
        if not nodes:
            return []
        # What an index embeds of a node is what its relevance is judged by.
        texts = [node.node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
        results = self._ranker.rank(
            query_bundle.query_str, texts, self.instruction, self.top_n, self.model, threshold=self.threshold
        )
        return [NodeWithScore(node=nodes[result.index].node, score=result.score) for result in results]
