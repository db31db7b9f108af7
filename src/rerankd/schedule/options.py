"""What the scheduler is made from."""

from __future__ import annotations

from dataclasses import dataclass

from rerankd.schedule.turns import TurnLimits
from rerankd.settings import Settings

TOKENS_A_CHARACTER = 1
"""An upper bound for all but rare scripts: words cost a quarter of this, Chinese two thirds."""
CHARACTERS_A_TOKEN = 4
"""Of English words; what waits to be tokenised may become about a queue's tokens."""
FRAME_TOKENS = 256
"""A generous guess at what the prompt adds to a document: template, instruction, a question."""


@dataclass(frozen=True, slots=True)
class ScheduleOptions:
    """Limits and times of one scheduler; seconds all, unless the name says otherwise."""

    queue_tokens: int
    queue_requests: int = 512
    max_tenant_share: float = 0.5
    engine_timeout_seconds: float = 30.0
    """A forward pass that takes longer than this, and than twice the longest so far, hangs. One pair that is longer
    than the token budget may take as many times longer."""
    check_seconds: float = 10.0
    """The engine is asked for its health when it was idle for this long."""
    calm_seconds: float = 60.0
    """How long a token budget stays lowered after the engine ran out of memory."""
    deny_seconds: float = 60.0
    """How long a pair that failed twice is not tried again."""

    @classmethod
    def from_settings(cls, settings: Settings) -> ScheduleOptions:
        return cls(
            queue_tokens=settings.queue_tokens or default_queue_tokens(settings),
            queue_requests=settings.queue_requests,
            max_tenant_share=settings.max_tenant_share,
            engine_timeout_seconds=settings.engine_timeout_seconds,
        )


def default_queue_tokens(settings: Settings) -> int:
    """Twice what the largest request can hold, so that one such request leaves half of the queue to others."""
    largest = settings.max_request_characters * TOKENS_A_CHARACTER + settings.max_documents * FRAME_TOKENS
    return 2 * max(largest, settings.max_pair_tokens)


def turn_limits(settings: Settings) -> TurnLimits:
    """What may wait for the tokenizer: about a queue of tokens, and at least two of the largest requests."""
    tokens = settings.queue_tokens or default_queue_tokens(settings)
    return TurnLimits(
        requests=settings.queue_requests,
        characters=max(CHARACTERS_A_TOKEN * tokens, 2 * settings.max_request_characters),
        max_tenant_share=settings.max_tenant_share,
    )
