"""The line before a few threads: who is let in, and whose slice of work is next.

Requests are cut into slices and wait for a turn before each. Two orders take turns, as in the queue before the
engine: the fair one, in which a caller that floods stands in its own way and what is begun is ended, and the
shortest first. Were all requests served side by side, under overload every one of them would miss its deadline.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from rerankd.errors import Overloaded
from rerankd.schedule.room import Room

T = TypeVar("T")

_CAUTION = 1.25
_SMOOTHING = 0.2
_TELLING_SIZE = 4096
"""Characters from which on the time of a slice says something of the speed."""


@dataclass(frozen=True, slots=True)
class TurnLimits:
    """How many requests, and how many characters of them, may wait or be worked on."""

    requests: int = 1024
    characters: int = 16_000_000
    max_tenant_share: float = 0.5


class Line:
    """One request that is in."""

    __slots__ = ("finish", "left", "tenant", "waiting")

    def __init__(self, tenant: str, characters: int, finish: float) -> None:
        self.tenant = tenant
        self.left = characters
        """Characters whose turn has not ended yet."""
        self.finish = finish
        """Virtual time at which its fair share is served."""
        self.waiting: deque[asyncio.Future[None]] = deque()

    def is_waiting(self) -> bool:
        while self.waiting and self.waiting[0].done():  # cancelled: its client left
            self.waiting.popleft()
        return bool(self.waiting)


class Turns:
    """Gives ``threads`` turns at a time to the requests that are in. Lives on the event loop alone."""

    def __init__(self, threads: int, limits: TurnLimits) -> None:
        self._threads = threads
        self._free = threads
        self._requests = Room("requests", limits.requests, limits.max_tenant_share, "queue_requests")
        self._characters = Room("characters", limits.characters, limits.max_tenant_share, "queue_tokens")
        self._lines: set[Line] = set()
        self._clock = 0.0
        self._is_fair_turn = True
        self._speed = 0.0
        """Characters a second of all threads together, smoothed; 0 while unknown."""

    def enter(self, tenant: str, characters: int, deadline: float) -> Line:
        """Let a request in, whole; it has to :meth:`leave`.

        Raises:
            Overloaded: there is no room, or no hope to be done by ``deadline``.
        """
        if self._lines:  # idle threads refuse nothing
            self._check_room(tenant, characters)
            self._refuse_hopeless(characters, deadline)
        last = max((line.finish for line in self._lines if line.tenant == tenant), default=self._clock)
        line = Line(tenant, characters, max(self._clock, last) + characters)
        self._lines.add(line)
        return line

    def leave(self, line: Line) -> None:
        """It is done, or was given up: turns that it still waits for are not for it any more."""
        self._lines.discard(line)
        for turn in line.waiting:
            turn.cancel()

    async def run(self, line: Line, characters: int, job: Callable[[], Awaitable[T]]) -> T:
        """Wait for a turn, then run a slice of that many characters; slices of one request may wait all at once."""
        await self._turn(line)
        started = time.monotonic()
        try:
            result = await job()
        finally:
            line.left -= characters
            self._pass_on()
        self._observe(characters, time.monotonic() - started)
        return result

    async def _turn(self, line: Line) -> None:
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it came at the very moment
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        """A turn has ended: the next one's."""
        waiting = [line for line in self._lines if line.is_waiting()]
        if not waiting:
            self._free += 1
            return
        self._is_fair_turn = not self._is_fair_turn
        if self._is_fair_turn:
            line = min(waiting, key=lambda line: line.finish)
            self._clock = max(self._clock, line.finish)
        else:
            line = min(waiting, key=lambda line: (line.left, line.finish))
        line.waiting.popleft().set_result(None)

    def _check_room(self, tenant: str, characters: int) -> None:
        requests: dict[str, int] = {}
        left: dict[str, int] = {}
        for line in self._lines:
            requests[line.tenant] = requests.get(line.tenant, 0) + 1
            left[line.tenant] = left.get(line.tenant, 0) + line.left
        own = requests.pop(tenant, 0), left.pop(tenant, 0)
        retry_after = self._retry_after()
        self._requests.check(1, own[0], list(requests.values()), retry_after)
        self._characters.check(characters, own[1], list(left.values()), retry_after)

    def _refuse_hopeless(self, characters: int, deadline: float) -> None:
        """A request of that size is done after all others, or by the turns of the shortest, whatever is sooner."""
        everything = sum(line.left for line in self._lines)
        shorter = sum(line.left for line in self._lines if line.left <= characters)
        wait = self._seconds_for(min(everything + characters, 2 * (shorter + characters)))
        if wait > deadline - time.monotonic():
            raise Overloaded(
                f"the texts would wait about {wait:.1f} s for the tokenizer, longer than the deadline allows",
                retry_after=self._retry_after(),
            )

    def _observe(self, characters: int, seconds: float) -> None:
        if characters < _TELLING_SIZE or seconds <= 0:
            return
        measured = self._threads * characters / seconds
        self._speed += (_SMOOTHING if self._speed else 1.0) * (measured - self._speed)

    def _seconds_for(self, characters: int) -> float:
        return _CAUTION * characters / self._speed if self._speed else 0.0

    def _retry_after(self) -> float:
        return min(60.0, max(1.0, self._seconds_for(sum(line.left for line in self._lines))))
