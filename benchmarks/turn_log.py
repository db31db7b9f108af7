"""Turns of engines in a file, one a line, so that a long comparison can be made in pieces."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.engine_process import Scored


@dataclass
class Turns:
    """What was measured of one engine on one workload; ``void`` says why its row does not count."""

    scored: list[Scored] = field(default_factory=list)
    void: str = ""
    details: str = ""
    load_seconds: float = 0.0
    idle_mb: float = 0.0
    over_idle_mb: float = 0.0

    @property
    def best(self) -> Scored:
        return min(self.scored, key=lambda one: one.seconds)

    def add(self, later: Turns) -> None:
        """The next turn of the same engine on the same workload."""
        self.scored += later.scored
        self.void = self.void or later.void
        self.details, self.load_seconds, self.idle_mb = later.details, later.load_seconds, later.idle_mb
        self.over_idle_mb = max(self.over_idle_mb, later.over_idle_mb)


class TurnLog:
    """The turns that earlier runs have written to ``file``, and where this run writes its own.

    Without a file nothing is kept.
    """

    def __init__(self, file: Path | None, setting: Mapping[str, Any]) -> None:
        """``setting``: all that has to be the same for two turns to stand in one table.

        Raises:
            ValueError: the file's turns were measured with another setting.
        """
        self._file, self._setting = file, dict(setting)
        self._found: dict[tuple[str, int], dict[str, Turns]] = {}
        for line in _lines(file):
            if line["setting"] != self._setting:
                raise ValueError(f"{file} has turns with {line['setting']}, and this run has {self._setting}")
            self._found[line["engine"], line["round"]] = {name: _turns(it) for name, it in line["turns"].items()}

    @property
    def engines(self) -> list[str]:
        """The engines of earlier runs, the first measured first."""
        return [*dict.fromkeys(engine for engine, _ in self._found)]

    def get(self, engine: str, number: int) -> dict[str, Turns] | None:
        """The engine's turn of this round by workload, if it has had it."""
        return self._found.get((engine, number))

    def add(self, engine: str, number: int, turns: Mapping[str, Turns]) -> None:
        """A turn that is over."""
        self._found[engine, number] = dict(turns)
        if self._file:
            line = {"engine": engine, "round": number, "setting": self._setting,
                    "turns": {name: asdict(it) for name, it in turns.items()}}  # fmt: skip
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def _lines(file: Path | None) -> Iterator[dict[str, Any]]:
    if file and file.exists():
        yield from map(json.loads, file.read_text(encoding="utf-8").splitlines())


def _turns(values: dict[str, Any]) -> Turns:
    return Turns(**{**values, "scored": [Scored(**one) for one in values["scored"]]})
