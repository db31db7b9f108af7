"""Quality against cost of a cascade on labelled sets: how much of the model's nDCG@10 is there at which depth?

    python benchmarks/cascade.py shared/data/eval/scifact --model Qwen/Qwen3-Reranker-0.6B --first tiny
    python benchmarks/cascade.py shared/data/eval/cmrc2018-sentence --queries 100
    python benchmarks/cascade.py shared/data/eval/cmrc2018-sentence --queries 100 --first-layers 2

Every candidate is scored once by the model, and by ``--first`` where it names one; without it the candidates' own
scores order first. ``--first-layers`` makes the first model of the model's own first layers, with a head that is
fitted to the model's scores on queries behind those that are judged. The cascade of the server then runs over these
scores, once for each depth and each confidence. Prints one row each: the share of the model's pairs that were scored,
nDCG@10, and its share of the whole model's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rerankd.evaluate.bm25 import with_candidates
from rerankd.evaluate.dataset import EvaluationSet, Sources, load_set
from rerankd.evaluate.measures import MAIN, in_order, means, measure
from rerankd.reranker import Reranker
from rerankd.service.cascade import CascadeRule, run
from rerankd.types import DocumentScore, RerankRequest, RerankResult

DEPTHS = (5, 10, 15, 20, 30, 50, 75, 100)
CONFIDENCES = (0.5, 0.8, 0.9, 0.95, 0.99)
TOP_N = 10
LEARNED_QUERIES = 150
LEARNED_DOCUMENTS = 20
"""Of each query, for the head of ``--first-layers``."""


@dataclass(frozen=True, slots=True)
class Scores:
    """One query: its candidates with the scores of both stages, float, in the order of the list."""

    documents: tuple[str, ...]
    first: tuple[float, ...]
    model: tuple[float, ...]


def first_layers(data: EvaluationSet, judged: int, model: str, layers: int, folder: Path) -> str:
    """The folder of a model of the first layers, whose head learned from the queries behind the judged ones."""
    from benchmarks.early_exit import export

    rest = list(data.queries)[judged : judged + LEARNED_QUERIES]
    learned = replace(
        data,
        queries={query: data.queries[query] for query in rest},
        judgements={query: data.judgements[query] for query in rest},
        candidates={query: data.candidates[query][:LEARNED_DOCUMENTS] for query in rest},
    )
    texts = {query: [data.documents[one] for one, _ in ranked] for query, ranked in learned.candidates.items()}
    scores = logits_of(learned, model)
    export(model, folder, layers, [(data.queries[query], texts[query], scores[query]) for query in rest])
    return str(folder)


def logits_of(data: EvaluationSet, model: str) -> dict[str, tuple[float, ...]]:
    """The model's raw scores of every query's candidates."""
    requests = [
        RerankRequest(data.queries[query], tuple(data.documents[document] for document, _ in ranked))
        for query, ranked in data.candidates.items()
    ]
    with Reranker(model) as reranker:
        scored = list(reranker.score_many(requests))
    return {query: tuple(map(float, one.logits)) for query, one in zip(data.candidates, scored, strict=True)}


async def cascaded(rule: CascadeRule, scores: Scores) -> tuple[dict[str, float], int]:
    """A query's run under a cascade, and how many documents the model scored."""
    known = {"first": scores.first, "model": scores.model}

    async def rank(request: RerankRequest) -> RerankResult:
        values = known["first" if request.model == "first" else "model"]
        places = tuple(
            DocumentScore(index, 1 / (1 + float(np.exp(-values[int(number)]))), values[int(number)])
            for index, number in enumerate(request.documents)
        )
        return RerankResult("", "", places, places, 0)

    numbers = tuple(map(str, range(len(scores.documents))))
    result = await run(rule, RerankRequest("query", numbers, top_n=TOP_N), rank)
    if not isinstance(result, RerankResult) or result.cascade is None:
        raise AssertionError("scores that are known cannot fail")
    return {scores.documents[row.index]: row.logit or 0.0 for row in result.scores}, result.cascade.rescored


def rows_of(data: EvaluationSet, scores: Mapping[str, Scores], top_k: int) -> list[dict[str, Any]]:
    whole = {query: dict(zip(one.documents, one.model, strict=True)) for query, one in scores.items()}
    best = means(measure(data, whole, top_k))[MAIN]
    pairs = sum(len(one.documents) for one in scores.values())
    rules: list[tuple[str, float, CascadeRule]] = [
        ("depth", depth, CascadeRule("first", depth)) for depth in DEPTHS if depth <= top_k
    ]
    rules += [("confidence", sure, CascadeRule("first", confidence=sure)) for sure in CONFIDENCES]
    rows: list[dict[str, Any]] = []
    for kind, value, rule in rules:
        done = {query: asyncio.run(cascaded(rule, one)) for query, one in scores.items()}
        figure = means(measure(data, {query: found for query, (found, _) in done.items()}, top_k))[MAIN]
        share = sum(rescored for _, rescored in done.values()) / pairs
        rows.append({kind: value, "pairs": round(share, 4), MAIN: round(figure, 4), "of_whole": figure / best})
    candidates = means(measure(data, in_order(data.candidates), top_k))[MAIN]
    return [{"candidates": round(candidates, 4), "whole": round(best, 4), "queries": len(scores)}, *rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--first", help="the cheap model; left out, the candidates' own scores")
    parser.add_argument("--first-layers", type=int, help="the cheap model: so many layers of the model")
    parser.add_argument("--queries", type=int)
    parser.add_argument("--top-k", type=int, default=100)
    options = parser.parse_args()
    for folder in options.folders:
        whole = load_set(folder, Sources(), options.top_k)
        whole = whole if whole.candidates else with_candidates(whole, options.top_k)
        data = whole.first(options.queries)
        model = logits_of(data, options.model)
        with tempfile.TemporaryDirectory() as made:
            cheap = options.first
            if options.first_layers:
                cheap = first_layers(whole, len(data.queries), options.model, options.first_layers, Path(made))
            first = logits_of(data, cheap) if cheap else None
        scores = {
            query: Scores(
                tuple(document for document, _ in ranked),
                first[query] if first else tuple(score for _, score in ranked),
                model[query],
            )
            for query, ranked in data.candidates.items()
        }
        for row in rows_of(data, scores, options.top_k):
            print(json.dumps({"set": data.name, **row}), flush=True)


if __name__ == "__main__":
    main()
