"""The answers of two arms to one request -> one answer, by team draft."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

from rerankd.experiments.analysis import INTERLEAVED
from rerankd.experiments.interleaving import team_draft
from rerankd.types import DocumentScore, RerankResult


def interleaved(
    answers: tuple[RerankResult, RerankResult],
    arms: tuple[str, str],
    coin: random.Random,
    top_n: int | None,
) -> RerankResult:
    """One answer in which every document says its team: an arm, or both where both would show it there.

    Clients sort by score, and two models' scores have no common scale. So a document has the score that its own arm
    gave it, but never more than the one before it has; ``model_score`` is what it was given.

    Args:
        answers: each with its own first ``top_n``.
        top_n: documents of the answer.
    """
    first, second = answers
    rankings = [[place.index for place in answer.ranked] for answer in answers]
    scores: list[DocumentScore] = [
        one if one.error is None else two for one, two in zip(first.scores, second.scores, strict=True)
    ]
    ranked: list[DocumentScore] = []
    score = logit = math.inf
    for index, team in team_draft(rankings[0], rankings[1], coin):
        own = answers[team or 0].scores[index]
        # What is ranked has both.
        score, logit = _below(own.score or 0.0, score), _below(own.logit or 0.0, logit)
        name = INTERLEAVED.join(arms) if team is None else arms[team]
        place = replace(own, score=score, logit=logit, team=name, model_score=own.score)
        scores[index] = place
        ranked.append(place)
    return replace(
        first,
        scores=tuple(scores),
        ranked=tuple(ranked[:top_n]),
        prompt_tokens=first.prompt_tokens + second.prompt_tokens,
        cached_documents=min(first.cached_documents, second.cached_documents),
        warnings=_merged(first.warnings, second.warnings),
    )


def _below(own: float, before: float) -> float:
    """The document's own score, or the next one below that of the document before; a probability stays one."""
    if own < before:
        return own
    return before if before == 0 else math.nextafter(before, -math.inf)


def _merged(first: Sequence[str], second: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*first, *second]))
