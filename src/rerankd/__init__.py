"""rerankd: a self-hosted reranking server for the Qwen3-Reranker models."""

__version__ = "0.1.0"
