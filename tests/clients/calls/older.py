"""LangChain on Contextual, whose client is an older one."""

from __future__ import annotations

from collections.abc import Sequence

from runner import DOCUMENTS, MODEL, call, main


@call("langchain-contextual", "ContextualRerank")
def langchain_contextual(url: str, key: str, query: str) -> Sequence[int]:
    from langchain_contextual import ContextualRerank
    from langchain_core.documents import Document

    compressor = ContextualRerank(model=MODEL, api_key=key, base_url=f"{url}/v1")
    documents = [Document(page_content=document) for document in DOCUMENTS]
    return [DOCUMENTS.index(document.page_content) for document in compressor.compress_documents(documents, query)]


main()
