"""Clusters: queries of one source that are hard for each other, with the documents they compete for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from training.cloze import CLOZE
from training.data import held_out
from training.prepare import Prepared
from training.searches import SEARCHES

# Exponent below 1: large sources count more, but not in proportion.
SIZE_EXPONENT = 0.6
# Real questions, evidence and code more; templates and dictionary glosses less.
FACTORS = {
    "nq_en": 2.0,
    "selqa_en": 2.0,
    "code_en": 2.5,
    "mbpp_code_en": 2.0,
    "python_functions_en": 1.5,
    "pubmedqa_en": 2.0,
    "covidqa_en": 1.5,
    "techdocs_en": 1.5,
    "wiki_titles_en": 1.0,
    "openstax_sections_en": 0.7,
    "medquad_en": 0.6,
    "wordnet_gloss_en": 0.5,
    "openstax_glossary_en": 0.5,
    "tldr_zh": 0.5,
    "policyqa_en": 0.3,
}
# Pseudo-queries beside real ones, by the end of their source's name.
PSEUDO_FACTORS = {CLOZE: 0.4, SEARCHES: 0.0}
NEIGHBOUR_SHARE = 0.7


def pseudo_end(name: str) -> str | None:
    """What the name of a source of pseudo-queries ends in; None for the others."""
    return next((end for end in PSEUDO_FACTORS if name.endswith(end)), None)


def labelled(sources: Sequence[Prepared]) -> list[Prepared]:
    """Those whose documents are known to answer or not; many a document answers a search, and is not known to."""
    return [source for source in sources if not source.name.endswith(SEARCHES)]


def factor(name: str, changed: Mapping[str, float]) -> float:
    end = pseudo_end(name)
    usual = FACTORS.get(name, 1.0) if end is None else changed.get(end, PSEUDO_FACTORS[end])
    return changed.get(name, usual)


def trained_owners(source: Prepared) -> dict[int, list[int]]:
    """Document -> the queries it answers, those held out left out."""
    trained = {document: [q for q in queries if not held_out(q)] for document, queries in source.owners.items()}
    return {document: queries for document, queries in trained.items() if queries}


@dataclass(frozen=True)
class Lengths:
    """Where documents are cut, in tokens, and how many clusters show long ones, or ones amid other text."""

    usual: int = 128
    long: int = 448
    long_share: float = 0.4
    surrounded_share: float = 0.5


@dataclass(frozen=True)
class Draw:
    """The choice of one cluster: places in the source, and which documents answer which query."""

    source: int
    queries: NDArray[np.int64]
    documents: NDArray[np.int64]
    relevant: NDArray[np.bool_]  # (n_queries, n_documents)
    texts: list[NDArray[np.int32]]  # token ids of the documents as this cluster shows them
    cut: int | None  # where the documents were cut, in tokens; None where other text surrounds them


class Sampler:
    """Cluster ``index`` of a seed is always the same one, so there is no state to resume.

    ``distinct`` clusters are drawn; after the last one the first comes again, its documents cut anew. With ``fresh``
    that holds for every other cluster (of none where ``distinct`` is None), and the rest is all new. ``factors``:
    what counts otherwise than in `FACTORS`.
    """

    def __init__(
        self,
        sources: Sequence[Prepared],
        seed: int,
        lengths: Lengths,
        queries: int = 12,
        documents: int = 16,
        distinct: int | None = None,
        fresh: bool = False,
        factors: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        self.sources, self.lengths = sources, lengths
        self.seed, self.distinct, self.fresh = seed, distinct, fresh
        self.queries, self.documents = queries, documents
        self.owners = [trained_owners(source) for source in sources]
        weights = [len(source.queries) ** SIZE_EXPONENT * factor(source.name, factors) for source in sources]
        self.shares = np.array(weights) / sum(weights)

    def is_fresh(self, index: int) -> bool:
        return self.fresh and (self.distinct is None or index % 2 == 1)

    def _number(self, index: int) -> int:
        """Which of all possible clusters the ``index``-th one is."""
        if self.distinct is None:
            return index
        if not self.fresh:
            return index % self.distinct
        return self.distinct + index // 2 if self.is_fresh(index) else index // 2 % self.distinct

    def draw(self, index: int) -> Draw:
        self.random = np.random.default_rng([self.seed, self._number(index)])
        chosen = int(self.random.choice(len(self.sources), p=self.shares))
        queries = self._queries(chosen)
        documents = self._documents(chosen, queries)
        self.random = np.random.default_rng([self.seed, index, 1])
        positives = [set(self.sources[chosen].positives[query].tolist()) for query in queries]
        relevant = np.array([[document in own for document in documents] for own in positives])
        return Draw(chosen, np.array(queries), np.array(documents), relevant, *self._texts(chosen, documents))

    def _texts(self, chosen: int, documents: list[int]) -> tuple[list[NDArray[np.int32]], int | None]:
        """Cut short, cut late, or cut late and surrounded by other text of the source up to a random length."""
        source, lengths = self.sources[chosen], self.lengths
        limit = lengths.usual
        if self.random.random() < lengths.long_share:
            limit = int(self.random.integers(lengths.usual, lengths.long + 1))
        texts = [source.documents[place][:limit] for place in documents]
        if limit == lengths.usual or self.random.random() >= lengths.surrounded_share:
            return texts, limit
        return [self._surrounded(source, text, limit) for text in texts], None

    def _surrounded(self, source: Prepared, text: NDArray[np.int32], limit: int) -> NDArray[np.int32]:
        """Long texts match a little of everything; this teaches that such matches count for nothing."""
        extra = int(self.random.integers(limit - len(text) + 1))
        before = int(self.random.integers(extra + 1))
        stream = source.documents.values
        starts = self.random.integers(max(len(stream) - limit, 1), size=2)
        parts = [stream[starts[0] : starts[0] + before], text, stream[starts[1] : starts[1] + extra - before]]
        return np.concatenate(parts)

    def _queries(self, chosen: int) -> list[int]:
        """A seed, the owners of its hard negatives, their owners, and some strangers."""
        source, owners = self.sources[chosen], self.owners[chosen]
        count = min(self.queries, len(source.queries) // 2)
        found = [self._any_query(source)]
        known, reached = set(found), 0
        while len(found) < count:
            if reached < len(found) and self.random.random() < NEIGHBOUR_SHARE:
                near = self._neighbours(source, owners, found[reached])
                reached += 1
            else:
                near = [self._any_query(source)]
            for query in near[: min(4, count - len(found))]:
                if query not in known:
                    known.add(query)
                    found.append(query)
        return found

    def _any_query(self, source: Prepared) -> int:
        while held_out(query := int(self.random.integers(len(source.queries)))):
            pass
        return query

    def _neighbours(self, source: Prepared, owners: dict[int, list[int]], query: int) -> list[int]:
        near = [owners[int(document)] for document in source.negatives[query] if int(document) in owners]
        picked = [int(self.random.choice(queries)) for queries in near]
        self.random.shuffle(picked)
        return picked

    def _documents(self, chosen: int, queries: list[int]) -> list[int]:
        """One positive of every query, then their hard negatives in turn, then strangers."""
        source = self.sources[chosen]
        found = list(dict.fromkeys(int(self.random.choice(source.positives[query])) for query in queries))
        hard = [int(document) for query in queries for document in self._some(source.negatives[query], 3)]
        self.random.shuffle(hard)
        strangers = self.random.integers(len(source.documents), size=self.documents).tolist()
        return list(dict.fromkeys([*found, *hard, *strangers]))[: max(self.documents, len(found))]

    def _some(self, documents: NDArray[np.int32], count: int) -> NDArray[np.int32]:
        if len(documents) <= count:
            return documents
        return self.random.choice(documents, size=count, replace=False)
