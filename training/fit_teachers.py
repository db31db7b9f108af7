"""Weights of the teachers, fitted on lists that BM25 made of training queries which are held out.

In the clusters of training, BM25 looks weaker than it is where the model is used: on the first hits of a search.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from training.batches import labelled
from training.bm25 import Pool, nearest
from training.data import held_out, kind_of
from training.prepare import Prepared
from training.teacher import BM25, COSINE, ENCODERS, MAXSIM, Mixture, Scores, Teachers

EVERY = dict.fromkeys([BM25, *(f"{encoder}.{score}" for encoder in ENCODERS for score in (COSINE, MAXSIM))], 1.0)
ALL_TEACHERS: Mixture = {"en": EVERY, "code": EVERY, "zh": {name: 1.0 for name in EVERY if "minilm" not in name}}
# Roughly a standard deviation of each score within a list of English; only the pull towards zero depends on it.
UNITS = {BM25: 4.0, COSINE: 0.1, MAXSIM: 0.05}
# Pull towards zero, per unit: few lists, many scores that say nearly the same.
DECAY = 0.02


@dataclass(frozen=True)
class ScoredList:
    """One query: ``scores`` name -> (documents,), and which of them answer it."""

    source: str
    scores: dict[str, NDArray[np.float32]]
    relevant: NDArray[np.bool_]


def unit_of(name: str) -> float:
    return UNITS[name.split(".")[-1]]


def lists_of(
    source: Prepared, count: int, depth: int, random: np.random.Generator
) -> list[tuple[int, NDArray[np.int64]]]:
    """(query, BM25's first ``depth`` documents) of held-out queries whose answer is among them."""
    queries = np.array([query for query in range(len(source.queries)) if held_out(query)])
    queries = random.permutation(queries)[: 3 * count]
    best = nearest(Pool(source.pool.queries[queries], source.pool.documents), depth)
    found = []
    for query, row in zip(queries.tolist(), best, strict=True):
        documents = row[row >= 0].astype(np.int64)
        answers = np.isin(documents, source.positives[query])
        if answers.any() and not answers.all():
            found.append((query, documents))
    return found[:count]


def score_lists(
    sources: list[Prepared], teachers: Teachers, count: int, depth: int, seed: int
) -> dict[str, list[ScoredList]]:
    """By kind of source, ``count`` lists each, from as many sources as there are."""
    random = np.random.default_rng(seed)
    found: dict[str, list[ScoredList]] = {}
    for kind in teachers.mixture:
        own = [source for source in labelled(sources) if kind_of(source) == kind]
        drawn = [(source, *row) for source in own for row in lists_of(source, -(-count // len(own)), depth, random)]
        for place in random.permutation(len(drawn))[:count].tolist():
            source, query, documents = drawn[place]
            scores = teachers.scores(source, np.array([query]), documents)
            rows = {name: values[0] for name, values in scores.items()}
            found.setdefault(kind, []).append(
                ScoredList(source.name, rows, np.isin(documents, source.positives[query]))
            )
    return found


def loss_of(weights: torch.Tensor, names: list[str], lists: list[ScoredList]) -> torch.Tensor:
    """Mean cross entropy of the right documents under the mixture."""
    losses = []
    for row in lists:
        scores = torch.tensor(np.stack([row.scores[name] / unit_of(name) for name in names], axis=1))
        found = F.log_softmax(scores @ weights, dim=0)
        losses.append(-found[torch.from_numpy(row.relevant)].logsumexp(dim=0))
    return torch.stack(losses).mean()


def fit(names: list[str], lists: list[ScoredList]) -> dict[str, float]:
    """Weights of at least zero, by L-BFGS over their square roots."""
    roots = torch.full((len(names),), 0.7, requires_grad=True)
    optimiser = torch.optim.LBFGS([roots], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        weights = roots.square()
        loss = loss_of(weights, names, lists) + DECAY * weights.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    weights = roots.detach().square().tolist()
    return {name: weight / unit_of(name) for name, weight in zip(names, weights, strict=True)}


def first_right(weights: dict[str, float], lists: list[ScoredList]) -> tuple[float, float]:
    """Share of lists whose first document is right, and the mean reciprocal rank."""
    ranks = []
    for row in lists:
        mixed: Scores = np.sum([weight * row.scores[name] for name, weight in weights.items()], axis=0)
        ranks.append(1 + int(np.flatnonzero(row.relevant[np.argsort(-mixed, kind="stable")])[0]))
    return float(np.mean([rank == 1 for rank in ranks])), float(np.mean([1 / rank for rank in ranks]))


def report_fit(lists: dict[str, list[ScoredList]]) -> Mixture:
    """Prints what each set of teachers does on the halves that its weights were not fitted on, and the mixture."""
    mixture: Mixture = {}
    for kind, rows in lists.items():
        every = list(rows[0].scores)
        choices = [[name] for name in every]
        choices += [[BM25, *(n for n in every if n.startswith(f"{encoder}."))] for encoder in ENCODERS]
        choices.append(every)
        for names in [chosen for chosen in choices if set(chosen) <= set(every)]:
            halves = [(rows[start::2], rows[1 - start :: 2]) for start in (0, 1)]
            figures = np.mean([first_right(fit(names, own), other) for own, other in halves], axis=0)
            print(f"{kind}, {len(rows)} lists, {'+'.join(names)}: first {figures[0]:.3f}, MRR {figures[1]:.3f}")
        mixture[kind] = {name: round(weight, 3) for name, weight in fit(every, rows).items() if weight > 0.01}
    print(json.dumps(mixture))
    return mixture
