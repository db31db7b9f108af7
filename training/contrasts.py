"""Contrast sets: two documents that differ in what a question asks for, and the questions of one or both.

They are made from training pairs (`training.near_misses`) and from frames (`training.frames`). Through the model they
go as short rows: every document with the questions of its own set and one question of another.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tokenizers import Tokenizer

from training.data import held_out, normalised
from training.frames import DENIALS, FRAMES, Contrast, Frame, Statements, names_of
from training.model import PackedModel, pack_lists
from training.near_misses import NearMisses
from training.prepare import QUERY_TOKENS, Prepared
from training.tokenizer import token_ids

Ids = NDArray[np.int32]
# The queries of a set, and its two documents.
ContrastIds = tuple[list[Ids], list[Ids]]
# Labels of a pair; a set with one query of its own has one pair less.
RIGHT, NEAR, OTHER, NO_QUERY = 0, 1, 2, -1
# Two of a set's own, and one of another.
QUERIES = 3
# Percent of the documents that are packed together as the shorter ones.
SHORTER = 66


class Contrasts:
    """Contrast sets as token ids, documents cut at ``cut``.

    ``shares``: how often each source is taken. ``evaluated``: normalised texts that must not be made.
    """

    def __init__(
        self,
        sources: list[Prepared],
        makers: list[NearMisses],
        shares: NDArray[np.float64],
        tokenizer: Tokenizer,
        evaluated: frozenset[str],
        cut: int,
        frames: dict[str, list[Frame]] = FRAMES,
    ) -> None:
        self.sources, self.makers, self.shares = sources, makers, shares
        self.tokenizer, self.evaluated, self.cut = tokenizer, evaluated, cut
        self.statements = Statements(names_of(sources, [maker.kind for maker in makers]), frames)

    def draw(
        self, pairs: int, statements: int, random: np.random.Generator, denials: float = DENIALS
    ) -> list[ContrastIds]:
        """At most ``pairs`` from training pairs and ``statements`` from frames, ``denials`` of which have a switch.

        Left out are pairs without a near miss, and those whose change lies behind the cut.
        """
        found = [self._of_pair(random) for _ in range(pairs)]
        found += [self.statements.make(random, denials) for _ in range(statements)]
        sets = [self.ids(contrast) for contrast in found if contrast is not None and self._allowed(contrast)]
        return [(queries, documents) for queries, documents in sets if not np.array_equal(documents[0], documents[1])]

    def ids(self, contrast: Contrast) -> ContrastIds:
        queries = [token_ids(self.tokenizer, text, QUERY_TOKENS) for text in contrast.queries]
        return queries, [token_ids(self.tokenizer, text, self.cut) for text in contrast.documents]

    def _allowed(self, contrast: Contrast) -> bool:
        texts = (*contrast.queries, *contrast.documents)
        return not any(normalised(text) in self.evaluated for text in texts)

    def _of_pair(self, random: np.random.Generator) -> Contrast | None:
        place = int(random.choice(len(self.sources), p=self.shares))
        source = self.sources[place]
        query = int(random.integers(len(source.queries)))
        if held_out(query):
            return None
        document = int(random.choice(source.positives[query]))
        made = self.makers[place].make(query, document, random)
        if made is None:
            return None
        queries = (source.query_texts[query], *([] if made.query is None else [made.query]))
        return Contrast(queries, (source.document_texts[document], made.document))


def contrast_logits(model: PackedModel, sets: list[ContrastIds]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (sets, 2 documents, 3 queries) and labels of the same shape.

    The third query is that of the set before, which has nothing to do with the documents.
    """
    documents = [document for _, pair in sets for document in pair]
    asked = [[*queries, sets[place - 1][0][0]] for place, (queries, _) in enumerate(sets) for _ in range(2)]
    order = sorted(range(len(documents)), key=lambda row: len(documents[row]))
    first = len(order) * SHORTER // 100
    found: dict[int, torch.Tensor] = {}
    # Two passes: the long documents by themselves, so that the padded attention of the others stays small.
    for rows in (order[:first], order[first:]):
        limit = 1 + max(len(documents[row]) for row in rows)
        logits = model(pack_lists([documents[row] for row in rows], [asked[row] for row in rows], limit)).T
        found |= {row: F.pad(own, (0, QUERIES - len(own))) for row, own in zip(rows, logits, strict=True)}
    labels = torch.full((len(documents), QUERIES), NO_QUERY)
    for row, queries in enumerate(asked):
        for column in range(len(queries) - 1):
            labels[row, column] = RIGHT if column == row % 2 else NEAR
        labels[row, len(queries) - 1] = OTHER
    logits = torch.stack([found[row] for row in range(len(documents))])
    return logits.view(-1, 2, QUERIES), labels.view(-1, 2, QUERIES)
