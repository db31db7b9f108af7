"""Pseudo-queries: a sentence of a long document asks for the rest of it.

Labelled queries of long documents are few; this gives every source of long texts some more, of the kind that states
something instead of asking for it.
"""

from __future__ import annotations

import re

import numpy as np

from training.data import Source, normalised

CLOZE = ".cloze"
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9\"'(])|(?<=[。！？])")
# Characters; a Chinese one says about as much as three Latin ones.
ENGLISH_QUERY, CHINESE_QUERY = (40, 240), (12, 80)
ENGLISH_REST, CHINESE_REST = 300, 100
DOCUMENTS_A_SOURCE = 4_000


def sentences(text: str) -> list[str]:
    return [part.strip() for part in SENTENCE.split(text) if part.strip()]


def split_off(text: str, chinese: bool, random: np.random.Generator, evaluated: set[str]) -> tuple[str, str] | None:
    """A sentence and the text without it, or nothing where either would be too short.

    A sentence of ``evaluated`` (normalised) is never taken: some evaluation sets rank single sentences.
    """
    shortest, longest = CHINESE_QUERY if chinese else ENGLISH_QUERY
    parts = sentences(text)
    fitting = [place for place, part in enumerate(parts) if shortest <= len(part) <= longest]
    usable = [place for place in fitting if normalised(parts[place]) not in evaluated]
    if not usable:
        return None
    chosen = int(random.choice(usable))
    rest = ("" if chinese else " ").join(parts[:chosen] + parts[chosen + 1 :])
    if len(rest) < (CHINESE_REST if chinese else ENGLISH_REST):
        return None
    return parts[chosen], rest


def cloze_source(source: Source, seed: int, evaluated: set[str]) -> Source:
    """A source of its own, so that its documents, which lack a sentence, compete with each other only."""
    random = np.random.default_rng(seed)
    chinese = source.language.startswith("zh")
    made = Source(source.name + CLOZE, source.language)
    for place in random.permutation(len(source.documents)):
        found = split_off(source.documents[int(place)], chinese, random, evaluated)
        if found is not None:
            made.queries.append(found[0])
            made.positives.append([len(made.documents)])
            made.negatives.append([])
            made.documents.append(found[1])
        if len(made.documents) == DOCUMENTS_A_SOURCE:
            break
    return made


def cloze_sources(sources: list[Source], seed: int, evaluated: set[str], least: int = 500) -> list[Source]:
    made = [cloze_source(source, seed, evaluated) for source in sources]
    return [source for source in made if len(source.queries) >= least]
