"""Room that callers share: bounded, and no caller takes all of it while others wait."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rerankd.errors import Overloaded


@dataclass(frozen=True, slots=True)
class Room:
    """How much of something may wait at once.

    Attributes:
        what: requests, tokens or characters, for the message.
        limit: for all callers together.
        max_tenant_share: of it, for one caller while others wait too.
        setting: the setting that moves the limit.
    """

    what: str
    limit: int
    max_tenant_share: float
    setting: str

    def check(self, asked: int, own: int, others: Sequence[int], retry_after: float) -> None:
        """Whether a caller that has ``own`` may have ``asked`` more beside what each of the others has.

        Raises:
            Overloaded: there is no room now.
        """
        share = math.ceil(self.limit * self.max_tenant_share)
        if own and others and own + asked > share:
            raise Overloaded("your share of the queue is full", retry_after=retry_after, setting="max_tenant_share")
        # What others hold beyond their share does not count: a caller that found the queue empty and filled
        # it must not lock out the next one.
        if asked + own + sum(min(other, share) for other in others) > self.limit:
            raise Overloaded(f"too many {self.what} are waiting", retry_after=retry_after, setting=self.setting)
