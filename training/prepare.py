"""Sources -> arrays on disk: token ids, positives, hard negatives and BM25 rows, one ``.npz`` a source."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from tokenizers import Tokenizer

from training.bm25 import Pool, build_pool, nearest
from training.data import Source
from training.ragged import Ragged

DOCUMENT_TOKENS = 512
QUERY_TOKENS = 64
DOCUMENT_CHARACTERS = 3_000
# The first hits of BM25 are often unlabelled positives; the ones after them are wrong and hard.
NEGATIVE_RANKS = slice(1, 12)
CHUNK = 2_048


@dataclass
class Prepared:
    """One source, ready for batches. Texts are kept for the teacher, which has its own tokenizer."""

    name: str
    language: str
    documents: Ragged
    queries: Ragged
    positives: Ragged
    negatives: Ragged
    pool: Pool
    document_texts: list[str]
    query_texts: list[str]

    @property
    def owners(self) -> dict[int, list[int]]:
        """Document -> the queries it answers."""
        found: dict[int, list[int]] = {}
        for query in range(len(self.queries)):
            for document in self.positives[query]:
                found.setdefault(int(document), []).append(query)
        return found


def token_ids(tokenizer: Tokenizer, texts: list[str], limit: int) -> Ragged:
    rows: list[list[int]] = []
    for start in range(0, len(texts), CHUNK):
        encoded = tokenizer.encode_batch(texts[start : start + CHUNK], add_special_tokens=False)
        rows.extend(encoding.ids[:limit] for encoding in encoded)
    return Ragged.of(rows)


def hard_negatives(source: Source, best: NDArray[np.int32]) -> list[list[int]]:
    """Given negatives first, then BM25's, never a positive of the same query."""
    rows = []
    for query, given in enumerate(source.negatives):
        own = set(source.positives[query])
        mined = [int(document) for document in best[query, NEGATIVE_RANKS] if document >= 0]
        rows.append([document for document in dict.fromkeys(given + mined) if document not in own])
    return rows


def prepare_source(source: Source, tokenizer: Tokenizer) -> Prepared:
    documents = [text[:DOCUMENT_CHARACTERS] for text in source.documents]
    pool = build_pool(source.queries, documents)
    best = nearest(pool, NEGATIVE_RANKS.stop)
    return Prepared(
        name=source.name,
        language=source.language,
        documents=token_ids(tokenizer, documents, DOCUMENT_TOKENS),
        queries=token_ids(tokenizer, source.queries, QUERY_TOKENS),
        positives=Ragged.of([sorted(set(row)) for row in source.positives]),
        negatives=Ragged.of(hard_negatives(source, best)),
        pool=pool,
        document_texts=documents,
        query_texts=source.queries,
    )


def save_prepared(prepared: Prepared, folder: Path) -> None:
    arrays: dict[str, NDArray[np.generic]] = {}
    for key in ("documents", "queries", "positives", "negatives"):
        ragged: Ragged = getattr(prepared, key)
        arrays[f"{key}.values"], arrays[f"{key}.offsets"] = ragged.values, ragged.offsets
    for key, matrix in (("pool.queries", prepared.pool.queries), ("pool.documents", prepared.pool.documents)):
        arrays[f"{key}.data"], arrays[f"{key}.indices"] = matrix.data, matrix.indices
        arrays[f"{key}.indptr"], arrays[f"{key}.shape"] = matrix.indptr, np.array(matrix.shape)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / f"{prepared.name}.npz", **arrays)  # type: ignore[arg-type]
    texts = {"language": prepared.language, "documents": prepared.document_texts, "queries": prepared.query_texts}
    (folder / f"{prepared.name}.json").write_text(json.dumps(texts, ensure_ascii=False), encoding="utf-8")


def load_prepared(path: Path) -> Prepared:
    with np.load(path) as arrays:
        stored = {key: arrays[key] for key in arrays.files}
    texts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))

    def ragged(key: str) -> Ragged:
        return Ragged(stored[f"{key}.values"], stored[f"{key}.offsets"])

    def matrix(key: str) -> sparse.csr_matrix:
        parts = (stored[f"{key}.data"], stored[f"{key}.indices"], stored[f"{key}.indptr"])
        return sparse.csr_matrix(parts, shape=tuple(stored[f"{key}.shape"]))

    return Prepared(
        name=path.stem,
        language=texts["language"],
        documents=ragged("documents"),
        queries=ragged("queries"),
        positives=ragged("positives"),
        negatives=ragged("negatives"),
        pool=Pool(matrix("pool.queries"), matrix("pool.documents")),
        document_texts=texts["documents"],
        query_texts=texts["queries"],
    )


def load_all(folder: Path) -> list[Prepared]:
    return [load_prepared(path) for path in sorted(folder.glob("*.npz"))]


def save_evaluated(texts: set[str], work: Path) -> None:
    """Normalised texts of the evaluation sets, one a line: what is made while training must not be one of them."""
    (work / "evaluated.txt").write_text("\n".join(sorted(texts)), encoding="utf-8")


def load_evaluated(work: Path) -> frozenset[str]:
    return frozenset((work / "evaluated.txt").read_text(encoding="utf-8").split("\n"))
