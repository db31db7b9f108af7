"""Measuring a reranker on labelled data: the library behind ``rerankd evaluate``.

In: folders of queries, documents and judgements, and systems to compare. Out: a report. The way through:
dataset -> candidates -> scorer (with a checkpoint of its scores) -> measures -> statistics -> report.
"""
