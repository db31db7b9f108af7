"""Requests of exact lengths, as texts and as the ids that rerankd makes of them: all engines read the same."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from rerankd.engine.base import HeadSpec
from rerankd.prompt.build import PromptBuilder, PromptLimits
from rerankd.prompt.templates import TEMPLATES
from rerankd.prompt.tokenizer import PromptTokenizer
from rerankd.types import IdArray, PairPrompt

_WORD = re.compile("Ġ[a-z]{3,}")
"""Tokens that a text of words separated by spaces falls into, one each, whatever stands beside them."""
_UNLIMITED = PromptLimits(max_pair_tokens=1 << 20)


@dataclass(frozen=True, slots=True)
class Workload:
    """One request: documents of the same length behind one prefix, in tokens, template included."""

    documents: int
    prefix: int
    tail: int

    @property
    def tokens(self) -> int:
        """Tokens of all pairs, each with its prefix: what an engine without sharing reads."""
        return self.documents * (self.prefix + self.tail)

    def __str__(self) -> str:
        noun = "document" if self.documents == 1 else "documents"
        return f"{self.documents} {noun} of {self.prefix} + {self.tail} tokens"


WORKLOADS = {
    "A": Workload(16, 77, 158),
    "B": Workload(64, 77, 33),
    "10": Workload(10, 77, 33),
    "1000": Workload(1000, 77, 33),
}


@dataclass(frozen=True, slots=True)
class Request:
    """One request as texts, and the prompts that rerankd makes of it."""

    query: str
    documents: tuple[str, ...]
    instruction: str
    prefix: IdArray
    tails: tuple[IdArray, ...]


class Texts:
    """Texts of given lengths in one tokenizer's tokens."""

    def __init__(self, tokenizer_json: Path) -> None:
        self._tokenizer = PromptTokenizer(tokenizer_json, TEMPLATES["qwen3-reranker"])
        self._builder = PromptBuilder(self._tokenizer)
        vocabulary = Tokenizer.from_file(str(tokenizer_json)).get_vocab(with_added_tokens=False)
        self._words = sorted(token[1:] for token in vocabulary if _WORD.fullmatch(token))
        self.instruction = self._tokenizer.template.default_instruction
        (bare,) = self.pairs("a", ["b"])
        self._around_query, self._around_document = len(bare.prefix) - 1, len(bare.tail) - 1

    @property
    def head(self) -> HeadSpec:
        """The words of the template in this vocabulary."""
        return self._tokenizer.head_spec()

    def request(self, workload: Workload, number: int = 0) -> Request:
        """The ``number``-th request of this shape: its words differ from all others', so that no cache helps.

        Raises:
            ValueError: the template alone is longer than the workload, or words did not become one token each.
        """
        source = random.Random(f"{workload}/{number}")
        query = self._text(source, workload.prefix - self._around_query)
        # Documents that begin with the same word would share it.
        firsts = source.sample(self._words, workload.documents)
        rest = workload.tail - self._around_document - 1
        documents = tuple(first + " " + self._text(source, rest) if rest else first for first in firsts)
        pairs = self.pairs(query, documents)
        prefix, tails = pairs[0].prefix, tuple(pair.tail for pair in pairs)
        if len(prefix) != workload.prefix or {len(tail) for tail in tails} != {workload.tail}:
            raise ValueError(f"{workload} cannot be made: {len(prefix)} + {[len(tail) for tail in tails][:5]}")
        return Request(query, documents, self.instruction, prefix, tails)

    def _text(self, source: random.Random, words: int) -> str:
        if words < 1:
            raise ValueError("a query and a document have at least one word each")
        return " ".join(source.choices(self._words, k=words))

    def pairs(self, query: str, documents: Sequence[str]) -> list[PairPrompt]:
        """What rerankd makes of a request."""
        found = self._builder.pairs(query, documents, self.instruction, _UNLIMITED)
        return [pair for pair in found if isinstance(pair, PairPrompt)]
