"""How many tokens a batch may have just now, and how long a number of them takes."""

from __future__ import annotations

from dataclasses import dataclass

_KEEP = 0.8
"""Weight that all earlier measurements keep when another comes ..."""
_HALF_LIFE_SECONDS = 30.0
"""... and the time in which it halves by itself: an estimate ages."""
_CAUTION = 1.25
"""A request that just fits by the average would miss its deadline half of the time, and its work be wasted."""


class TokenBudget:
    """The engine's token budget, lowered for a while after it ran out of memory.

    Memory may be short because of somebody else on the card, so the full budget comes back: doubled each
    time ``calm_seconds`` pass without another shortage.
    """

    def __init__(self, full: int, calm_seconds: float) -> None:
        self.full = full
        self._calm_seconds = calm_seconds
        self._allowed = full
        self._raise_at = float("inf")

    def at(self, now: float) -> int:
        while now >= self._raise_at:
            self._allowed = min(self.full, self._allowed * 2)
            self._raise_at = float("inf") if self._allowed == self.full else self._raise_at + self._calm_seconds
        return self._allowed

    def lower(self, failed_tokens: int, now: float) -> None:
        """A batch of ``failed_tokens`` did not fit: half of it is the new budget."""
        self._allowed = max(1, min(self._allowed, failed_tokens // 2))
        self._raise_at = now + self._calm_seconds


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds of a batch: some for itself, some for each token. Zero both while nothing is known."""

    per_batch: float = 0.0
    per_token: float = 0.0

    def seconds_for(self, tokens: int, budget: int) -> float:
        """Time for ``tokens`` in batches of at most ``budget``, on the safe side."""
        batches = max(1, -(-tokens // budget))
        return _CAUTION * (batches * self.per_batch + tokens * self.per_token)


class PaceMeter:
    """Learns a :class:`Pace` from batches of every size: a weighted least-squares line, recent ones count more."""

    def __init__(self) -> None:
        self._seen_at = 0.0
        self._weight = self._tokens = self._seconds = self._squares = self._products = 0.0

    def observe(self, tokens: int, seconds: float, now: float) -> Pace:
        keep = _KEEP * 0.5 ** (max(0.0, now - self._seen_at) / _HALF_LIFE_SECONDS)
        self._seen_at = now
        self._weight = keep * self._weight + 1
        self._tokens = keep * self._tokens + tokens
        self._seconds = keep * self._seconds + seconds
        self._squares = keep * self._squares + tokens * tokens
        self._products = keep * self._products + tokens * seconds
        return self._line()

    def _line(self) -> Pace:
        spread = self._weight * self._squares - self._tokens**2
        proportional = Pace(0.0, self._seconds / self._tokens if self._tokens else 0.0)
        if spread <= 1e-6 * self._weight * self._squares:  # batches of one size say nothing of the two parts
            return proportional
        per_token = (self._weight * self._products - self._tokens * self._seconds) / spread
        per_batch = (self._seconds - per_token * self._tokens) / self._weight
        if per_batch < 0:
            return proportional
        return Pace(per_batch, per_token) if per_token > 0 else Pace(self._seconds / self._weight, 0.0)
