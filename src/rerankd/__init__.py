"""rerankd: a self-hosted reranking server for the Qwen3-Reranker models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rerankd.client import Client, RerankerClient
    from rerankd.reranker import Reranker

__version__ = "0.1.0"
__all__ = ["Client", "Reranker", "RerankerClient"]


def __getattr__(name: str) -> Any:
    """The public names, imported when they are asked for: a client needs no model, and a model no client."""
    if name == "Reranker":
        from rerankd.reranker import Reranker

        return Reranker
    if name in __all__:
        from rerankd import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
