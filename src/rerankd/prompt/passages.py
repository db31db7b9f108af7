"""Cuts a long document into passages that overlap, at the ends of paragraphs and sentences where it can."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rerankd.prompt.sentences import Bounds, bounds
from rerankd.prompt.tokenizer import PromptTokenizer
from rerankd.types import IdArray

LEAST_TOKENS = 16
"""Of a passage: less is no text to judge."""
_BLOCK_CHARACTERS = 16_384
"""Characters tokenised at once: what they take until their offsets are copied out stays below some 10 MB."""
_OVERLAP_SHARE = 4
"""At most the fourth part of a passage repeats the one before, so that the work stays linear."""
_LEAST_SHARE = 8
"""A sentence that ends in the first eighth of a passage does not end it."""
_BLANKS = (" ", "\n", "\t", "\u3000")


@dataclass(frozen=True, slots=True)
class ChunkRule:
    """How documents are cut into passages.

    Attributes:
        tokens: of one passage; a document that has no more is not cut.
        overlap: tokens of a passage that stood in the one before, at most a quarter of it.
        most: passages of one document; what comes behind the last is left out.
        enough: a passage ends with the first sentence that ends after so many tokens; 0 fills it.
    """

    tokens: int = 512
    overlap: int = 64
    most: int = 512
    enough: int = 0


class Span(NamedTuple):
    """A part of a text: offsets in code points, half open."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Split:
    """The passages of one document, in order; a document that is not cut is its own only passage."""

    spans: tuple[Span, ...]
    is_cut: bool = False
    """Was anything left out?"""


def split(tokenizer: PromptTokenizer, text: str, rule: ChunkRule, most_tokens: int | None = None) -> Split:
    """The passages of a document.

    Args:
        rule: with ``tokens`` of at least 1.
        most_tokens: tokens of the document after which it is cut off; None for all of it.

    Raises:
        InvalidRequest, TooLarge, ScoringError: the text cannot be tokenised.
    """
    whole = Split((Span(0, len(text)),))
    # No tokenizer makes more tokens of a text than it has bytes.
    if len(text) <= (rule.enough or rule.tokens) // (1 if text.isascii() else 4) and most_tokens is None:
        return whole
    starts = _token_starts(tokenizer, text)
    end, is_cut = len(text), False
    if most_tokens is not None and len(starts) > most_tokens:
        end, starts, is_cut = int(starts[most_tokens]), starts[:most_tokens], True
    if len(starts) <= (rule.enough or rule.tokens):
        return Split((Span(0, end),), is_cut)
    cutter = _Cutter(text, end, starts, rule)
    spans = tuple(cutter.passages())
    return Split(spans, is_cut or cutter.left_out) if spans else whole


def _token_starts(tokenizer: PromptTokenizer, text: str) -> IdArray:
    """Where each token begins, in characters, ascending: int32, shape (tokens,)."""
    parts, start = [], 0
    while start < len(text):
        end = _block_end(text, start)
        parts.append(tokenizer.starts(text[start:end]) + np.int32(start))
        start = end
    return np.maximum.accumulate(np.concatenate(parts)) if parts else np.empty(0, dtype=np.int32)


def _block_end(text: str, start: int) -> int:
    """The end of a block: behind a blank of its last quarter, where there is one."""
    end = start + _BLOCK_CHARACTERS
    if end >= len(text):
        return len(text)
    blank = max(text.rfind(blank, end - _BLOCK_CHARACTERS // 4, end) for blank in _BLANKS)
    return blank if blank > 0 else end


class _Cutter:
    """One document on its way to passages; places are known as characters and as tokens."""

    def __init__(self, text: str, end: int, starts: IdArray, rule: ChunkRule) -> None:
        self.left_out = False
        """Does text stand behind the last passage?"""
        self._text = text
        self._end = end
        self._starts = starts
        self._rule = rule
        self._overlap = min(rule.overlap, rule.tokens // _OVERLAP_SHARE)
        found: Bounds = bounds(text[:end])
        self._sentences, self._sentence_tokens = found.sentences, np.searchsorted(starts, found.sentences)
        self._paragraphs, self._paragraph_tokens = found.paragraphs, np.searchsorted(starts, found.paragraphs)

    def passages(self) -> Iterator[Span]:
        token = start = count = 0
        begun = -1  # where the last passage begins
        while True:
            last = token + (self._rule.enough or self._rule.tokens) >= len(self._starts)
            end_token, end = (len(self._starts), self._end) if last else self._passage_end(token)
            if span := self._stripped(start, end):
                yield span
                begun, count = span.start, count + 1
            if last:
                return
            if count == self._rule.most:
                self.left_out = bool(self._text[end : self._end].strip())
                return
            token, start = self._next_start(end_token, end)
            if start <= begun:
                # A passage that is shorter than the overlap would be repeated as a whole.
                token, start = end_token, end

    def _passage_end(self, token: int) -> tuple[int, int]:
        """The last good place in what a passage may hold: the end of a paragraph, a sentence or a word."""
        half, most = token + self._rule.tokens // 2, token + self._rule.tokens
        least = token + max(self._overlap, self._rule.tokens // _LEAST_SHARE)
        if self._rule.enough:
            index = int(np.searchsorted(self._sentence_tokens, token + self._rule.enough))
            if index < len(self._sentences) and self._sentence_tokens[index] <= most:
                return int(self._sentence_tokens[index]), int(self._sentences[index])
            if most >= len(self._starts):
                return len(self._starts), self._end
        for places, tokens, after in (
            (self._paragraphs, self._paragraph_tokens, half),
            (self._sentences, self._sentence_tokens, least),
        ):
            index = int(np.searchsorted(tokens, most, side="right")) - 1
            if index >= 0 and tokens[index] > after:
                return int(tokens[index]), int(places[index])
        first, end = int(self._starts[half]), int(self._starts[most])
        blank = max(self._text.rfind(blank, first, end) for blank in _BLANKS)
        return (self._token_at(blank), blank) if blank > first else (most, end)

    def _next_start(self, token: int, place: int) -> tuple[int, int]:
        """Where the next passage begins: a sentence back, within the overlap, else a word, else a token."""
        if not self._overlap:
            return token, place
        back = token - self._overlap
        index = int(np.searchsorted(self._sentence_tokens, back))
        if index < len(self._sentences) and self._sentence_tokens[index] < token:
            return int(self._sentence_tokens[index]), int(self._sentences[index])
        first = int(self._starts[back])
        blanks = [found for blank in _BLANKS if (found := self._text.find(blank, first, place)) >= 0]
        return (self._token_at(min(blanks)), min(blanks)) if blanks else (back, first)

    def _token_at(self, place: int) -> int:
        return int(np.searchsorted(self._starts, place))

    def _stripped(self, start: int, end: int) -> Span | None:
        text = self._text[start:end]
        before, behind = len(text) - len(text.lstrip()), len(text) - len(text.rstrip())
        return Span(start + before, end - behind) if before < len(text) else None
