"""Small sources of training pairs, prepared."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer
from training.data import Source
from training.prepare import Prepared, prepare_source

CAPITALS = {"France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Poland": "Warsaw"}
QUERIES = [f"What is the capital of {country}?" for country in CAPITALS]
DOCUMENTS = [f"{city} is the capital of {country}." for country, city in CAPITALS.items()]

COLOURS = ["red", "green", "blue", "black", "white", "yellow", "brown", "grey"]
THINGS = ["house", "boat", "bird", "stone", "tree", "river", "road", "coat"]
TEXTS = [f"the {colour} {thing}" for colour in COLOURS for thing in THINGS]


def prepared_pairs(
    tokenizer: Tokenizer, name: str, language: str, queries: Sequence[str], documents: Sequence[str]
) -> Prepared:
    """A source in which each document answers the query of its place, and none is a given negative."""
    source = Source(name, language, list(queries), list(documents))
    source.positives = [[place] for place in range(len(queries))]
    source.negatives = [[] for _ in queries]
    return prepare_source(source, tokenizer)
