"""What a cluster is scored against: its own labels and, where near misses are put into it, theirs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tokenizers import Tokenizer

from training.batches import Draw
from training.data import normalised
from training.near_misses import NearMisses
from training.prepare import QUERY_TOKENS, Prepared

Ids = NDArray[np.int32]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Labelled:
    """A cluster as the model sees it; those of the draw come first, changed ones after them.

    All flags are (queries, documents). ``relevant``: the document answers the query. ``near``: it answers another one
    in nearly the same words. ``unknown``: nobody knows, so no probability is asked for.
    """

    queries: list[Ids]
    documents: list[Ids]
    relevant: Flags
    near: Flags
    unknown: Flags


def token_ids(tokenizer: Tokenizer, text: str, limit: int) -> Ids:
    return np.array(tokenizer.encode(text, add_special_tokens=False).ids[:limit], dtype=np.int32)


def unchanged(source: Prepared, draw: Draw) -> Labelled:
    nothing = np.zeros_like(draw.relevant)
    queries = [source.queries[int(place)] for place in draw.queries]
    return Labelled(queries, draw.texts, draw.relevant, nothing, nothing)


class Labeller:
    """Adds up to ``count`` near misses to a cluster, none to one whose documents stand amid other text.

    ``evaluated``: normalised queries that must not be made.
    """

    def __init__(
        self,
        sources: list[Prepared],
        makers: list[NearMisses],
        tokenizer: Tokenizer,
        count: int,
        evaluated: frozenset[str],
    ) -> None:
        self.sources, self.makers, self.tokenizer = sources, makers, tokenizer
        self.count, self.evaluated = count, evaluated

    def label(self, draw: Draw, random: np.random.Generator) -> Labelled:
        source = self.sources[draw.source]
        found = unchanged(source, draw)
        if draw.cut is None:
            return found
        added = 0
        for row in random.permutation(len(draw.queries)).tolist():
            if added == self.count:
                break
            changed = self._changed(draw, row, random)
            if changed is not None:
                found = extended(found, row, *changed)
                added += 1
        return found

    def _changed(self, draw: Draw, row: int, random: np.random.Generator) -> tuple[int, Ids, Ids | None] | None:
        """(column of the document that was changed, the changed document, the changed query)."""
        column = int(random.choice(np.flatnonzero(draw.relevant[row])))
        made = self.makers[draw.source].make(int(draw.queries[row]), int(draw.documents[column]), random)
        if made is None or (made.query is not None and normalised(made.query) in self.evaluated):
            return None
        document = token_ids(self.tokenizer, made.document, draw.cut or 0)
        if np.array_equal(document, draw.texts[column]):
            return None  # the change lies behind the cut
        query = None if made.query is None else token_ids(self.tokenizer, made.query, QUERY_TOKENS)
        return column, document, query


def extended(cluster: Labelled, row: int, column: int, document: Ids, query: Ids | None) -> Labelled:
    """The cluster with a changed copy of a document, wrong for query ``row``, and the query that it answers."""

    def widened(flags: Flags, value: Flags) -> Flags:
        return np.concatenate([flags, value[:, None]], axis=1)

    # Another question about the same document may be answered by the changed one as well.
    others = cluster.relevant[:, column] & (np.arange(len(cluster.queries)) != row)
    this = np.arange(len(cluster.queries)) == row
    relevant, near, unknown = (
        widened(cluster.relevant, others),
        widened(cluster.near, this),
        widened(cluster.unknown, others),
    )
    queries = cluster.queries
    if query is not None:
        queries = [*queries, query]
        width = relevant.shape[1]
        answers, misses = np.arange(width) == width - 1, np.arange(width) == column
        relevant = np.concatenate([relevant, answers[None]])
        near = np.concatenate([near, misses[None]])
        unknown = np.concatenate([unknown, np.zeros((1, width), dtype=np.bool_)])
    return Labelled(queries, [*cluster.documents, document], relevant, near, unknown)


def ranking_loss(logits: torch.Tensor, relevant: torch.Tensor) -> torch.Tensor:
    """-log of the probability mass on the documents that answer the query, mean over queries."""
    found = F.log_softmax(logits, dim=1)
    return -found.masked_fill(~relevant, float("-inf")).logsumexp(dim=1).mean()


def probability_loss(logits: torch.Tensor, cluster: Labelled) -> torch.Tensor:
    """Binary cross entropy: right pairs, near misses and other wrong pairs weigh 2 : 1 : 1."""
    relevant, near = torch.from_numpy(cluster.relevant), torch.from_numpy(cluster.near)
    unknown = torch.from_numpy(cluster.unknown)
    right = F.softplus(-logits[relevant & ~unknown]).mean()
    others = F.softplus(logits[~relevant & ~near]).mean()
    if not near.any():
        return (right + others) / 2
    return right / 2 + (F.softplus(logits[near]).mean() + others) / 4
