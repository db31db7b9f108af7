"""The engine core: what waits, what is scored next, and what came of it.

Synchronous, and used from one thread, the engine's. A server drives it from :class:`~rerankd.core.engine_thread`,
:class:`rerankd.reranker.Reranker` by a loop.
"""

from __future__ import annotations

import heapq
import itertools
import queue
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import structlog

from rerankd.core.batch_builder import BatchBuilder
from rerankd.core.fair_queue import FairQueue
from rerankd.core.prefix_tree import batch_of
from rerankd.core.recovery import MESSAGES, DenyList, Failure, FailureKind, attempt, split_failed_batch
from rerankd.core.request import Output, PendingPair, PendingRequest, ScoreRequest, computed_tokens
from rerankd.core.token_budget import Pace, PaceMeter, TokenBudget
from rerankd.engine.base import Engine, EngineFault
from rerankd.errors import ConfigurationError, ScoringError
from rerankd.observe.metrics import EngineMetrics
from rerankd.types import IdArray, Outcome

Message: TypeAlias = tuple[Literal["add", "abort"], ScoreRequest] | None
"""What another thread asks of a core: a request to add or abort, or to end (None)."""

_log = structlog.get_logger(__name__)
_PROBE: IdArray = np.arange(1, 9, dtype=np.int32)
_FAILED_CHECKS = 3
_PAIRS_AT_ONCE = 4096
"""So many pairs are taken in before a pass, some milliseconds' work; a call may bring hundreds of thousands."""


class EngineGone(Exception):
    """The engine cannot score any more; the message says why."""


@dataclass(frozen=True, slots=True)
class CoreOptions:
    """Times of a core, in seconds."""

    engine_timeout_seconds: float = 30.0
    """A forward pass that takes longer than this, and than twice the longest so far, hangs. One pair that is longer
    than the token budget may take as many times longer."""
    check_seconds: float = 10.0
    """The engine is asked for its health when it was idle for this long."""
    calm_seconds: float = 60.0
    """How long a token budget stays lowered after the engine ran out of memory."""
    deny_seconds: float = 60.0
    """How long a pair that failed twice is not tried again."""


@dataclass(frozen=True, slots=True)
class CoreStatus:
    """Where the core stands, for other threads; replaced as a whole."""

    budget: int
    """Tokens of a batch just now."""
    pace: Pace
    running_tokens: int = 0
    """Tokens of the batch that the engine works on; 0 while it is idle."""
    overdue_at: float = float("inf")
    """``time.monotonic()`` at which the engine counts as hung."""


def load_engine(engine: Engine) -> None:
    """Load and warm an engine, and see that it gives scores.

    Raises:
        ConfigurationError: the scores are not finite: the checkpoint is damaged.
    """
    engine.load()
    engine.warm_up()
    if not np.isfinite(engine.score(batch_of([_PROBE]))).all():
        raise ConfigurationError("the model gives scores that are not numbers: its weights are damaged")


class EngineCore:
    """Requests of token ids in, outcomes out; ``engine`` has been loaded by :func:`load_engine`.

    Other threads put their requests into the ``inbox``, which is read before and after each forward pass.
    """

    def __init__(self, engine: Engine, metrics: EngineMetrics, options: CoreOptions | None = None) -> None:
        self.options = options or CoreOptions()
        self.inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.is_ending = False
        """Has the inbox said that it is time to end?"""
        self._engine = engine
        self._metrics = metrics
        info = engine.info
        self._shares_prefix = info.shares_prefix
        self._builder = BatchBuilder(info)
        self._budget = TokenBudget(info.max_batch_tokens, self.options.calm_seconds)
        self._meter = PaceMeter()
        self._denied = DenyList(self.options.deny_seconds)
        self._queue: FairQueue[PendingRequest] = FairQueue()
        self._requests: dict[ScoreRequest, PendingRequest] = {}
        self._arrived: set[ScoreRequest] = set()
        """Read from the inbox, and not queued yet."""
        self._arrivals: list[tuple[int, int, ScoreRequest]] = []
        """A heap of them by pairs, then arrival, with those that have left since."""
        self._arrival = itertools.count()
        self._in_flight: dict[bytes, PendingPair] = {}
        self._retries: list[list[PendingPair]] = []
        self._outputs: dict[ScoreRequest, Output] = {}
        self._longest_pass = 0.0
        self._failed_checks = 0
        self.status = CoreStatus(info.max_batch_tokens, Pace())

    @property
    def has_work(self) -> bool:
        """Would a step do anything?"""
        return bool(self._requests or self._retries or self._outputs or self._arrived)

    def add(self, request: ScoreRequest) -> None:
        """Queue a request; its outcomes come with the outputs of the steps from now on."""
        pending = PendingRequest(request)
        denied = self._denied.denied(request.pairs, pending.queued)
        if len(denied) < len(request.pairs):
            self._requests[request] = pending
        for index in range(len(request.pairs)):
            if index in denied:
                self._put_out(pending, index, denied[index])
            else:
                self._subscribe(pending, index)
        if pending.waiting:
            waiting = [request.pairs[index] for index in pending.waiting]
            size = computed_tokens(waiting, shares_prefix=self._shares_prefix)
            self._queue.push(pending, request.tenant, size, request.priority)

    def abort(self, request: ScoreRequest) -> None:
        """Nobody waits for a request any more: its pairs are dropped that nobody else waits for and no batch has yet.

        A request that has ended already does no harm.
        """
        if request in self._arrived:
            self._arrived.discard(request)
            self._count_dropped(request, len(request.pairs))
            return
        pending = self._requests.pop(request, None)
        if pending is None:
            return
        self._queue.remove(pending)
        dropped = 0
        for index, pair in pending.pairs.items():
            del pair.subscribers[pending]
            if pair.is_taken:
                pair.last_subscriber = pending, index
            elif not pair.subscribers:
                self._forget(pair)
                dropped += 1
        if dropped:
            self._count_dropped(request, dropped)

    def _count_dropped(self, request: ScoreRequest, pairs: int) -> None:
        reason = "deadline" if time.monotonic() >= request.deadline else "cancelled"
        self._metrics.pairs_dropped(reason, pairs)

    def take_in(self, seconds: float = 0.0) -> bool:
        """Add and abort what the inbox names, and wait so long for the first; was there anything?

        Requests of few pairs are added first, and the last of very many at a later call: nobody behind a huge call
        waits until all of it is queued.
        """
        has_read = self._read_inbox(seconds)
        room = _PAIRS_AT_ONCE
        while self._arrivals and room > 0:
            pairs, _, request = heapq.heappop(self._arrivals)
            if request in self._arrived:
                self._arrived.discard(request)
                self.add(request)
                room -= pairs
        return has_read

    def _read_inbox(self, seconds: float) -> bool:
        try:
            message = self.inbox.get(timeout=seconds) if seconds else self.inbox.get_nowait()
        except queue.Empty:
            return False
        while True:
            match message:
                case None:
                    self.is_ending = True
                case "add", request:
                    self._arrived.add(request)
                    heapq.heappush(self._arrivals, (len(request.pairs), next(self._arrival), request))
                case "abort", request:
                    self.abort(request)
            try:
                message = self.inbox.get_nowait()
            except queue.Empty:
                return True

    def step(self) -> list[Output]:
        """At most one forward pass, and what came of it.

        Raises:
            EngineGone: the engine cannot score any more.
        """
        self.take_in()
        now = time.monotonic()
        pairs = self._next_retry() or self._form_batch(now)
        if pairs:
            result = self._run(pairs, now)
            self.take_in()  # who asked for these pairs in the meantime shares them
            if isinstance(result, Failure):
                self._recover(pairs, result)
            else:
                self._deliver(zip(pairs, result, strict=True))
        outputs, self._outputs = list(self._outputs.values()), {}
        return outputs

    def check_health(self) -> None:
        """Ask an idle engine whether it is able to score.

        Raises:
            EngineGone: it says that it is gone, or has failed several checks in a row.
        """
        self.status = CoreStatus(self.status.budget, self.status.pace, 0, self._overdue_at(0))
        try:
            is_healthy = self._engine.health()
        except EngineFault as fault:
            raise EngineGone(str(fault)) from None
        except Exception:
            _log.exception("the engine's health check failed")
            is_healthy = False
        self.status = CoreStatus(self.status.budget, self.status.pace)
        self._failed_checks = 0 if is_healthy else self._failed_checks + 1
        if self._failed_checks == _FAILED_CHECKS:
            raise EngineGone(f"the engine failed {_FAILED_CHECKS} health checks in a row")

    def _form_batch(self, now: float) -> list[PendingPair]:
        """Pairs in the fair order, until one does not fit into the token budget any more."""
        self._builder.begin(self._budget.at(now))
        pairs: list[PendingPair] = []
        while (pending := self._queue.first()) is not None:
            if pending.request.deadline <= now:
                self.abort(pending.request)
                continue
            if not self._take_pairs(pending, pairs, now):
                break
        return pairs

    def _take_pairs(self, pending: PendingRequest, pairs: list[PendingPair], now: float) -> bool:
        """Take a request's pairs into the batch as far as they fit; did all?"""
        tokens = 0
        while (pair := pending.next_pair()) is not None and self._builder.add(pair.prompt):
            tokens += self._take(pair, pending, now)
            pairs.append(pair)
        self._queue.serve(pending, tokens)
        if pair is None:
            self._queue.remove(pending)
        return pair is None

    def _next_retry(self) -> list[PendingPair]:
        """A part of a batch that failed, without the pairs that nobody wants any more."""
        while self._retries:
            part = self._retries.pop()
            for pair in part:
                if not pair.subscribers:
                    self._forget(pair)
            if wanted := [pair for pair in part if pair.subscribers]:
                self._builder.begin()
                for pair in wanted:
                    self._builder.add(pair.prompt)
                return wanted
        return []

    def _run(self, pairs: list[PendingPair], began: float) -> list[Outcome] | Failure:
        tokens = self._builder.tokens
        batch = self._builder.layout()
        started = time.monotonic()
        self.status = CoreStatus(self._budget.at(started), self.status.pace, tokens, self._overdue_at(tokens))
        result = attempt(self._engine, batch)
        ended = time.monotonic()
        scores = [] if isinstance(result, Failure) else result
        self._builder.finish(succeeded=set(map(type, scores)) == {float})
        self._metrics.batch_pairs.observe(len(pairs))
        self._metrics.batch_tokens.observe(batch.tokens)
        self._metrics.forward_seconds.observe(ended - started)
        pace = self.status.pace
        if scores:
            self._longest_pass = max(self._longest_pass, (ended - started) / self._passes(tokens))
            # Whatever keeps the core from the engine makes the waiting longer too.
            nominal = computed_tokens([pair.prompt for pair in pairs], shares_prefix=self._shares_prefix)
            pace = self._meter.observe(nominal, ended - began, ended)
        self.status = CoreStatus(self._budget.at(ended), pace)
        return result

    def _recover(self, pairs: list[PendingPair], failure: Failure) -> None:
        """Try the parts of a failed batch again, or give its pairs up."""
        tokens = self._builder.tokens
        self._metrics.batch_failed(failure.kind)
        facts = {"kind": failure.kind, "reason": failure.reason, "pairs": len(pairs), "tokens": tokens}
        _log.warning("a batch failed", model=self._metrics.model, **facts)
        if failure.kind is FailureKind.FAULT:
            raise EngineGone(failure.reason)
        now = time.monotonic()
        if failure.kind is FailureKind.OUT_OF_MEMORY:
            self._budget.lower(tokens, now)
            self._builder.forget_cache()
        if failure.kind is FailureKind.POISON:
            for pair in pairs:
                pair.failures += 1
        if parts := split_failed_batch(pairs, failure.kind):
            self._retries.extend(reversed(parts))
            return
        if failure.kind is FailureKind.POISON:
            self._denied.record(pairs[0], now)
        error = ScoringError(MESSAGES[failure.kind])
        self._deliver((pair, error) for pair in pairs)

    def _deliver(self, outcomes: Iterable[tuple[PendingPair, Outcome]]) -> None:
        """Give each pair's outcome to all who wait for it, or to the last who did."""
        for pair, outcome in outcomes:
            self._forget(pair)
            if isinstance(outcome, ScoringError):
                self._metrics.pair_failed(outcome.code)
            for pending, index in pair.subscribers.items():
                self._put_out(pending, index, outcome)
                del pending.pairs[index]
                if not pending.pairs:
                    del self._requests[pending.request]
                    self._queue.remove(pending)
            if not pair.subscribers and pair.last_subscriber is not None:
                self._put_out(*pair.last_subscriber, outcome)

    def _put_out(self, pending: PendingRequest, index: int, outcome: Outcome) -> None:
        output = self._outputs.get(pending.request)
        if output is None:
            output = self._outputs[pending.request] = Output(pending.request, {}, pending.started or pending.queued)
        output.outcomes[index] = outcome

    def _subscribe(self, pending: PendingRequest, index: int) -> None:
        """Wait for a pair: for the same one in flight, or for a new one."""
        request = pending.request
        key = request.keys[index] if request.keys is not None else None
        pair = self._in_flight.get(key) if key is not None else None
        if pair is None or pending in pair.subscribers:
            pair = PendingPair(request.pairs[index], key)
            if key is not None:
                self._in_flight[key] = pair
        else:
            self._metrics.inflight_dedup.inc()
        pair.subscribers[pending] = index
        pending.pairs[index] = pair
        if not pair.is_taken:
            pending.waiting.append(index)

    def _take(self, pair: PendingPair, turn: PendingRequest, now: float) -> int:
        """A pair goes into a batch in the turn of one of its requests, and is done for all; returns what it costs."""
        pair.is_taken = True
        tokens = len(pair.prompt.tail) if self._shares_prefix else pair.prompt.tokens
        for pending in pair.subscribers:
            if not pending.started:
                pending.started = now
                self._metrics.queue_wait_seconds.observe(now - pending.queued)
            if pending is not turn and pending in self._queue:
                self._queue.shrink(pending, tokens)
        return tokens

    def _forget(self, pair: PendingPair) -> None:
        """A pair has its outcome or is wanted no more: an equal one from now on is a new one."""
        if pair.key is not None and self._in_flight.get(pair.key) is pair:
            del self._in_flight[pair.key]

    def _overdue_at(self, tokens: int) -> float:
        limit = max(self.options.engine_timeout_seconds, 2 * self._longest_pass)
        return time.monotonic() + limit * self._passes(tokens)

    def _passes(self, tokens: int) -> float:
        """A pair alone may have more tokens than the budget: as how many full passes it then counts."""
        return max(1.0, tokens / self._budget.full)
