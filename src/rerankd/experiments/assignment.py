"""Which arm a key falls to: by hash alone, so that every replica and every restart says the same.

Two numbers in [0, 1) are made of a key: one decides whether it takes part, the other which arm it falls to. They are
independent, so that an experiment that grows keeps everybody who takes part in the arm where he was.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

_DIGEST_BYTES = 8
_SCALE = 2.0 ** (8 * _DIGEST_BYTES)


def unit_of(experiment: str, key: str) -> str:
    """A key's name in the store, 16 hexadecimal digits: it tells units apart and gives no key away to a glance."""
    return _digest(experiment, "unit", key).hex()


def place(experiment: str, purpose: str, key: str) -> float:
    """A number in [0, 1) for a key, uniform over keys and independent of that for any other purpose."""
    return int.from_bytes(_digest(experiment, purpose, key), "big") / _SCALE


def coin_of(experiment: str, key: str, query: str) -> random.Random:
    """A generator that says the same for the same key and query, on every replica."""
    return random.Random(int.from_bytes(_digest(experiment, f"coin:{key}", query), "big"))


def _digest(experiment: str, purpose: str, key: str) -> bytes:
    parts = [part.encode("utf-8", "surrogatepass") for part in (experiment, purpose, key)]
    # Lengths in front, so that no two triples make the same bytes.
    data = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()


@dataclass(frozen=True, slots=True)
class Controls:
    """What an operator changes while the server runs."""

    traffic: float
    """Share of the keys that take part, 0..1."""
    stopped: bool = False
    pins: Mapping[str, str] = field(default_factory=dict)
    """Keys that are given an arm by name; their answers are left out of reports."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """The arm of one key."""

    arm: str
    pinned: bool = False


def assign(experiment: str, weights: Mapping[str, float], key: str, controls: Controls) -> Assignment | None:
    """The arm of ``key``; None for one that does not take part.

    Args:
        weights: of the arms that answer, by name, not all 0. Their order counts, and only their ratios do.
    """
    if controls.stopped:
        return None
    if (pinned := controls.pins.get(key)) in weights:
        return Assignment(str(pinned), pinned=True)
    if place(experiment, "traffic", key) >= controls.traffic:
        return None
    point = place(experiment, "arm", key) * sum(weights.values())
    taking = [name for name, weight in weights.items() if weight > 0]
    bounds = itertools.accumulate(weights[name] for name in taking)
    return Assignment(next((name for name, bound in zip(taking, bounds, strict=True) if point < bound), taking[-1]))
