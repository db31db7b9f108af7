"""The metrics of all replicas at one address: every sample with the replica that it is from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

Row: TypeAlias = tuple[str, str, str, str, tuple[tuple[str, str], ...], float]
"""Family, its help and type; the sample's own name, its labels and value."""


def rows_of(registries: Iterable[CollectorRegistry]) -> list[Row]:
    """The samples of some registries, equal series of them summed: a replica has one for each model."""
    found: dict[tuple[str, str, str, str, tuple[tuple[str, str], ...]], float] = {}
    for registry in registries:
        for family in registry.collect():
            for sample in family.samples:
                labels = tuple(sorted(sample.labels.items()))
                key = (family.name, family.documentation, family.type, sample.name, labels)
                found[key] = found.get(key, 0.0) + sample.value
    return [(*key, value) for key, value in found.items()]


class _Merged(Collector):
    def __init__(self, rows: dict[str, list[Row]]) -> None:
        self._rows = rows

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for replica, rows in self._rows.items():
            for name, text, kind, sample, labels, value in rows:
                family = families.setdefault(name, Metric(name, text, kind))
                family.add_sample(sample, {**dict(labels), "replica": replica}, value)
        yield from families.values()


def exposition(rows: dict[str, list[Row]]) -> bytes:
    """What ``/metrics`` answers, from the rows of each replica by its name."""
    registry = CollectorRegistry()
    registry.register(_Merged(rows))
    return generate_latest(registry)
