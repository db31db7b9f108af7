"""nDCG@10 of a model over evaluation sets: reranks the given candidate lists with the training-time model.

The product's own ``rerankd evaluate`` is the reference; this one is fast enough to look at between checkpoints.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from training.data import read_json_lines, titled
from training.model import PackedModel, pack_lists

DEPTH = 10
QUERY_LIMIT = 128
QUERIES_A_ROW = 12
BATCH_TOKENS = 6_000

Row = tuple[int, list[int]]


@dataclass
class EvaluationSet:
    """One BEIR folder. ``candidates``: query -> [(document, first score)], best first."""

    name: str
    queries: dict[str, str]
    documents: dict[str, str]
    judged: dict[str, dict[str, int]]
    candidates: dict[str, list[tuple[str, float]]]


def read_rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]


def load_set(folder: Path, depth: int = 100) -> EvaluationSet:
    judged: dict[str, dict[str, int]] = {}
    for query, document, grade in read_rows(folder / "qrels" / "test.tsv"):
        judged.setdefault(query, {})[document] = int(float(grade))
    candidates: dict[str, list[tuple[str, float]]] = {}
    for query, document, rank, score in read_rows(folder / "candidates.tsv"):
        if int(rank) <= depth and query in judged:
            candidates.setdefault(query, []).append((document, float(score)))
    return EvaluationSet(
        name=folder.name,
        queries={row["_id"]: row["text"] for row in read_json_lines(folder / "queries.jsonl")},
        documents={
            row["_id"]: titled(row.get("title"), row["text"]) for row in read_json_lines(folder / "corpus.jsonl")
        },
        judged=judged,
        candidates=candidates,
    )


def ndcg(order: list[str], judged: dict[str, int]) -> float:
    """nDCG@10 with linear gains, as trec_eval computes it."""
    discounts = 1 / np.log2(np.arange(2, DEPTH + 2))
    gains = [max(judged.get(document, 0), 0) for document in order[:DEPTH]]
    ideal = sorted((grade for grade in judged.values() if grade > 0), reverse=True)[:DEPTH]
    best = float(np.dot(ideal, discounts[: len(ideal)]))
    return float(np.dot(gains, discounts[: len(gains)])) / best if best > 0 else 0.0


class Scorer:
    """Scores texts with the training-time model; a document that many queries ask for is encoded once."""

    def __init__(self, model: PackedModel, tokenizer: Tokenizer, limit: int) -> None:
        self.model, self.tokenizer, self.limit = model, tokenizer, limit

    def _ids(self, texts: list[str], limit: int) -> list[NDArray[np.int32]]:
        encoded = self.tokenizer.encode_batch(texts, add_special_tokens=False)
        return [np.array(row.ids[:limit], dtype=np.int32) for row in encoded]

    @torch.inference_mode()
    def pairs(
        self, queries: list[str], documents: list[str], asked: dict[int, list[int]]
    ) -> dict[tuple[int, int], float]:
        """Logits by (query, document). ``asked``: document -> queries, as places in the lists."""
        query_ids, document_ids = self._ids(queries, QUERY_LIMIT), self._ids(documents, self.limit)
        rows = [
            (document, wanted[start : start + QUERIES_A_ROW])
            for document, wanted in asked.items()
            for start in range(0, len(wanted), QUERIES_A_ROW)
        ]
        rows.sort(key=lambda row: (len(document_ids[row[0]]), len(row[1])))
        found: dict[tuple[int, int], float] = {}
        for batch in batches(rows, [len(document_ids[document]) + 20 * len(wanted) for document, wanted in rows]):
            cluster = pack_lists(
                [document_ids[document] for document, _ in batch],
                [[query_ids[query] for query in wanted] for _, wanted in batch],
                self.limit,
            )
            logits = self.model(cluster)
            for column, (document, wanted) in enumerate(batch):
                for place, query in enumerate(wanted):
                    found[query, document] = float(logits[place, column])
        return found

    def __call__(self, query: str, documents: list[str]) -> NDArray[np.float32]:
        found = self.pairs([query], documents, {place: [0] for place in range(len(documents))})
        return np.array([found[0, place] for place in range(len(documents))], dtype=np.float32)


def batches(rows: list[Row], sizes: list[int]) -> Iterator[list[Row]]:
    """Consecutive rows of together at most `BATCH_TOKENS`."""
    batch: list[Row] = []
    total = 0
    for row, size in zip(rows, sizes, strict=True):
        if batch and total + size > BATCH_TOKENS:
            yield batch
            batch, total = [], 0
        batch.append(row)
        total += size
    if batch:
        yield batch


def standardised(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray((scores - scores.mean()) / max(float(scores.std()), 1e-6), dtype=np.float32)


def chosen_queries(data: EvaluationSet, count: int | None, seed: int = 5) -> list[str]:
    """Every judged query, or a random ``count`` of them."""
    chosen = sorted(data.judged.keys() & data.candidates.keys())
    if count is None or len(chosen) <= count:
        return chosen
    return sorted(np.random.default_rng(seed).choice(chosen, size=count, replace=False).tolist())


def score_set(scorer: Scorer, data: EvaluationSet, chosen: list[str]) -> dict[tuple[str, str], float]:
    names = sorted({name for query in chosen for name, _ in data.candidates[query]})
    place = {name: index for index, name in enumerate(names)}
    asked: dict[int, list[int]] = {}
    for index, query in enumerate(chosen):
        for name, _ in data.candidates[query]:
            asked.setdefault(place[name], []).append(index)
    found = scorer.pairs([data.queries[query] for query in chosen], [data.documents[name] for name in names], asked)
    return {(chosen[query], names[document]): score for (query, document), score in found.items()}


def evaluate_set(scorer: Scorer, data: EvaluationSet, count: int | None) -> dict[str, float]:
    """Mean nDCG@10 of the candidates' own order, the model's, and the sum of both as z-scores."""
    chosen = chosen_queries(data, count)
    scored = score_set(scorer, data, chosen)
    figures = []
    for query in chosen:
        names = [document for document, _ in data.candidates[query]]
        first = np.array([score for _, score in data.candidates[query]], dtype=np.float32)
        scores = np.array([scored[query, name] for name in names], dtype=np.float32)
        fused = standardised(scores) + standardised(first)
        ranked = [[names[place] for place in np.argsort(-values, kind="stable")] for values in (scores, fused)]
        figures.append([ndcg(order, data.judged[query]) for order in (names, *ranked)])
    first_mean, model_mean, fused_mean = np.mean(figures, axis=0).tolist()
    return {"candidates": first_mean, "model": model_mean, "fused": fused_mean, "queries": float(len(chosen))}


def evaluate(
    scorer: Scorer, folder: Path, queries: int | None = None, depth: int = 100
) -> Iterator[tuple[str, dict[str, float]]]:
    """The figures of one set after another, as soon as they are there."""
    for path in sorted(folder.iterdir()):
        yield path.name, evaluate_set(scorer, load_set(path, depth), queries)


KEYS = ("candidates", "model", "fused")
HEAD = "| set | queries | candidates | model | difference | fused |\n| --- | --- | --- | --- | --- | --- |"


def table_row(name: str, figures: dict[str, float]) -> str:
    change = figures["model"] - figures["candidates"]
    first = f"| {name} | {figures['queries']:.0f} | {figures['candidates']:.4f} | {figures['model']:.4f} |"
    return f"{first} {change:+.4f} | {figures['fused']:.4f} |"


def mean_of(figures: list[dict[str, float]]) -> dict[str, float]:
    """The mean over sets; ``queries`` is their sum."""
    means = {key: float(np.mean([row[key] for row in figures])) for key in KEYS}
    return means | {"queries": sum(row["queries"] for row in figures)}
