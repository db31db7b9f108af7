"""A request's texts to the prompts of its pairs: shared prefix and tails, within the token limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rerankd.prompt.fit import Fitting, Pair, PromptLimits
from rerankd.prompt.tokenizer import PromptTokenizer
from rerankd.types import IdArray

__all__ = ["Pair", "Prompt", "PromptBuilder", "PromptLimits"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """The prompts of a request: pair ``i`` reads ``prefix + tails[i]``, and no tail is empty.

    ``truncated`` says for each pair whether it lost tokens, of the document or of the query.
    """

    prefix: IdArray
    tails: tuple[IdArray, ...]
    truncated: tuple[bool, ...]

    @classmethod
    def of(cls, pairs: Sequence[Pair]) -> Prompt:
        """Share the longest run of tokens that all pairs begin with; a pair by itself shares none."""
        shared = _common(pairs) if len(pairs) > 1 else 0
        return cls(
            prefix=pairs[0].ids[:shared],
            tails=tuple(pair.ids[shared:] for pair in pairs),
            truncated=tuple(pair.truncated for pair in pairs),
        )

    @property
    def pair_tokens(self) -> tuple[int, ...]:
        """Tokens of each pair, template included."""
        return tuple(len(self.prefix) + len(tail) for tail in self.tails)


def _common(pairs: Sequence[Pair]) -> int:
    first = pairs[0].ids
    shared = min(len(pair.ids) for pair in pairs) - 1
    for pair in pairs[1:]:
        differs = first[:shared] != pair.ids[:shared]
        if differs.any():
            shared = int(differs.argmax())
    return shared


class PromptBuilder:
    """Builds prompts with one tokenizer. Holds nothing else: threads may share it."""

    def __init__(self, tokenizer: PromptTokenizer) -> None:
        self.tokenizer = tokenizer

    def build(
        self,
        query: str,
        documents: Sequence[str],
        instruction: str,
        limits: PromptLimits,
        positions: Sequence[int] | None = None,
    ) -> Prompt:
        """The prompts of a query with its documents; see :meth:`pairs` for arguments and errors."""
        return Prompt.of(self.pairs(query, documents, instruction, limits, positions))

    def pairs(
        self,
        query: str,
        documents: Sequence[str],
        instruction: str,
        limits: PromptLimits,
        positions: Sequence[int] | None = None,
    ) -> list[Pair]:
        """Every pair's ids; what becomes of one pair does not depend on the other documents.

        Args:
            query: any text.
            documents: at least one text.
            instruction: what counts as relevant; a template without a place for it ignores it.
            limits: see :class:`PromptLimits`.
            positions: the documents' indices in the client's request, for error messages; None means 0, 1, ...

        Raises:
            TooLong: the instruction leaves no room, or truncation is off and a limit is exceeded.
            InvalidRequest: a text is not valid Unicode.
        """
        fitting = Fitting(self.tokenizer, query, instruction, limits)
        prompts = self.tokenizer.prompts(instruction, fitting.query, documents)
        indices = range(len(documents)) if positions is None else positions
        return [
            fitting.fit(ids, document, index)
            for ids, document, index in zip(prompts, documents, indices, strict=True)
        ]
