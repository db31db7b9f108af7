"""The client for scripts that read the server's JSON: dictionaries in, dictionaries out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import httpx

from rerankd.client._calls import as_object, health_call
from rerankd.client._core import Call
from rerankd.client._parts import call_plan
from rerankd.client.retry import MOST_RETRIES
from rerankd.client.sync_client import Client
from rerankd.client.values import Timeout


class RerankerClient:
    """Three calls whose answers are the server's own objects, as its OpenAPI document describes them.

        client = RerankerClient("http://127.0.0.1:8000", api_key="…")
        client.rerank("capital of France", ["Berlin …", "Paris …"], top_k=1)["ranked_documents"]

    Address, key, timeouts, retries and errors are those of :class:`~rerankd.client.Client`, which new code may
    prefer: its answers have types, and it sends big requests in parts.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        api_key: str | None = None,
        *,
        timeout: Timeout | None = None,
        retries: int = MOST_RETRIES,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._client = Client(base_url, api_key, timeout=timeout, retries=retries, transport=transport)

    def rerank(
        self, query: str, documents: Sequence[str], instruction: str | None = None, top_k: int | None = None
    ) -> dict[str, Any]:
        """``scores`` in input order; ``ranked_documents`` and ``ranked_scores``, the best ``top_k``, best first."""
        body = {"query": query, "documents": list(documents), "instruction": instruction, "top_k": top_k}
        return self._ask("/rerank", {key: value for key, value in body.items() if value is not None})

    def batch_rerank(self, pairs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """``results``: one object a pair, in order, with ``query`` and the keys of :meth:`rerank`, or ``error``.

        Args:
            pairs: objects with ``query`` and ``documents``, and perhaps ``instruction`` and ``top_k``.
        """
        return self._ask("/batch_rerank", {"pairs": list(pairs)})

    def health_check(self) -> dict[str, Any]:
        """``status``: "healthy", or "unhealthy" with a ``reason``; only a server that cannot be asked raises."""
        return self._client.run(call_plan(health_call()))

    def _ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._client.run(call_plan(Call(path, body, as_object)))

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
