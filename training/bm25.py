"""BM25 inside the pool of one source: it finds hard negatives and is one of the two teachers."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

K1 = 1.2
B = 0.75
WORD = re.compile(r"[a-z0-9]+|[\u3400-\u9fff]+")


def terms(text: str) -> list[str]:
    """Words without a plural s; Han runs as single characters and bigrams."""
    found: list[str] = []
    for word in WORD.findall(text.lower()):
        if word[0] < "\u3400":
            found.append(word[:-1] if len(word) > 3 and word[-1] == "s" and word[-2] != "s" else word)
        else:
            found.extend(word)
            found.extend(word[i : i + 2] for i in range(len(word) - 1))
    return found


@dataclass(frozen=True)
class Pool:
    """``queries`` (n_queries, terms) term counts and ``documents`` (n_documents, terms) BM25 weights, float32 CSR."""

    queries: sparse.csr_matrix
    documents: sparse.csr_matrix

    def scores(self, queries: NDArray[np.int64], documents: NDArray[np.int64]) -> NDArray[np.float32]:
        """BM25 of every given query with every given document, (len(queries), len(documents))."""
        product = self.queries[queries] @ self.documents[documents].T
        return np.asarray(product.todense(), dtype=np.float32)


def count_matrix(texts: list[str], vocabulary: dict[str, int], grow: bool) -> sparse.csr_matrix:
    columns: list[int] = []
    offsets = [0]
    for text in texts:
        for term in terms(text):
            column = vocabulary.setdefault(term, len(vocabulary)) if grow else vocabulary.get(term, -1)
            if column >= 0:
                columns.append(column)
        offsets.append(len(columns))
    data = np.ones(len(columns), dtype=np.float32)
    matrix = sparse.csr_matrix((data, columns, offsets), shape=(len(texts), len(vocabulary)))
    matrix.sum_duplicates()
    return matrix


def build_pool(queries: list[str], documents: list[str]) -> Pool:
    vocabulary: dict[str, int] = {}
    counts = count_matrix(documents, vocabulary, grow=True)
    asked = count_matrix(queries, vocabulary, grow=False)
    frequency = np.bincount(counts.indices, minlength=len(vocabulary))
    idf = np.log1p((len(documents) - frequency + 0.5) / (frequency + 0.5)).astype(np.float32)
    lengths = np.asarray(counts.sum(axis=1)).ravel()
    rows = np.repeat(np.arange(len(documents)), np.diff(counts.indptr))
    shrink = K1 * (1 - B + B * lengths / max(lengths.mean(), 1.0))
    counts.data = idf[counts.indices] * counts.data * (K1 + 1) / (counts.data + shrink[rows])
    return Pool(asked, counts.astype(np.float32))


def nearest(pool: Pool, count: int, chunk: int = 512) -> NDArray[np.int32]:
    """The ``count`` best documents of every query, (n_queries, count), best first; -1 where none scores."""
    documents = pool.documents.copy()
    frequency = np.bincount(documents.indices, minlength=documents.shape[1])
    common = frequency > max(50, 0.1 * documents.shape[0])
    # Terms of a tenth of all documents decide no order but make the product dense.
    documents.data[common[documents.indices]] = 0
    documents.eliminate_zeros()
    by_term = documents.T.tocsr()
    best = np.full((pool.queries.shape[0], count), -1, dtype=np.int32)
    for start in range(0, pool.queries.shape[0], chunk):
        product = (pool.queries[start : start + chunk] @ by_term).tocsr()
        for row in range(product.shape[0]):
            begin, end = product.indptr[row], product.indptr[row + 1]
            order = np.argsort(-product.data[begin:end], kind="stable")[:count]
            best[start + row, : len(order)] = product.indices[begin:end][order]
    return best
