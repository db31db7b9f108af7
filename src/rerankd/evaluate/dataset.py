"""Labelled data from files: the BEIR layout, with TREC files in the place of its lists or judgements."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from rerankd.evaluate.errors import EvaluationError

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
        EvaluationError: a file is missing or a line of it cannot be read.
    """
    judgements = _read_judgements(folder, sources)
    queries = {query: text for query, text in _read_queries(folder, sources.split).items() if query in judgements}
    if not queries:
        raise EvaluationError(f"no query of {folder} has a judgement in its {sources.split} split")
    candidates = _read_candidates(folder, sources)
    return EvaluationSet(
        name=folder.resolve().name,
        queries=queries,
        documents={row["_id"]: titled(row.get("title"), row["text"]) for row in _rows(folder / "corpus.jsonl")},
        judgements={query: judgements[query] for query in queries},
        candidates={query: candidates[query][:top_k] for query in queries if query in candidates},
        relevant_from=relevant_from,
    )


def titled(title: str | None, text: str) -> str:
    """The text that is ranked: the title, if any, in front of the body, as the BEIR tools join them."""
    return f"{title} {text}".strip() if title else text


def read_trec_run(file: Path) -> Candidates:
    """A TREC run: ``query Q0 document rank score tag``. Ordered as trec_eval does: by score, then id, not rank."""
    scores: dict[str, dict[str, float]] = {}
    for line, fields in _fields(file, 6):
        query, _, document, _, score, _ = fields
        if document in scores.setdefault(query, {}):
            raise EvaluationError(f"{file}:{line}: the document stands twice in the list of its query")
        scores[query][document] = _number(float, score, file, line)
    return {
        query: sorted(ranked.items(), key=lambda item: (item[1], item[0]), reverse=True)
        for query, ranked in scores.items()
    }


def read_trec_judgements(file: Path) -> Judgements:
    """TREC qrels: ``query 0 document grade``."""
    judgements: dict[str, dict[str, int]] = {}
    for line, (query, _, document, grade) in _fields(file, 4):
        judgements.setdefault(query, {})[document] = _number(int, grade, file, line)
    return judgements


def _read_judgements(folder: Path, sources: Sources) -> Judgements:
    if sources.judgements is not None:
        return read_trec_judgements(sources.judgements)
    file = folder / "qrels" / f"{sources.split}.tsv"
    judgements: dict[str, dict[str, int]] = {}
    for line, row in _table(file, ("query-id", "corpus-id", "score")):
        grade = _number(int, row["score"], file, line)
        judgements.setdefault(row["query-id"], {})[row["corpus-id"]] = grade
    return judgements


def _read_queries(folder: Path, split: str) -> dict[str, str]:
    """All queries; those of a split may stand in a file of their own beside ``queries.jsonl``."""
    own = folder / f"queries-{split}.jsonl"
    return {row["_id"]: row["text"] for row in _rows(own if own.is_file() else folder / "queries.jsonl")}


def _read_candidates(folder: Path, sources: Sources) -> Candidates:
    """The lists to rerank, in their own order: ``rank`` where the file has it, else by score."""
    if sources.run is not None:
        return read_trec_run(sources.run)
    file = folder / "candidates.tsv"
    if not file.is_file():
        return {}
    found: dict[str, list[tuple[float, str, float]]] = {}
    for line, row in _table(file, ("query-id", "corpus-id", "score")):
        score = _number(float, row["score"], file, line)
        place = _number(float, row["rank"], file, line) if row.get("rank") else -score
        found.setdefault(row["query-id"], []).append((place, row["corpus-id"], score))
    for ranked in found.values():
        ranked.sort(key=lambda item: item[0])
    return {query: [(document, score) for _, document, score in ranked] for query, ranked in found.items()}


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON lines file; each has an ``_id`` and a ``text``."""
    for line, text in _lines(file):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
            whole = isinstance(row["_id"], str) and isinstance(row["text"], str)
        except (ValueError, TypeError, KeyError):
            whole = False
        if not whole:
            raise EvaluationError(f'{file}:{line}: not an object with the texts "_id" and "text"')
        yield row


def _table(file: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    lines = (text for _, text in _lines(file))
    # Quotes in an id are letters like any other.
    reader = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    missing = [column for column in columns if column not in (reader.fieldnames or ())]
    if missing:
        raise EvaluationError(f"{file}: the first line has no column {missing[0]!r}")
    for row in reader:
        if any(row[column] is None for column in columns):
            raise EvaluationError(f"{file}:{reader.line_num}: fewer columns than in the first line")
        yield reader.line_num, row


def _fields(file: Path, count: int) -> Iterator[tuple[int, list[str]]]:
    for line, text in _lines(file):
        fields = text.split()
        if fields and len(fields) != count:
            raise EvaluationError(f"{file}:{line}: {len(fields)} columns where a TREC file has {count}")
        if fields:
            yield line, fields


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    try:
        with file.open(encoding="utf-8") as lines:
            yield from enumerate(lines, start=1)
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"{file} cannot be read: {error}") from error


def _number(kind: type[Any], text: str, file: Path, line: int) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise EvaluationError(f"{file}:{line}: {text[:20]!r} is not a number") from None
