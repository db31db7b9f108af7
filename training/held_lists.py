"""nDCG@10 on lists that BM25 made of training queries which are held out: what weights are chosen by.

Nothing of an evaluation set is among them. Beside them stand the hand-written pairs that say where one half is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from rerankd.evaluate.fusion import WEIGHTS, LabelledScores, ndcg_by_weight
from training.batches import pseudo_end
from training.calibrate import pair_logits, parted
from training.data import kind_of
from training.fit_teachers import ALL_TEACHERS, lists_of
from training.model import PackedModel, pack
from training.prepare import Prepared
from training.quick_eval import ndcg
from training.teacher import Scores

LISTS, DEPTH = 110, 20
# A first stage hands on longer lists than those that weights are compared with.
FUSED_DEPTH = 50
TOKENS = 448


@dataclass(frozen=True)
class Held:
    """A held-out query with BM25's first documents, and which of them answer it."""

    source: Prepared
    query: int
    documents: NDArray[np.int64]
    relevant: NDArray[np.bool_]


# By kind of source.
Lists = dict[str, list[Held]]
# nDCG@10 of every list, by kind.
Figures = dict[str, list[float]]


def held_lists(sources: Sequence[Prepared], count: int, depth: int, seed: int) -> Lists:
    """``count`` lists a kind, from as many sources as there are; pseudo-queries are left out."""
    random = np.random.default_rng(seed)
    found: Lists = {}
    for kind in ALL_TEACHERS:
        own = [source for source in sources if kind_of(source) == kind and pseudo_end(source.name) is None]
        rows = [(source, *row) for source in own for row in lists_of(source, -(-count // len(own)), depth, random)]
        chosen = [rows[place] for place in random.permutation(len(rows))[:count].tolist()]
        if chosen:
            found[kind] = [Held(s, query, places, np.isin(places, s.positives[query])) for s, query, places in chosen]
    return found


def judged(scores: Scores, relevant: NDArray[np.bool_]) -> float:
    """nDCG@10 of one list in the order of ``scores``."""
    order = [str(place) for place in np.argsort(-scores, kind="stable")]
    return ndcg(order, {str(place): int(right) for place, right in enumerate(relevant)})


@torch.inference_mode()
def logits_of(model: PackedModel, row: Held, tokens: int) -> Scores:
    """Of the documents of a list, cut at ``tokens``."""
    texts = [row.source.documents[int(place)][:tokens] for place in row.documents]
    logits: Scores = model(pack(texts, [row.source.queries[row.query]], tokens + 1))[0].numpy()
    return logits


def figures_of(model: PackedModel, lists: Lists, tokens: int) -> Figures:
    """Documents are cut at ``tokens``."""
    return {
        kind: [judged(logits_of(model, row, tokens), row.relevant) for row in rows] for kind, rows in lists.items()
    }


def fused_table(model: PackedModel, lists: Lists) -> str:
    """nDCG@10 by kind and its mean, of z-scores of the model and of BM25 added up with each weight of the model."""
    means = [np.mean([ndcg_by_weight(scored(model, row)) for row in rows], axis=0) for rows in lists.values()]
    rows = [
        [f"{weight:g}", *(f"{value:.3f}" for value in [*values, np.mean(values)])]
        for weight, *values in zip(WEIGHTS, *means, strict=True)
    ]
    return "\n".join([head_of(["weight", *lists, "mean"]), *map(line_of, rows)])


def scored(model: PackedModel, row: Held) -> LabelledScores:
    """A list's scores by the model and by BM25, with its labels."""
    ours = logits_of(model, row, TOKENS).astype(np.float64)
    first = row.source.pool.scores(np.array([row.query]), row.documents)[0].astype(np.float64)
    return LabelledScores(ours, first, row.relevant.astype(np.float64), row.relevant.astype(int).tolist())


def line_of(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def head_of(columns: Sequence[str]) -> str:
    return f"{line_of(columns)}\n{line_of(['---'] * len(columns))}"


def table_head(lists: Lists) -> str:
    return head_of(["weights", *lists, "mean", "pairs in order", "parted"])


def table_row(name: str, model: PackedModel, lists: Lists, tokenizer: Tokenizer) -> str:
    """nDCG@10 by kind and its mean; of the hand-written pairs those in order and those that a threshold parts."""
    means = [float(np.mean(values)) for values in figures_of(model, lists, TOKENS).values()]
    pairs = pair_logits(model, tokenizer, TOKENS)
    cells = [f"{value:.3f}" for value in [*means, float(np.mean(means))]]
    cells += [f"{value:.1%}" for value in (float((pairs[:, 0] > pairs[:, 1]).mean()), parted(pairs))]
    return line_of([name, *cells])
