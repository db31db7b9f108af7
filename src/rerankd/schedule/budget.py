"""How many tokens a batch may have just now, and how fast they go."""

from __future__ import annotations

_SMOOTHING = 0.2
_FULL_SHARE = 0.5


class TokenBudget:
    """The engine's token budget, lowered for a while after it ran out of memory.

    Memory may be short because of somebody else on the card, so the full budget comes back: doubled each
    time ``calm_seconds`` pass without another shortage.
    """

    def __init__(self, full: int, calm_seconds: float) -> None:
        self.full = full
        self._calm_seconds = calm_seconds
        self._now_allowed = full
        self._raise_at = float("inf")

    def at(self, now: float) -> int:
        while now >= self._raise_at:
            self._now_allowed = min(self.full, self._now_allowed * 2)
            self._raise_at = float("inf") if self._now_allowed == self.full else self._raise_at + self._calm_seconds
        return self._now_allowed

    def lower(self, failed_tokens: int, now: float) -> None:
        """A batch of ``failed_tokens`` did not fit: half of it is the new budget."""
        self._now_allowed = max(1, min(self._now_allowed, failed_tokens // 2))
        self._raise_at = now + self._calm_seconds


class Speed:
    """Tokens a second of full batches, smoothed; unknown until there was one.

    A small batch says nothing: its time is overhead, and an estimate from it would refuse requests that
    have plenty of time.
    """

    def __init__(self) -> None:
        self.tokens_per_second: float | None = None

    def observe(self, tokens: int, seconds: float, budget: int) -> None:
        if tokens < budget * _FULL_SHARE or seconds <= 0:
            return
        measured = tokens / seconds
        known = self.tokens_per_second
        self.tokens_per_second = measured if known is None else known + _SMOOTHING * (measured - known)

    def seconds_for(self, tokens: int) -> float:
        """Time for ``tokens`` in full batches; 0 while the speed is unknown."""
        return tokens / self.tokens_per_second if self.tokens_per_second else 0.0
