"""Scores on disk, so that an interrupted run goes on where it stopped.

One file a system, one JSON line a query. Lines are found by a hash of the texts, not by the names of sets
or queries: changed data is scored again, the same data under another name is not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

from rerankd.evaluate.scorer import QueryScores
from rerankd.types import RerankRequest


class KeptScores:
    """The scores of one system.

    Args:
        folder: where the files of all systems are; None keeps nothing.
        identity: what the scores depend on beside the texts.
    """

    def __init__(self, folder: Path | None, identity: Mapping[str, Any]) -> None:
        self._known: dict[str, dict[str, Any]] = {}
        self._file: IO[str] | None = None
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{_digest([identity])[:24]}.jsonl"
        if path.is_file():
            self._read(path)
        self._file = path.open("a", encoding="utf-8")
        # The last line of an interrupted run may be torn; what follows must not be glued to it.
        self._file.write("\n")

    def get(self, request: RerankRequest) -> tuple[QueryScores, float] | None:
        """The scores of a query and the seconds that they took."""
        row = self._known.get(_key(request))
        if row is None:
            return None
        return QueryScores(np.array(row["scores"], dtype=np.float64), row["tokens"], row["truncated"]), row["seconds"]

    def put(self, request: RerankRequest, found: QueryScores, seconds: float) -> None:
        if self._file is None:
            return
        row = {
            "key": _key(request),
            "scores": found.scores.tolist(),
            "tokens": found.tokens,
            "truncated": found.truncated,
            "seconds": seconds,
        }
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def _read(self, path: Path) -> None:
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
                self._known[row["key"]] = row
            except (ValueError, TypeError, KeyError):
                continue

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()


def _key(request: RerankRequest) -> str:
    return _digest([request.instruction, request.query, *request.documents])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
