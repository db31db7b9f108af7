"""A request's texts to the prompts of its pairs; :mod:`rerankd.prompt.truncate` has the rule of the token limits.

Texts are cut and tokenised again, not lists of ids: a truncated prompt is exactly the prompt of a shorter text.
What does not depend on a document is encoded once for all of them.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np

from rerankd.errors import InvalidDocument, InvalidRequest, ScoringError, TooLarge, TooLong
from rerankd.prompt.passages import ChunkRule, Span, Split, split
from rerankd.prompt.template import Text
from rerankd.prompt.tokenizer import PromptTokenizer, Side
from rerankd.prompt.truncate import INSTRUCTION_SHARE, Shares, divide
from rerankd.types import IdArray, PairPrompt

Encoded: TypeAlias = tuple[IdArray, ...]
"""The ids of each part of the prompt that has the document in it."""

_MARGIN = 16
"""One token in so many is kept free: a passage by itself may be spelled with a few more than within its document."""


@dataclass(frozen=True, slots=True)
class PromptLimits:
    """How many tokens a pair may have, and what happens to one that has more.

    ``max_tokens_per_document`` and ``max_tokens_per_query`` are a client's own limits and come first; they count
    what the text adds to the prompt. With ``truncate`` off every limit is an error instead of a cut.
    """

    max_pair_tokens: int = 8192
    query_truncation_share: float = 0.75
    max_tokens_per_document: int | None = None
    max_tokens_per_query: int | None = None
    truncate: bool = True
    side: Side = "right"
    shown: str = field(init=False, compare=False, repr=False)
    """All of them in words, for cache keys."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "shown", repr(self))


prompt_limits = functools.lru_cache(256)(PromptLimits)
"""The same limits come back with request after request, and are made once."""


class Cancelled(Exception):
    """Nobody waits for the prompts any more."""


class QueryPrompt:
    """The prompt of one query and instruction with any document: a prefix, and then parts with the document in them,
    each with what stands behind it."""

    def __init__(self, tokenizer: PromptTokenizer, instruction: str, query: str) -> None:
        self._tokenizer = tokenizer
        self._values = values = {"instruction": instruction, "query": query}
        self._texts: list[Text] = []
        fixed: list[list[IdArray]] = [[]]
        for part in tokenizer.parts:
            if not isinstance(part, Text):
                fixed[-1].append(part)
            elif "document" in part.fields:
                self._texts.append(part)
                fixed.append([])
            elif "query" in part.fields:
                fixed[-1] += tokenizer.encode([part.fill(values)])
            else:
                fixed[-1].append(tokenizer.encode_kept(part.fill(values)))
        self.prefix, *self._behind = map(_join, fixed)
        """What the prompt begins with, whatever the document: int32."""
        self._frames = [part.around("document", values) for part in self._texts]
        self.fixed = len(self.prefix) + sum(map(len, self._behind))
        """Tokens without the parts that have the document in them."""

    def encode(self, documents: Sequence[str]) -> list[Encoded]:
        """The parts with a document, of each document."""
        columns = []
        for part, frame in zip(self._texts, self._frames, strict=True):
            if frame is None:
                filled = [part.fill({**self._values, "document": text}) for text in documents]
            else:
                before, behind = frame
                filled = [f"{before}{text}{behind}" for text in documents]
            columns.append(self._tokenizer.encode(filled))
        return list(zip(*columns, strict=True))

    def tokens(self, encoded: Encoded) -> int:
        """Tokens of the whole prompt."""
        return self.fixed + sum(map(len, encoded))

    @cached_property
    def empty_tokens(self) -> int:
        """Tokens of the prompt with an empty document."""
        return self.tokens(self.encode([""])[0])

    def pair(self, encoded: Encoded, *, truncated: bool) -> PairPrompt:
        """The prompt with a document; its tail is never empty."""
        tail = np.concatenate(list(itertools.chain.from_iterable(zip(encoded, self._behind, strict=True))))
        if len(tail):
            return PairPrompt(self.prefix, tail, truncated)
        if not len(self.prefix):
            raise InvalidDocument("query and document have no token at all")
        return PairPrompt(self.prefix[:-1], self.prefix[-1:], truncated)


class RequestPrompts:
    """The prompts of one query, made some documents at a time; what becomes of one pair depends on no other.

    Tokens of the parts are counted only once a pair needs cutting.

    Raises:
        TooLong: truncation is off and the query has more tokens than the client allows it.
        InvalidRequest, TooLarge: query or instruction is no text that can be tokenised.
    """

    def __init__(self, tokenizer: PromptTokenizer, query: str, instruction: str, limits: PromptLimits) -> None:
        self._tokenizer = tokenizer
        self._instruction = instruction
        self._limits = limits
        # By tokens: pairs that need a shorter query need one of few.
        self._shortened: dict[int, QueryPrompt] = {}
        own = limits.max_tokens_per_query
        self._query = query if own is None else self._within(own, query)
        self._query_truncated = self._query != query
        self._whole = QueryPrompt(tokenizer, instruction, self._query)

    def pairs(
        self, documents: Sequence[str], indices: Sequence[int], is_cancelled: Callable[[], bool] = lambda: False
    ) -> list[PairPrompt | InvalidDocument]:
        """The pairs of some documents, in order; a document that cannot be tokenised fails alone.

        Args:
            documents: any texts.
            indices: their places in the client's request, for error messages.
            is_cancelled: asked before each document that has to be cut.

        Raises:
            TooLong: the instruction leaves no room, or truncation is off and a limit is exceeded.
            Cancelled: as was asked for.
        """
        pairs: list[PairPrompt | InvalidDocument] = []
        whole, most, own = self._whole, self._limits.max_pair_tokens, self._limits.max_tokens_per_document
        for encoded, document, index in zip(self._encode(documents), documents, indices, strict=True):
            if isinstance(encoded, InvalidDocument):
                pairs.append(encoded)
                continue
            try:
                if own is None and whole.fixed + sum(map(len, encoded)) <= most:
                    pairs.append(whole.pair(encoded, truncated=self._query_truncated))
                    continue
                if is_cancelled():
                    raise Cancelled
                pairs.append(self._fit(encoded, document, index))
            except InvalidDocument as error:
                pairs.append(error.with_traceback(None))
        return pairs

    def split(
        self, documents: Sequence[str], rule: ChunkRule, is_cancelled: Callable[[], bool] = lambda: False
    ) -> list[Split]:
        """The passages of some documents, in order.

        Raises:
            TooLong: the instruction leaves no room, or truncation is off and a document needs too many passages.
            Cancelled: as was asked for.
        """
        splits = []
        for document in documents:
            if is_cancelled():
                raise Cancelled
            splits.append(self._split(document, rule))
        return splits

    def _encode(self, documents: Sequence[str]) -> list[Encoded | InvalidDocument]:
        """The documents' ids; one that cannot be tokenised fails alone."""
        try:
            return list(self._whole.encode(documents))
        except (InvalidRequest, TooLarge) as error:
            if len(documents) == 1:
                return [InvalidDocument(error.message)]
        return [encoded for document in documents for encoded in self._encode([document])]

    def _fit(self, encoded: Encoded, document: str, index: int) -> PairPrompt:
        """The pair as it is where it fits, else cut.

        Args:
            encoded: what :meth:`_encode` made of the document.
            document: the document's text.
            index: the document's place in the request, for messages.

        Raises:
            TooLong: truncation is off, or the instruction takes more than its share.
        """
        tokens = self._whole.tokens(encoded)
        own = self._limits.max_tokens_per_document
        too_long_document = own is not None and tokens - self._whole.empty_tokens > own
        if tokens <= self._limits.max_pair_tokens and not too_long_document:
            return self._whole.pair(encoded, truncated=self._query_truncated)
        if not self._limits.truncate:
            raise self._too_long(tokens, index, own if too_long_document else None)
        return self._cut(encoded, document)

    def _split(self, document: str, rule: ChunkRule) -> Split:
        """The passages of a document, each short enough for a pair; what cannot be tokenised stays whole.

        Raises:
            TooLong: the instruction leaves no room; or truncation is off, and more passages are needed than allowed.
        """
        limits = self._limits
        rule = replace(rule, tokens=min(rule.tokens, self._room))
        try:
            found = split(self._tokenizer, document, rule, limits.max_tokens_per_document)
        except (InvalidRequest, TooLarge, ScoringError):
            # Its pair fails alone, with the reason.
            return Split((Span(0, len(document)),))
        if found.is_cut and not limits.truncate:
            message = f"a document needs more than {rule.most} passages of {rule.tokens} tokens and truncation is off"
            raise TooLong(message, param="documents", setting="max_chunks_per_document")
        return found

    @cached_property
    def _room(self) -> int:
        """Tokens of a document beside this query and instruction, and a few that its pieces may have more than it."""
        times = self._tokenizer.template.occurrences("document")
        room = self._shares(self._limits.max_pair_tokens).document // times
        return max(room - max(room // _MARGIN, 1), 1)

    def _too_long(self, tokens: int, index: int, own_limit: int | None) -> TooLong:
        param = f"documents[{index}]"
        if own_limit is not None:
            tokens -= self._whole.empty_tokens
            message = f"document {index} has {tokens} tokens; max_tokens_per_document allows {own_limit}"
            return TooLong(message, param=param)
        limit = self._limits.max_pair_tokens
        message = f"document {index} makes a pair of {tokens} tokens; the limit is {limit} and truncation is off"
        return TooLong(message, param=param, setting="max_pair_tokens")

    def _cut(self, encoded: Encoded, document: str) -> PairPrompt:
        """Cut the query to its share if it has to be, then the document to what is left, exactly."""
        shares = self._shares(self._whole.tokens(encoded) - self._whole.empty_tokens)
        query_tokens, text = shares.query, document
        while True:
            prompt = self._with_query_of(query_tokens)
            limit = min(self._limits.max_pair_tokens, prompt.empty_tokens + shares.document)
            if prompt is not self._whole or text is not document:
                encoded = prompt.encode([text])[0]
            text, encoded = self._shorten_document(prompt, text, encoded, shares.document, limit)
            over = prompt.tokens(encoded) - limit
            if over <= 0 or not query_tokens:
                truncated = self._query_truncated or prompt is not self._whole or text != document
                return prompt.pair(encoded, truncated=truncated)
            # Where no seam keeps query and document apart, they may be spelled with more tokens side by side.
            query_tokens = max(query_tokens - over, 0)

    def _shorten_document(
        self, prompt: QueryPrompt, text: str, encoded: Encoded, keep: int, limit: int
    ) -> tuple[str, Encoded]:
        """Cut until the prompt fits; a cut word may be spelled with more tokens than before."""
        times = self._tokenizer.template.occurrences("document")
        keep, over = keep // times, prompt.tokens(encoded) - limit
        while text and over > 0:
            text = self._tokenizer.cut(text, max(keep, 0), self._limits.side)
            encoded = prompt.encode([text])[0]
            over = prompt.tokens(encoded) - limit
            keep -= -(-over // times)
        return text, encoded

    def _shares(self, document_tokens: int) -> Shares:
        limit = self._limits.max_pair_tokens
        own = self._limits.max_tokens_per_document
        document_tokens = document_tokens if own is None else min(document_tokens, own)
        if self._whole.empty_tokens + document_tokens <= limit:
            return Shares(self._query_tokens, document_tokens)
        budget = limit - self._frame
        instruction_tokens = self._without_texts - self._frame
        if instruction_tokens > budget * INSTRUCTION_SHARE:
            message = (
                f"the instruction has {instruction_tokens} tokens, too many for a limit of {limit} tokens a pair: "
                f"it may take {max(int(budget * INSTRUCTION_SHARE), 0)}"
            )
            raise TooLong(message, param="instruction", setting="max_pair_tokens")
        return divide(
            budget, instruction_tokens, self._query_tokens, document_tokens, self._limits.query_truncation_share
        )

    def _with_query_of(self, tokens: int) -> QueryPrompt:
        """The prompt with the query cut to so many tokens."""
        if tokens >= self._query_tokens:
            return self._whole
        if tokens not in self._shortened:
            query = self._shorten_query(self._query, self._query_tokens, tokens)
            self._shortened[tokens] = QueryPrompt(self._tokenizer, self._instruction, query)
        return self._shortened[tokens]

    def _within(self, limit: int, query: str) -> str:
        """The query within the limit that the client sets it."""
        tokens = self._empty_tokens(query) - self._without_texts
        if tokens > limit and not self._limits.truncate:
            message = f"the query has {tokens} tokens; max_tokens_per_query allows {limit}"
            raise TooLong(message, param="query")
        return self._shorten_query(query, tokens, limit)

    def _shorten_query(self, query: str, tokens: int, limit: int) -> str:
        times = self._tokenizer.template.occurrences("query")
        keep, over = limit // times, tokens - limit
        while query and over > 0:
            query = self._tokenizer.cut(query, max(keep, 0), "right")
            over = self._empty_tokens(query) - self._without_texts - limit
            keep -= -(-over // times)
        return query

    @cached_property
    def _frame(self) -> int:
        """Tokens of the template alone."""
        return QueryPrompt(self._tokenizer, "", "").empty_tokens

    @cached_property
    def _without_texts(self) -> int:
        """Tokens of the template with the instruction."""
        return self._empty_tokens("")

    @property
    def _query_tokens(self) -> int:
        return self._whole.empty_tokens - self._without_texts

    def _empty_tokens(self, query: str) -> int:
        return QueryPrompt(self._tokenizer, self._instruction, query).empty_tokens


class PromptBuilder:
    """Builds prompts with one tokenizer. Holds nothing else: threads may share it."""

    def __init__(self, tokenizer: PromptTokenizer) -> None:
        self.tokenizer = tokenizer

    def begin(self, query: str, instruction: str, limits: PromptLimits) -> RequestPrompts:
        """The prompts of one query; ``instruction`` says what counts as relevant, where the template has it."""
        return RequestPrompts(self.tokenizer, query, instruction, limits)

    def pairs(
        self, query: str, documents: Sequence[str], instruction: str, limits: PromptLimits
    ) -> list[PairPrompt | InvalidDocument]:
        """All pairs of a query at once; see :meth:`RequestPrompts.pairs`."""
        return self.begin(query, instruction, limits).pairs(documents, range(len(documents)))


def _join(parts: Sequence[IdArray]) -> IdArray:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int32)
