"""Training pairs from JSON lines, without anything that also stands in an evaluation set."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from training.functions import FUNCTIONS, function_rows

# Pairs that a model is judged by, as it is by the evaluation sets.
NEAR_MISSES = Path(__file__).with_name("near_misses.jsonl")
# Left out of shipped weights: no licence stated in the source repository, or texts of third parties under a
# repository licence that cannot cover them.
UNLICENSED = ("squadshifts_en", "crud_news_lead_zh_pseudo")
FORBIDDEN_SUFFIXES = ("_nc", "_nolicence", "_gpl3")
# Every 50th query is never trained on: the calibration of the scores is fitted on these.
HELD_OUT_EVERY = 50


class Named(Protocol):
    """A source, prepared or not."""

    name: str
    language: str


@dataclass
class Source:
    """The pairs of one file as a pool: every query knows its documents by their place in ``documents``."""

    name: str
    language: str
    queries: list[str] = field(default_factory=list)
    documents: list[str] = field(default_factory=list)
    positives: list[list[int]] = field(default_factory=list)
    negatives: list[list[int]] = field(default_factory=list)


def kind_of(source: Named) -> str:
    """Which mixture a source has: code is asked for in English, but its words are names."""
    if source.language.startswith("zh"):
        return "zh"
    return "code" if {"code", "functions"} & set(source.name.split(".")[0].split("_")) else "en"


def held_out(query: int) -> bool:
    return query % HELD_OUT_EVERY == 0


@dataclass
class LeakReport:
    """How many training items were removed because an evaluation set holds the same text."""

    rows: int = 0
    by_query: int = 0
    by_passage: int = 0
    negatives: int = 0

    def __str__(self) -> str:
        return (
            f"{self.rows} rows read; removed {self.by_query} by query, {self.by_passage} by passage, "
            f"{self.negatives} single negatives"
        )


def normalised(text: str) -> str:
    """Letters and digits only, folded: two texts that a reader would call the same compare equal."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(character for character in folded if character.isalnum())


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def titled(title: str | None, text: str) -> str:
    """The text that is ranked: the title, if any, in front of the body (as the BEIR tools join them)."""
    return f"{title} {text}".strip() if title else text


def evaluation_texts(folder: Path) -> tuple[set[str], set[str]]:
    """The normalised queries and passages (with and without their title) of every set under ``folder``.

    Those of the near misses are among them.
    """
    queries: set[str] = set()
    passages: set[str] = set()
    for path in sorted(folder.glob("*/queries.jsonl")):
        queries.update(normalised(row["text"]) for row in read_json_lines(path))
    for path in sorted(folder.glob("*/corpus.jsonl")):
        for row in read_json_lines(path):
            passages.add(normalised(row["text"]))
            passages.add(normalised(titled(row.get("title"), row["text"])))
    for row in read_json_lines(NEAR_MISSES):
        queries.add(normalised(row["query"]))
        passages.update(normalised(row[side]) for side in ("right", "wrong"))
    return queries - {""}, passages - {""}


class SourceBuilder:
    """Collects rows into a `Source`; the same text is stored once and the same query merges its positives."""

    def __init__(self, name: str) -> None:
        self.source = Source(name, "en")
        self._documents: dict[str, int] = {}
        self._queries: dict[str, int] = {}
        self._groups: dict[str, list[int]] = {}
        self._group_of: dict[int, str] = {}

    def _document(self, text: str) -> int:
        if text not in self._documents:
            self._documents[text] = len(self.source.documents)
            self.source.documents.append(text)
        return self._documents[text]

    def add(self, row: dict[str, Any]) -> None:
        source = self.source
        source.language = row.get("lang", "en")
        query = row["query"].strip()
        if query not in self._queries:
            self._queries[query] = len(source.queries)
            source.queries.append(query)
            source.positives.append([])
            source.negatives.append([])
        place = self._queries[query]
        positive = self._document(titled(row.get("title"), row["positive"]))
        source.positives[place].append(positive)
        source.negatives[place] += [
            self._document(titled(row.get("title"), text)) for text in row.get("negatives", [])
        ]
        if row.get("group"):
            self._groups.setdefault(row["group"], []).append(positive)
            self._group_of[place] = row["group"]

    def build(self, group_negatives: int = 4) -> Source:
        """Other positives of the same article or topic are the hardest negatives there are: add a few."""
        for place, group in self._group_of.items():
            own = set(self.source.positives[place])
            siblings = [document for document in dict.fromkeys(self._groups[group]) if document not in own]
            start = (7 * place) % max(len(siblings), 1)
            self.source.negatives[place] += (siblings[start:] + siblings[:start])[:group_negatives]
        return self.source


def permitted(name: str) -> bool:
    return name not in UNLICENSED and not name.endswith(FORBIDDEN_SUFFIXES)


def load_source(
    name: str, rows: Iterable[dict[str, Any]], queries: set[str], passages: set[str], report: LeakReport
) -> Source:
    builder = SourceBuilder(name)
    for row in rows:
        report.rows += 1
        forms = (row["positive"], titled(row.get("title"), row["positive"]), row.get("original", ""))
        positive = {normalised(form) for form in forms}
        if normalised(row["query"]) in queries:
            report.by_query += 1
        elif positive & passages:
            report.by_passage += 1
        else:
            clean = [text for text in row.get("negatives", []) if normalised(text) not in passages]
            report.negatives += len(row.get("negatives", [])) - len(clean)
            builder.add({**row, "negatives": clean})
    return builder.build()


def load_sources(data: Path) -> tuple[list[Source], LeakReport]:
    """Every permitted ``data/train/*.jsonl``, and functions, cleaned of whatever stands in ``data/eval``."""
    queries, passages = evaluation_texts(data / "eval")
    report = LeakReport()
    paths = [path for path in sorted((data / "train").glob("*.jsonl")) if permitted(path.stem)]
    rows = {path.stem: read_json_lines(path) for path in paths} | {FUNCTIONS: function_rows()}
    sources = [load_source(name, found, queries, passages, report) for name, found in rows.items()]
    return [source for source in sources if len(source.queries) >= 50], report


def subset(source: Source, queries: int, seed: int, stretch: int = 50) -> Source:
    """At most about so many queries, with the documents that they name, for a run that sees only a part.

    Whole stretches are taken: neighbours in a file are often of one article, and so hard for each other.
    """
    if len(source.queries) <= queries:
        return source
    starts = np.random.default_rng(seed).permutation(len(source.queries) // stretch)[: queries // stretch]
    chosen = [place for start in sorted(starts.tolist()) for place in range(start * stretch, (start + 1) * stretch)]
    named = [*(source.positives[place] for place in chosen), *(source.negatives[place] for place in chosen)]
    kept = {old: new for new, old in enumerate(sorted({document for row in named for document in row}))}
    return Source(
        source.name,
        source.language,
        [source.queries[place] for place in chosen],
        [source.documents[old] for old in kept],
        [[kept[old] for old in source.positives[place]] for place in chosen],
        [[kept[old] for old in source.negatives[place]] for place in chosen],
    )
