"""Candidates for a set that brings none: BM25 over its documents, for words and for Chinese."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from rerankd.evaluate.dataset import EvaluationSet
from rerankd.evaluate.errors import extra

K1, B = 0.9, 0.4
"""Anserini's values, so that figures compare with published ones."""

# A run of characters of a script without spaces, or a word of any other.
_PIECES = re.compile(r"[㐀-䶿一-鿿豈-﫿぀-ヿ]+|[^\W_]+")
_UNSPACED = re.compile(r"[㐀-䶿一-鿿豈-﫿぀-ヿ]")


def with_candidates(data: EvaluationSet, top_k: int) -> EvaluationSet:
    """The set with the best ``top_k`` documents of BM25 for each query, fewer where fewer share a word with it.

    Raises:
        EvaluationError: the ``eval`` extra is not installed.
    """
    bm25s = extra("bm25s")
    ids = list(data.documents)
    index = bm25s.BM25(k1=K1, b=B)
    index.index([tokens(text) for text in data.documents.values()], show_progress=False)
    wanted = [tokens(text) for text in data.queries.values()]
    places, scores = index.retrieve(wanted, k=min(top_k, len(ids)), show_progress=False)
    candidates = {
        query: [(ids[place], float(score)) for place, score in zip(row, points, strict=True) if score > 0]
        for query, row, points in zip(data.queries, places, scores, strict=True)
    }
    return replace(data, candidates={query: ranked for query, ranked in candidates.items() if ranked})


def tokens(text: str) -> Sequence[str]:
    """Lower-case words; scripts without spaces as overlapping pairs of characters."""
    found: list[str] = []
    for piece in _PIECES.findall(text.lower()):
        if _UNSPACED.match(piece) and len(piece) > 1:
            found += [piece[place : place + 2] for place in range(len(piece) - 1)]
        else:
            found.append(piece)
    return found
