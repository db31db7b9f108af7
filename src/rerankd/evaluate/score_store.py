"""Scores on disk, so that an interrupted run goes on where it stopped.

One file a system, one JSON line a query. Lines are found by a hash of the texts, not by the names of sets
or queries: changed data is scored again, the same data under another name is not.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

from rerankd.evaluate.notes import Notes
from rerankd.evaluate.scorer import QueryScores
from rerankd.types import NO_WISH, RerankRequest


class ScoreStore:
    """The scores of one system.

    Args:
        folder: where the files of all systems are; None keeps nothing.
        identity: what the scores depend on beside the texts.
        notes: told when the folder cannot be used.
    """

    def __init__(self, folder: Path | None, identity: Mapping[str, Any], notes: Notes | None = None) -> None:
        self._known: dict[str, dict[str, Any]] = {}
        self._file: IO[str] | None = None
        if folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{_digest([identity])[:24]}.jsonl"
            if path.is_file():
                self._read(path)
            self._file = path.open("a", encoding="utf-8")
            # The last line of an interrupted run may be torn; what follows must not be glued to it.
            self._file.write("\n")
            self._file.flush()
        except OSError as error:
            self._stop(error, notes)

    def _stop(self, error: OSError, notes: Notes | None) -> None:
        """Go on without keeping: a user may have no folder that can be written."""
        self._file = None
        if notes is not None:
            notes.add(f"folder for scores that cannot be written ({error.strerror}); they are not kept")

    def get(self, request: RerankRequest) -> tuple[QueryScores, float] | None:
        """The scores of a query and the seconds that they took."""
        row = self._known.get(_key(request))
        if row is None or len(row["scores"]) != len(request.documents):
            return None
        return QueryScores(np.array(row["scores"], dtype=np.float64), row["tokens"], row["truncated"]), row["seconds"]

    def put(self, request: RerankRequest, found: QueryScores, seconds: float) -> None:
        """Keep the scores of a query; where one failed, none: the engine may be well again next time."""
        if self._file is None or not np.isfinite(found.scores).all():
            return
        row = {
            "key": _key(request),
            "scores": found.scores.tolist(),
            "tokens": found.tokens,
            "truncated": found.truncated,
            "seconds": float(seconds),
        }
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def _read(self, path: Path) -> None:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    row = json.loads(line)
                    if _is_whole(row):
                        self._known[row["key"]] = row
                except (ValueError, RecursionError):
                    continue

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()


def _is_whole(row: Any) -> bool:
    """Whether a line is one that :meth:`ScoreStore.put` wrote, with a finite score for every document."""
    return (
        isinstance(row, dict)
        and isinstance(row.get("key"), str)
        and isinstance(row.get("scores"), list)
        and all(isinstance(score, float) and math.isfinite(score) for score in row["scores"])
        and all(isinstance(row.get(name), int) for name in ("tokens", "truncated"))
        and isinstance(row.get("seconds"), float)
    )


def _key(request: RerankRequest) -> str:
    texts = [request.instruction, request.query, *request.documents]
    wish = request.long_documents
    return _digest(texts if wish == NO_WISH else [dataclasses.asdict(wish), *texts])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
