"""Measuring a reranker on labelled data: the library behind ``rerankd evaluate``.

In: folders of queries, documents and judgements, and systems to compare. Out: a report. The way through:
dataset -> candidates (bm25) -> scorer (its scores are kept on disk) -> measures -> statistics -> report.
"""
