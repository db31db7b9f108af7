"""Many replicas in a discrete-event simulation: how three routing rules take bursts, stragglers and failures.

    python benchmarks/scaling.py                                   # 10, 100 and 1,000 replicas
    python benchmarks/scaling.py --replicas 100 --load 0.7 --seconds 300 --json scaling.json

What is modelled: requests arrive as a Poisson process whose rate doubles in bursts; a request is a query drawn from a
Zipf distribution with its documents; a replica works off tokens at a constant speed, first come first served; each
replica has a score cache of its own that answers a query which it has scored before (as long as it is among its most
recent ones) at a hundredth of the cost. A straggler runs at a third of its speed for half a minute. A replica that
fails loses its queue, whose requests are tried once more elsewhere; it is back in half a minute with an empty cache.

What is not: the network, batches (a batch costs what its tokens cost), a shared cache (with one, every rule has the
hits of a single large replica), requests that are refused.

Rules: ``random``; ``least``: the fewest tokens waiting (as least connections, but by tokens); ``hash``: consistent
hashing by query; ``bounded``: the same, but past replicas with more than 1.25 times the mean load and at least one
request (Mirrokni, Thorup, Zadimoghaddam: Consistent Hashing with Bounded Loads, 2016).
"""

from __future__ import annotations

import argparse
import bisect
import heapq
import itertools
import json
import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

# Run as a file, Python looks beside the file alone.
sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.machine import print_table

RULES = ("random", "least", "hash", "bounded")
_HIT_COST = 0.01
_SPILL = 1.25
_VIRTUAL_NODES = 64
_BURST_EVERY, _BURST_SECONDS = 60.0, 10.0
_STRAGGLE_SECONDS, _STRAGGLE_SPEED = 30.0, 1 / 3
_DOWN_SECONDS = 30.0
_MISHAP_EVERY = 600.0
"""Seconds between two mishaps of one kind on one replica, on average."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One simulated cluster and its callers.

    Attributes:
        speed: tokens a second of one replica.
        tokens: of one request that nothing is known of.
        load: share of the cluster's speed that arrives outside of bursts, if no cache helped.
        queries: how many different ones there are; ``zipf`` is the exponent of how often each comes.
        cached: queries that a replica's score cache holds.
    """

    replicas: int
    load: float
    seconds: float
    speed: float = 20_000.0
    tokens: int = 5_000
    queries: int = 200_000
    zipf: float = 1.1
    cached: int = 2_000
    mishaps: bool = True
    seed: int = 0


@dataclass(slots=True, eq=False)
class Replica:
    """Its queue is the time at which it is free; its cache the queries that it has scored, oldest first."""

    free_at: float = 0.0
    speed: float = 1.0
    down_until: float = 0.0
    cache: OrderedDict[int, None] = field(default_factory=OrderedDict)
    waiting: dict[int, tuple[float, int]] = field(default_factory=dict)
    """Requests that are not answered yet: when each arrived and its query, by number."""


@dataclass(slots=True)
class Figures:
    """What callers saw."""

    waits: list[float] = field(default_factory=list)
    hits: int = 0
    retried: int = 0
    failed: int = 0

    def row(self, rule: str, scenario: Scenario) -> dict[str, object]:
        waits = np.array(self.waits)
        p50, p99 = np.percentile(waits, [50, 99])
        return {
            "replicas": scenario.replicas,
            "load": scenario.load,
            "mishaps": "yes" if scenario.mishaps else "no",
            "rule": rule,
            "p50, s": f"{p50:.2f}",
            "p99, s": f"{p99:.2f}",
            "cache hits": f"{self.hits / len(waits):.0%}",
            "tried again": self.retried,
            "failed": self.failed,
        }


class Simulation:
    """Runs one scenario under one rule; equal seeds have equal arrivals and mishaps under all rules."""

    def __init__(self, scenario: Scenario, rule: str) -> None:
        self._scenario = scenario
        self._replicas = [Replica() for _ in range(scenario.replicas)]
        self._free_at = np.zeros(scenario.replicas)
        self._choose: Callable[[int, float], int] = getattr(self, f"_by_{rule}")
        self._random = np.random.default_rng((scenario.seed, 2))
        self._ring = self._make_ring() if rule in ("hash", "bounded") else []
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._count = itertools.count()
        self.figures = Figures()

    def run(self) -> Figures:
        """Every arrival and mishap in the order of time."""
        self._plan_mishaps()
        for number, (at, query) in enumerate(zip(*self._arrivals(), strict=True)):
            self._advance(at)
            self._send(number, query, at, at, tries=2)
        self._advance(np.inf)
        return self.figures

    def _arrivals(self) -> tuple[Sequence[float], Sequence[int]]:
        scenario, random = self._scenario, np.random.default_rng((self._scenario.seed, 0))
        rate = scenario.load * scenario.replicas * scenario.speed / scenario.tokens
        # Thinning: draw at the burst's rate, and leave out half of what lies outside of bursts.
        times = np.cumsum(random.exponential(1 / (2 * rate), int(2.2 * rate * scenario.seconds) + 10))
        times = times[times < scenario.seconds]
        is_kept = (times % _BURST_EVERY < _BURST_SECONDS) | (random.random(len(times)) < 0.5)
        times = times[is_kept]
        shares = 1 / np.arange(1, scenario.queries + 1) ** scenario.zipf
        queries = np.searchsorted(np.cumsum(shares / shares.sum()), random.random(len(times)))
        return times.tolist(), queries.tolist()

    def _plan_mishaps(self) -> None:
        if not self._scenario.mishaps:
            return
        random = np.random.default_rng((self._scenario.seed, 1))
        for place in range(self._scenario.replicas):
            for begin, end, seconds in (
                (self._slow_down, self._speed_up, _STRAGGLE_SECONDS),
                (self._fail, self._come_back, _DOWN_SECONDS),
            ):
                at = random.exponential(_MISHAP_EVERY)
                while at < self._scenario.seconds:
                    self._at(at, lambda now, place=place, begin=begin: begin(place, now))  # type: ignore[misc]
                    self._at(at + seconds, lambda now, place=place, end=end: end(place, now))  # type: ignore[misc]
                    at += seconds + random.exponential(_MISHAP_EVERY)

    def _at(self, time: float, event: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (time, next(self._count), event))

    def _advance(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            time, _, event = heapq.heappop(self._events)
            event(time)

    def _send(self, number: int, query: int, arrived: float, now: float, tries: int) -> None:
        place = self._choose(query, now)
        replica = self._replicas[place]
        if replica.down_until > now:
            # Refused at once: a proxy tries another one.
            if tries > 1:
                self.figures.retried += 1
                self._send(number, query, arrived, now + 0.001, tries - 1)
            else:
                self.figures.failed += 1
            return
        is_known = query in replica.cache
        cost = self._scenario.tokens * (_HIT_COST if is_known else 1.0) / (self._scenario.speed * replica.speed)
        done = max(replica.free_at, now) + cost
        replica.free_at = self._free_at[place] = done
        replica.waiting[number] = (arrived, query)
        self._remember(replica, query)
        self._at(done, lambda time: self._answer(replica, number, time, hit=is_known))

    def _remember(self, replica: Replica, query: int) -> None:
        replica.cache[query] = None
        replica.cache.move_to_end(query)
        if len(replica.cache) > self._scenario.cached:
            replica.cache.popitem(last=False)

    def _answer(self, replica: Replica, number: int, now: float, *, hit: bool) -> None:
        if (found := replica.waiting.pop(number, None)) is not None:
            self.figures.waits.append(now - found[0])
            self.figures.hits += hit

    def _slow_down(self, place: int, now: float) -> None:
        self._change_speed(place, now, _STRAGGLE_SPEED)

    def _speed_up(self, place: int, now: float) -> None:
        self._change_speed(place, now, 1.0)

    def _change_speed(self, place: int, now: float, speed: float) -> None:
        # What waits already keeps its time; the mean over many mishaps is the same.
        self._replicas[place].speed = speed

    def _fail(self, place: int, now: float) -> None:
        replica = self._replicas[place]
        lost, replica.waiting = replica.waiting, {}
        replica.down_until, replica.free_at = now + _DOWN_SECONDS, now
        replica.cache.clear()
        self._free_at[place] = np.inf
        for number, (arrived, query) in lost.items():
            self.figures.retried += 1
            self._send(number, query, arrived, now, tries=1)

    def _come_back(self, place: int, now: float) -> None:
        self._replicas[place].free_at = self._free_at[place] = now

    def _by_random(self, query: int, now: float) -> int:
        return int(self._random.integers(len(self._replicas)))

    def _by_least(self, query: int, now: float) -> int:
        return int(np.maximum(self._free_at, now).argmin())

    def _by_hash(self, query: int, now: float) -> int:
        """A replica that is down is passed over: health checks have found it."""
        for place in self._along_ring(query):
            if self._replicas[place].down_until <= now:
                return place
        return 0

    def _by_bounded(self, query: int, now: float) -> int:
        backlog = np.maximum(self._free_at - now, 0.0)
        finite = backlog[np.isfinite(backlog)]
        limit = max(_SPILL * float(finite.mean()), self._scenario.tokens / self._scenario.speed)
        for place in self._along_ring(query):
            if backlog[place] <= limit:
                return place
        return int(backlog.argmin())

    def _make_ring(self) -> list[tuple[int, int]]:
        random = np.random.default_rng(7)
        points = random.integers(2**62, size=(len(self._replicas), _VIRTUAL_NODES))
        return sorted((int(point), place) for place, row in enumerate(points) for point in row)

    def _along_ring(self, query: int) -> Sequence[int]:
        point = int(np.random.default_rng(query).integers(2**62))
        start = bisect.bisect(self._ring, (point, 0))
        rest = (self._ring[(start + step) % len(self._ring)][1] for step in range(len(self._ring)))
        return list(dict.fromkeys(itertools.islice(rest, 4 * _VIRTUAL_NODES)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--load", type=float, nargs="+", default=[0.6])
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    rows = []
    for replicas, load, mishaps in itertools.product(chosen.replicas, chosen.load, (False, True)):
        for rule in chosen.rules:
            scenario = Scenario(replicas, load, chosen.seconds, mishaps=mishaps)
            rows.append(Simulation(scenario, rule).run().row(rule, scenario))
    print_table(f"{chosen.seconds:g} s, bursts of twice the load", rows)
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
