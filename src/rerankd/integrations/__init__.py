"""Adapters to frameworks whose own rerankers take no address: LangChain, LlamaIndex, Graphiti.

Each module needs its framework, which the extra of the same name brings: ``pip install rerankd[langchain]``,
``rerankd[llama-index]``, ``rerankd[graphiti]``. They call through :mod:`rerankd.client`, or a ``Reranker`` in this
process.
"""
