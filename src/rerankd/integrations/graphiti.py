"""Graphiti: a cross-encoder client, in place of the one that asks a language model for logprobs."""

from __future__ import annotations

from graphiti_core.cross_encoder.client import CrossEncoderClient

from rerankd.client import AsyncClient
from rerankd.integrations._ranker import DEFAULT_URL


class RerankdRerankerClient(CrossEncoderClient):
    """Ranks the facts of a search.

    Graphiti(uri, user, password, cross_encoder=RerankdRerankerClient("http://127.0.0.1:8000"))

    Args:
        base_url, api_key: of the server.
        instruction: what counts as relevant; None leaves it to the served name.
        model: a served name; None for the server's first.
        client: takes the place of ``base_url`` and ``api_key``.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        api_key: str | None = None,
        *,
        instruction: str | None = None,
        model: str | None = None,
        client: AsyncClient | None = None,
    ) -> None:
        self._client = client or AsyncClient(base_url, api_key)
        self._instruction = instruction
        self._model = model

    async def rank(self, query: str, passages: list[str]) -> list[tuple[str, float]]:
        """Each passage with its score in 0..1, best first."""
        if not passages:
            return []
        results = await self._client.rank(query, passages, self._instruction, model=self._model)
        return [(result.document.text, result.score) for result in results]
