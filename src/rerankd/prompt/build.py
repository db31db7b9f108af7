"""A request's texts to the prompts of its pairs, within the token limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rerankd.errors import InvalidDocument
from rerankd.prompt.fit import Fitting, PromptLimits
from rerankd.prompt.passages import ChunkRule, Split
from rerankd.prompt.tokenizer import PromptTokenizer
from rerankd.types import PairPrompt

__all__ = ["PromptBuilder", "PromptLimits", "RequestPrompts"]


class Cancelled(Exception):
    """Nobody waits for the prompts any more."""


class RequestPrompts:
    """The prompts of one query, made some documents at a time; what becomes of one pair depends on no other.

    Raises:
        TooLong: the query is longer than the client allows it, and truncation is off.
        InvalidRequest, TooLarge: query or instruction cannot be tokenised.
    """

    def __init__(self, tokenizer: PromptTokenizer, query: str, instruction: str, limits: PromptLimits) -> None:
        self._fitting = Fitting(tokenizer, query, instruction, limits)

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
        for encoded, document, index in zip(self._fitting.encode(documents), documents, indices, strict=True):
            if is_cancelled():
                raise Cancelled
            if isinstance(encoded, InvalidDocument):
                pairs.append(encoded)
                continue
            try:
                pairs.append(self._fitting.fit(encoded, document, index))
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
            splits.append(self._fitting.split(document, rule))
        return splits


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
