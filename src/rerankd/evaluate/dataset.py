"""Labelled data from files: the BEIR layout, with TREC files in the place of its lists or judgements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from rerankd.evaluate import rows
from rerankd.evaluate.errors import EvaluationError
from rerankd.evaluate.notes import Notes

Judgements: TypeAlias = Mapping[str, Mapping[str, int]]
"""Query id -> document id -> grade; 0 is irrelevant."""

Candidates: TypeAlias = Mapping[str, Sequence[tuple[str, float]]]
"""Query id -> (document id, score of the first stage) from the best to the worst."""


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """Queries, documents, what is relevant, and the lists to rerank.

    ``queries`` are those with judgements. A query without candidates counts as 0 in every measure, as
    ``trec_eval -c`` counts it. A candidate without a text cannot be scored: it stays below all that can.
    """

    name: str
    queries: Mapping[str, str]
    documents: Mapping[str, str]
    judgements: Judgements
    candidates: Candidates
    relevant_from: int = 1
    """The least grade that counts as relevant where a measure knows only yes and no."""
    notes: Notes = field(default_factory=Notes)
    """What reading it repaired or left out."""

    def first(self, queries: int | None) -> EvaluationSet:
        """The same set with its first ``queries`` queries; None for all of them."""
        if queries is None:
            return self
        kept = dict(list(self.queries.items())[:queries])
        return replace(
            self,
            queries=kept,
            judgements={query: self.judgements[query] for query in kept},
            candidates={query: ranked for query, ranked in self.candidates.items() if query in kept},
        )


@dataclass(frozen=True, slots=True)
class Sources:
    """Which files of a folder are read; a TREC file, where named, takes the place of the folder's own."""

    split: str = "test"
    run: Path | None = None
    judgements: Path | None = None


def load_set(folder: Path, sources: Sources, top_k: int, relevant_from: int = 1) -> EvaluationSet:
    """Read one folder; without a list of candidates the set has none (see :mod:`rerankd.evaluate.bm25`).

    Args:
        top_k: how many candidates of each query are kept.

    Raises:
        EvaluationError: a file is missing, a line of it cannot be read, or an entry stands there twice.
    """
    notes = Notes()
    judgements = _read_judgements(folder, sources, notes)
    texts = _read_queries(folder, sources.split, notes)
    queries = {query: text for query, text in texts.items() if query in judgements}
    if not queries:
        raise EvaluationError(f"no query of {folder} has a judgement in its {sources.split} split")
    notes.add("judged query without a text, left out", count=len(judgements.keys() - texts.keys()))
    candidates = _read_candidates(folder, sources, notes)
    documents = _read_documents(folder / "corpus.jsonl", notes)
    kept = {query: candidates[query][:top_k] for query in queries if query in candidates}
    notes.add(
        "list of candidates for a query that is not judged, left out", count=len(candidates.keys() - queries.keys())
    )
    if candidates:
        notes.add("query without candidates, counted as 0", count=len(queries.keys() - kept.keys()))
    notes.add(
        "candidate without a text, kept below all others",
        count=sum(document not in documents for ranked in kept.values() for document, _ in ranked),
    )
    return EvaluationSet(
        name=folder.resolve().name,
        queries=queries,
        documents=documents,
        judgements={query: judgements[query] for query in queries},
        candidates=kept,
        relevant_from=relevant_from,
        notes=notes,
    )


def titled(title: str | None, text: str) -> str:
    """The text that is ranked: the title, if any, in front of the body, as the BEIR tools join them."""
    return f"{title} {text}".strip() if title else text


def read_trec_run(file: Path, notes: Notes) -> Candidates:
    """A TREC run: ``query Q0 document rank score tag``. Ordered as trec_eval does: by score, then id, not rank."""
    scores: dict[str, dict[str, float]] = {}
    for place, (query, _, document, _, score, _) in rows.columns(file, 6, notes):
        _enter(scores.setdefault(query, {}), document, rows.score(score, place), place)
    return {
        query: sorted(ranked.items(), key=lambda item: (item[1], item[0]), reverse=True)
        for query, ranked in scores.items()
    }


def read_trec_judgements(file: Path, notes: Notes) -> Judgements:
    """TREC qrels: ``query 0 document grade``."""
    judgements: dict[str, dict[str, int]] = {}
    for place, (query, _, document, grade) in rows.columns(file, 4, notes):
        _judge(judgements.setdefault(query, {}), document, rows.grade(grade, place), place)
    return judgements


def _enter(ranked: dict[str, Any], document: str, value: Any, place: rows.Place) -> None:
    if document in ranked:
        raise place.wrong("the document stands twice in the list of its query")
    ranked[document] = value


def _judge(grades: dict[str, int], document: str, grade: int, place: rows.Place) -> None:
    """The same judgement again is said; another one for the same document cannot be both right."""
    if grades.get(document, grade) != grade:
        raise place.wrong(f"the document is judged twice, as {grades[document]} and as {grade}")
    if document in grades:
        place.repaired("judgement that stands there already, left out")
    grades[document] = grade


def _read_judgements(folder: Path, sources: Sources, notes: Notes) -> Judgements:
    if sources.judgements is not None:
        return read_trec_judgements(sources.judgements, notes)
    file = folder / "qrels" / f"{sources.split}.tsv"
    if not file.exists():
        splits = sorted(found.stem for found in (folder / "qrels").glob("*.tsv"))
        there = f"there is {', '.join(splits)}: choose with --split" if splits else "there is no qrels/*.tsv at all"
        raise EvaluationError(f"there is no {file}; {there}")
    judgements: dict[str, dict[str, int]] = {}
    for place, row in rows.table(file, ("query-id", "corpus-id", "score"), notes):
        grades = judgements.setdefault(row["query-id"], {})
        _judge(grades, row["corpus-id"], rows.grade(row["score"], place), place)
    return judgements


def _read_queries(folder: Path, split: str, notes: Notes) -> dict[str, str]:
    """All queries; those of a split may stand in a file of their own beside ``queries.jsonl``."""
    own = folder / f"queries-{split}.jsonl"
    file = own if own.is_file() else folder / "queries.jsonl"
    return {key: text for _, key, text, _ in rows.objects(file, notes)}


def _read_documents(file: Path, notes: Notes) -> dict[str, str]:
    documents = {}
    for place, key, text, row in rows.objects(file, notes):
        title = row.get("title")
        if title is not None and not isinstance(title, str):
            # pandas writes NaN for a title that is missing.
            place.repaired("title that is no text, left out")
            title = None
        documents[key] = titled(title, text)
    return documents


def _read_candidates(folder: Path, sources: Sources, notes: Notes) -> Candidates:
    """The lists to rerank, in their own order: ``rank`` where the file has it, else by score."""
    if sources.run is not None:
        return read_trec_run(sources.run, notes)
    file = folder / "candidates.tsv"
    if not file.exists():
        return {}
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for place, row in rows.table(file, ("query-id", "corpus-id", "score"), notes):
        score = rows.score(row["score"], place)
        rank = rows.score(row["rank"], place) if row.get("rank") else -score
        _enter(found.setdefault(row["query-id"], {}), row["corpus-id"], (rank, score), place)
    return {
        query: [(document, score) for document, (_, score) in sorted(ranked.items(), key=lambda item: item[1][0])]
        for query, ranked in found.items()
    }
