"""A vector and a rarity for every token before training: what makes synonyms match at the first step.

Three unit blocks: the teacher's embedding of the token's string, co-occurrence in the training texts (PPMI and SVD)
and random numbers, which keep equal tokens nearer to each other than to any synonym.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import svds
from tokenizers import Tokenizer

from training.encoder import Encoder
from training.prepare import Prepared
from training.tokenizer import SPECIALS

TEACHER_DIMS, COOCCURRENCE_DIMS, RANDOM_DIMS = 96, 48, 48
CONTENT_DIMS = TEACHER_DIMS + COOCCURRENCE_DIMS + RANDOM_DIMS
LATIN_WEIGHTS = np.array([0.70, 0.40, 0.59], dtype=np.float32)
# The teacher is an English one: for all other tokens its block would be noise.
OTHER_WEIGHTS = np.array([0.0, 0.65, 0.76], dtype=np.float32)
WINDOW = 5
SVD_RANK = 56
COOCCURRENCE_TOKENS = 6_000_000
LATIN = re.compile(r"[a-z]")

Vectors = NDArray[np.float32]


def unit_rows(rows: Vectors) -> Vectors:
    lengths: Vectors = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-6), dtype=np.float32)


def token_strings(tokenizer: Tokenizer) -> list[str]:
    return [tokenizer.decode([token]).strip() for token in range(tokenizer.get_vocab_size())]


def teacher_block(strings: list[str], teacher: Encoder) -> Vectors:
    """Principal components of the teacher's vectors, half whitened so that no single one decides."""
    vectors = teacher.encode([text or "." for text in strings])
    vectors = vectors - vectors.mean(axis=0)
    values, directions = np.linalg.eigh(vectors.T @ vectors / len(vectors))
    top = np.argsort(-values)[:TEACHER_DIMS]
    scale = np.sqrt(np.sqrt(np.maximum(values[top], 1e-9)))
    return unit_rows((vectors @ directions[:, top] / scale).astype(np.float32))


def cooccurrence(sources: list[Prepared], size: int) -> sparse.csr_matrix:
    """Counts of token pairs at most `WINDOW` apart, (size, size), symmetric."""
    streams = [source.documents.values for source in sources]
    share = min(1.0, COOCCURRENCE_TOKENS / sum(len(stream) for stream in streams))
    total = sparse.csr_matrix((size, size), dtype=np.float32)
    for stream in streams:
        tokens = stream[: max(1000, int(len(stream) * share))]
        for distance in range(1, WINDOW + 1):
            weight = np.full(max(len(tokens) - distance, 0), 1.0 if distance < 3 else 0.6, dtype=np.float32)
            total = total + sparse.csr_matrix((weight, (tokens[:-distance], tokens[distance:])), shape=(size, size))
    return (total + total.T).tocsr()


def cooccurrence_block(sources: list[Prepared], size: int, seed: int) -> Vectors:
    """Positive pointwise mutual information, reduced by SVD; the first directions only tell a token's frequency."""
    counts = cooccurrence(sources, size).tocoo()
    totals = np.bincount(counts.row, weights=counts.data, minlength=size) + 1e-9
    context = totals**0.75
    context /= context.sum()
    information = np.log(counts.data / (totals[counts.row] * context[counts.col]))
    kept = information > 0
    ppmi = sparse.csr_matrix((information[kept], (counts.row[kept], counts.col[kept])), shape=(size, size))
    left, values, _ = svds(ppmi.astype(np.float32), k=SVD_RANK, random_state=seed)
    order = np.argsort(-values)[2 : 2 + COOCCURRENCE_DIMS]
    return unit_rows((left[:, order] * np.sqrt(values[order])).astype(np.float32))


def rarity(sources: list[Prepared], size: int) -> Vectors:
    """Inverse document frequency (size,): the lowest over the languages, so common words of either stay common."""
    found = []
    for chinese in (False, True):
        frequency, documents = np.zeros(size), 0
        for source in sources:
            if source.language.startswith("zh") == chinese:
                documents += len(source.documents)
                lengths = np.diff(source.documents.offsets)
                rows = np.repeat(np.arange(len(source.documents)), lengths)
                seen = np.unique(rows * size + source.documents.values)
                frequency += np.bincount(seen % size, minlength=size)
        found.append(np.log((documents + 1) / (frequency + 0.5)))
    return np.clip(np.minimum(found[0], found[1]), 0.1, 10.0).astype(np.float32)


def content_vectors(tokenizer: Tokenizer, sources: list[Prepared], teacher: Encoder, seed: int) -> Vectors:
    """Unit vectors (vocabulary, `CONTENT_DIMS`); the special tokens have none."""
    strings = token_strings(tokenizer)
    random = np.random.default_rng(seed).standard_normal((len(strings), RANDOM_DIMS)).astype(np.float32)
    blocks = [teacher_block(strings, teacher), cooccurrence_block(sources, len(strings), seed), unit_rows(random)]
    latin = np.array([bool(LATIN.search(text)) for text in strings])
    weights = np.where(latin[:, None], LATIN_WEIGHTS, OTHER_WEIGHTS)
    vectors = unit_rows(np.concatenate([block * weights[:, [i]] for i, block in enumerate(blocks)], axis=1))
    vectors[: len(SPECIALS)] = 0
    return vectors
