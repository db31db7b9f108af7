"""Several engines behind one queue: the interface of one :class:`EngineThread`, and what is theirs alone.

A request goes to the engine that its query names (rendezvous hashing), so that the documents of one query meet their
keys and values there, unless that engine has a forward pass more of work than the idlest one (bounded load). One that
is larger than a forward pass is cut into parts for several engines. An engine that dies loses the requests that it
had, and is started again; the last one's death is the death of all.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from rerankd.core.engine_core import CoreOptions, CoreStatus
from rerankd.core.engine_thread import EngineState, EngineThread, Scores, check_accepting
from rerankd.core.request import Output, ScoreRequest, computed_tokens
from rerankd.core.token_budget import Pace
from rerankd.engine.base import Engine, EngineInfo
from rerankd.engine.process.engine import ProcessEngine
from rerankd.observe.metrics import EngineMetrics

_log = structlog.get_logger(__name__)
_WATCH_SECONDS = 0.2
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
"""Seconds between two tries to start an engine again, doubled each time."""


@dataclass(frozen=True, slots=True, eq=False)
class Part(ScoreRequest):
    """Some pairs of a request that stand side by side, for one engine."""

    whole: ScoreRequest | None = None
    first: int = 0
    """Index in the whole of the part's first pair."""

    def outcomes_of_whole(self, output: Output) -> Output:
        """The part's output as one of the whole request."""
        assert self.whole is not None
        outcomes = {self.first + index: outcome for index, outcome in output.outcomes.items()}
        return Output(self.whole, outcomes, output.started)


@dataclass(slots=True, eq=False)
class _Replica:
    index: int
    thread: EngineThread
    tokens: int = 0
    """Of the parts that wait or run here."""

    @property
    def is_alive(self) -> bool:
        return self.thread.state in ("ready", "draining")


@dataclass(slots=True)
class _Waiting:
    """A whole request, and what holds its parts."""

    scores: Scores
    parts: list[tuple[_Replica, Scores, int]] = field(default_factory=list)
    """Where a part is, its scores, and its tokens."""


class EngineReplicas:
    """Engines of one model, each on a thread of its own.

    Args:
        engines: make each engine, not loaded yet; asked again when one has died.
        metrics: of the model; all engines count there.
        on_output: told of every output on the event loop, before who waits for it; late ones too.
        on_death: called once, with the reason, when the last engine is gone.
        on_change: told how many engines are missing whenever that changes.
    """

    def __init__(
        self,
        engines: Sequence[Callable[[], Engine]],
        metrics: EngineMetrics,
        options: CoreOptions,
        on_output: Callable[[Output], None],
        on_death: Callable[[str], None],
        on_change: Callable[[int], None],
    ) -> None:
        self.state: EngineState = "starting"
        self._engines = engines
        self._metrics = metrics
        self._options = options
        self._on_output = on_output
        self._on_death = on_death
        self._on_change = on_change
        self._waiting: dict[ScoreRequest, _Waiting] = {}
        self._empty = asyncio.Event()
        self._empty.set()
        self._revivals: dict[int, asyncio.Task[None]] = {}
        self._is_replaced = False
        self._watching: asyncio.Task[None] | None = None
        self.replicas = [_Replica(index, self._thread(index)) for index in range(len(engines))]

    def _thread(self, index: int) -> EngineThread:
        return EngineThread(
            self._engines[index](),
            self._metrics,
            self._options,
            self._take_output,
            lambda reason: self._replica_died(index, reason),
        )

    @property
    def info(self) -> EngineInfo:
        """What the engines say of themselves; they are all alike."""
        return self.replicas[0].thread.info

    @property
    def alive(self) -> list[_Replica]:
        return [replica for replica in self.replicas if replica.is_alive]

    @property
    def status(self) -> CoreStatus:
        """As of one engine that is as fast as all together."""
        found = [replica.thread.status for replica in self.alive] or [CoreStatus(self.info.max_batch_tokens, Pace())]
        known = [status.pace for status in found if status.pace != Pace()] or [Pace()]
        share = len(known) * len(found)
        pace = Pace(sum(pace.per_batch for pace in known) / share, sum(pace.per_token for pace in known) / share)
        running = sum(status.running_tokens for status in found)
        return CoreStatus(min(status.budget for status in found), pace, running)

    @property
    def has_work(self) -> bool:
        return any(replica.thread.has_work for replica in self.alive)

    @property
    def waiting(self) -> int:
        """Requests that wait or run."""
        return len(self._waiting)

    async def start(self) -> None:
        """Load and warm all engines at the same time.

        Raises:
            Exception: whatever the first that failed raised; the others have been stopped.
        """
        try:
            await asyncio.gather(*(replica.thread.start() for replica in self.replicas))
        except BaseException:
            await self.stop()
            raise
        self.state = "ready"
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        """Find an idle engine's end at once, and not by the request that would be lost to it."""
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            for replica in self.alive:
                engine = replica.thread.engine
                if isinstance(engine, ProcessEngine) and engine.has_ended:
                    replica.thread.fail("the engine's process ended")

    def check_accepting(self) -> None:
        """Raise the error of engines that take no requests just now."""
        check_accepting(self.state)

    def submit(self, request: ScoreRequest) -> Scores:
        """Queue a request, in parts where it is larger than a forward pass; see :meth:`EngineThread.submit`."""
        self.check_accepting()
        waiting = self._waiting[request] = _Waiting(Scores(request, self._leave))
        self._empty.clear()
        order = self._in_order_of_choice(request)
        for part in parts_of(request, self.status.budget, len(order), shares_prefix=self.info.shares_prefix):
            tokens = computed_tokens(part.pairs, shares_prefix=self.info.shares_prefix)
            replica = self._choose(order)
            replica.tokens += tokens
            scores = replica.thread.submit(part)
            waiting.parts.append((replica, scores, tokens))
            scores.done.add_done_callback(lambda done: _pass_on(done, waiting.scores))
        return waiting.scores

    def _in_order_of_choice(self, request: ScoreRequest) -> list[_Replica]:
        """The engines alive, the one that the group names first; the death of another changes nothing for it."""
        group = request.group or request.pairs[0].prefix.tobytes()

        def weight(replica: _Replica) -> bytes:
            return hashlib.blake2b(group, digest_size=8, salt=replica.index.to_bytes(4, "little")).digest()

        return sorted(self.alive, key=weight)

    def _choose(self, order: Sequence[_Replica]) -> _Replica:
        """The first that has not a whole forward pass more waiting than the idlest."""
        most = min(replica.tokens for replica in order) + self.status.budget
        return next(replica for replica in order if replica.tokens <= most)

    def _leave(self, scores: Scores) -> None:
        waiting = self._waiting.pop(scores.request, None)
        if waiting is None:
            return
        for replica, part, tokens in waiting.parts:
            replica.tokens -= tokens
            part.__exit__(None, None, None)
        if not self._waiting:
            self._empty.set()

    def _take_output(self, output: Output) -> None:
        assert isinstance(output.request, Part)
        whole = output.request.outcomes_of_whole(output)
        self._on_output(whole)
        if waiting := self._waiting.get(whole.request):
            waiting.scores.take(whole)

    def replace(self) -> None:
        """Other engines have taken over: whatever becomes of these is nobody's end."""
        self._is_replaced = True
        for replica in self.replicas:
            replica.thread.replace()

    async def drain(self) -> None:
        """Take no new requests and return when the last one has its answer; the caller limits the time."""
        if self.state == "ready":
            self.state = "draining"
        await self._empty.wait()

    async def stop(self) -> None:
        """Answer whoever still waits with an error and give the engines back."""
        self.state = "stopped"
        for task in (self._watching, *self._revivals.values()):
            if task is not None:
                task.cancel()
        await asyncio.gather(*(replica.thread.stop() for replica in self.replicas))
        # One that died, hangs or did not start has nobody else who gives it back.
        await asyncio.gather(*(asyncio.to_thread(replica.thread.engine.close) for replica in self.replicas))

    def _replica_died(self, index: int, reason: str) -> None:
        if self.state not in ("ready", "draining") or self._is_replaced:
            return
        missing = len(self.replicas) - len(self.alive)
        _log.error("one of the engines is gone", replica=index, missing=missing, reason=reason)
        self._on_change(missing)
        if not self.alive:
            self.state = "dead"
            self._on_death(reason)
            return
        self._revivals[index] = asyncio.create_task(self._revive(self.replicas[index]))

    async def _revive(self, replica: _Replica) -> None:
        """Start an engine in the place of one that died, until it starts."""
        pause = _FIRST_PAUSE
        await asyncio.to_thread(replica.thread.engine.close)
        while True:
            thread = self._thread(replica.index)
            try:
                await thread.start()
                break
            except Exception as error:
                _log.error("an engine did not start again", replica=replica.index, reason=str(error), pause=pause)
            await asyncio.to_thread(thread.engine.close)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        replica.thread, replica.tokens = thread, 0
        missing = len(self.replicas) - len(self.alive)
        _log.info("an engine is back", replica=replica.index, missing=missing)
        self._on_change(missing)


def parts_of(request: ScoreRequest, budget: int, most: int, *, shares_prefix: bool = True) -> list[Part]:
    """A request in at most ``most`` parts of about equal cost, no more than it fills forward passes."""
    pairs, keys = request.pairs, request.keys
    count = min(most, -(-computed_tokens(pairs, shares_prefix=shares_prefix) // budget), len(pairs))
    costs = [len(pair.tail) if shares_prefix else pair.tokens for pair in pairs]
    share, done, first = sum(costs) / count, 0, 0
    parts: list[Part] = []
    for index, cost in enumerate(costs):
        done += cost
        if done >= share * (len(parts) + 1) - 1e-6 or index == len(costs) - 1:
            chosen = slice(first, index + 1)
            parts.append(
                Part(
                    pairs[chosen],
                    keys[chosen] if keys is not None else None,
                    request.deadline,
                    request.tenant,
                    request.priority,
                    request.group,
                    request,
                    first,
                )
            )
            first = index + 1
    return parts


def _pass_on(done: asyncio.Future[None], whole: Scores) -> None:
    """A part that has no answer is the end of the whole."""
    if not done.cancelled() and (error := done.exception()) is not None:
        whole.settle(error)  # type: ignore[arg-type]
