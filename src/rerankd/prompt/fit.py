"""Fits the pairs of one query into their token limits, by the rule of :mod:`rerankd.prompt.truncate`.

Texts are cut and tokenised again, not lists of ids: a truncated prompt is exactly the prompt of a shorter text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from rerankd.errors import TooLong
from rerankd.prompt.tokenizer import PromptTokenizer, Side
from rerankd.prompt.truncate import INSTRUCTION_SHARE, Shares, divide
from rerankd.types import IdArray


@dataclass(frozen=True, slots=True)
class PromptLimits:
    """How many tokens a pair may have, and what happens to one that has more.

    ``max_tokens_per_document`` and ``max_tokens_per_query`` are a client's own limits and come first; they count
    what the text adds to the prompt. With ``truncate`` off every limit is an error instead of a cut.
    """

    max_pair_tokens: int = 8192
    query_truncation_share: float = 0.25
    max_tokens_per_document: int | None = None
    max_tokens_per_query: int | None = None
    truncate: bool = True
    side: Side = "right"


@dataclass(frozen=True, slots=True)
class Pair:
    """One pair's whole prompt, int32; ``truncated`` when its document or its query lost tokens."""

    ids: IdArray
    truncated: bool = False


class Fitting:
    """One query's pairs against the limits; tokens of the parts are counted only once a pair needs cutting.

    Raises:
        TooLong: truncation is off and the query has more tokens than the client allows it.
    """

    def __init__(self, tokenizer: PromptTokenizer, query: str, instruction: str, limits: PromptLimits) -> None:
        self._tokenizer = tokenizer
        self._instruction = instruction
        self._limits = limits
        # By tokens: most pairs of a request that need a shorter query need the same one.
        self._shortened: dict[int, tuple[str, int]] = {}
        self.query = self._within_own_limit(query)
        self._query_truncated = self.query != query

    def fit(self, ids: IdArray, document: str, index: int) -> Pair:
        """The pair as it is where it fits, else cut.

        Args:
            ids: the whole prompt of :attr:`query` with the document, int32.
            document: the document's text.
            index: the document's place in the request, for the message.

        Raises:
            TooLong: truncation is off, or the instruction takes more than its share.
        """
        own = self._limits.max_tokens_per_document
        too_long_document = own is not None and len(ids) - self._without_document > own
        if len(ids) <= self._limits.max_pair_tokens and not too_long_document:
            return Pair(ids, truncated=self._query_truncated)
        if not self._limits.truncate:
            raise self._too_long(ids, index, own if too_long_document else None)
        return self._cut(ids, document)

    def _within_own_limit(self, query: str) -> str:
        limit = self._limits.max_tokens_per_query
        if limit is None:
            return query
        tokens = self._count(query) - self._without_texts
        if tokens > limit and not self._limits.truncate:
            message = f"the query has {tokens} tokens; max_tokens_per_query allows {limit}"
            raise TooLong(message, param="query")
        return self._shorten_query(query, tokens, limit)

    def _too_long(self, ids: IdArray, index: int, own_limit: int | None) -> TooLong:
        param = f"documents[{index}]"
        if own_limit is not None:
            tokens = len(ids) - self._without_document
            message = f"document {index} has {tokens} tokens; max_tokens_per_document allows {own_limit}"
            return TooLong(message, param=param)
        limit = self._limits.max_pair_tokens
        message = f"document {index} makes a pair of {len(ids)} tokens; the limit is {limit} and truncation is off"
        return TooLong(message, param=param, setting="max_pair_tokens")

    def _cut(self, ids: IdArray, document: str) -> Pair:
        tokens = len(ids) - self._without_document
        shares = self._shares(tokens)
        query, query_cost = self._query_within(shares.query)
        limit = min(self._limits.max_pair_tokens, query_cost + shares.document)

        def excess(text: str) -> int:
            return self._count(query, text) - limit

        over = query_cost + tokens - limit
        text = self._shorten(document, "document", shares.document, over, excess, self._limits.side)
        pair = self._tokenizer.prompts(self._instruction, query, [text])[0]
        return Pair(pair, truncated=self._query_truncated or query != self.query or text != document)

    def _shares(self, document_tokens: int) -> Shares:
        limit = self._limits.max_pair_tokens
        own = self._limits.max_tokens_per_document
        document_tokens = document_tokens if own is None else min(document_tokens, own)
        if self._without_document + document_tokens <= limit:
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

    def _query_within(self, tokens: int) -> tuple[str, int]:
        """The query cut to some tokens, and the tokens of the prompt with it and an empty document."""
        if tokens not in self._shortened:
            query = self._shorten_query(self.query, self._query_tokens, tokens)
            self._shortened[tokens] = (query, self._count(query))
        return self._shortened[tokens]

    def _shorten_query(self, query: str, tokens: int, limit: int) -> str:
        def excess(text: str) -> int:
            return self._count(text) - self._without_texts - limit

        return self._shorten(query, "query", limit, tokens - limit, excess, "right")

    def _shorten(self, text: str, field: str, limit: int, over: int, excess: Callable[[str], int], side: Side) -> str:
        """Cut a text that is some tokens over its limit, and again while a cut word is spelled with more tokens."""
        times = self._tokenizer.template.occurrences(field)
        keep = limit // times
        while text and over > 0:
            text = self._tokenizer.cut(text, max(keep, 0), side)
            over = excess(text)
            keep -= -(-over // times)
        return text

    @cached_property
    def _frame(self) -> int:
        """Tokens of the template alone."""
        return len(self._tokenizer.prompts("", "", [""])[0])

    @cached_property
    def _without_texts(self) -> int:
        """Tokens of the template with the instruction."""
        return self._count("")

    @cached_property
    def _without_document(self) -> int:
        return self._count(self.query)

    @property
    def _query_tokens(self) -> int:
        return self._without_document - self._without_texts

    def _count(self, query: str, document: str = "") -> int:
        return len(self._tokenizer.prompts(self._instruction, query, [document])[0])
