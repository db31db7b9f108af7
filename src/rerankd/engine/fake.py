"""An engine without a model: deterministic scores from the ids, and faults by script."""

from __future__ import annotations

import dataclasses
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerankd.engine.base import Batch, EngineFault, EngineInfo, EngineOptions, EngineOutOfMemory
from rerankd.errors import ConfigurationError
from rerankd.types import IdArray

Ids = tuple[int, ...]

_DEFAULT_BATCH_TOKENS = 16_384
_LOGIT_SPAN = 12.0


@dataclass(frozen=True, slots=True)
class FakeScript:
    """What goes wrong, and how long things take. Markers are ids that a pair contains side by side."""

    load_seconds: float = 0.0
    seconds_per_batch: float = 0.0
    seconds_per_token: float = 0.0
    fail_on: Ids = ()
    """A batch with such a pair raises."""
    nan_on: Ids = ()
    inf_on: Ids = ()
    hang_on: Ids = ()
    """A batch with such a pair never returns."""
    die_on: Ids = ()
    """A batch with such a pair is the engine's end: EngineFault, then and ever after."""
    die_after: int = 0
    """So many forward passes, then EngineFault; 0 means never."""
    oom_above_tokens: int = 0
    """Larger batches run out of memory; 0 means never."""
    missing_scores: int = 0
    """So many scores too few in each answer."""

    @classmethod
    def parse(cls, text: str) -> FakeScript:
        """A script as a setting: ``seconds_per_batch=0.05,fail_on=17-4`` (ids joined by dashes).

        Raises:
            ConfigurationError: an unknown knob or a value of the wrong type.
        """
        knobs = {field.name: field.type for field in dataclasses.fields(cls)}
        values: dict[str, Any] = {}
        for part in filter(None, text.split(",")):
            name, _, value = part.partition("=")
            if name not in knobs:
                raise ConfigurationError(f"the fake engine has no knob {name!r}; it has {', '.join(knobs)}")
            try:
                values[name] = _READERS[str(knobs[name])](value)
            except ValueError:
                raise ConfigurationError(f"the fake engine's knob {name!r} has a wrong value") from None
        return cls(**values)


_READERS: dict[str, Callable[[str], Any]] = {
    "float": float,
    "int": int,
    "Ids": lambda value: tuple(int(part) for part in value.split("-")),
}


class FakeEngine:
    """Scores are a hash of a pair's ids in -6..6, the same alone, in a crowd, and however prompts are shared.

    Tests may set ``script`` at any time, ``hold`` the engine in its next pass and ``release`` it, and read
    ``passes``, ``pairs`` and, after ``record()``, the ``batches`` that it saw.
    """

    shares_prefix = True

    def __init__(self, options: EngineOptions | None = None, script: FakeScript | None = None) -> None:
        self.script = script or FakeScript.parse(options.script if options else "")
        self.passes = 0
        self.pairs = 0
        self.batches: list[Batch] | None = None
        self._options = options
        self._kv_cache = _KVCache()
        self._is_dead = False
        self._free = threading.Event()
        self._free.set()

    @property
    def info(self) -> EngineInfo:
        options = self._options
        return EngineInfo(
            engine="fake",
            device="cpu",
            dtype="float32",
            architecture="hash of the ids",
            max_length=options.max_pair_tokens if options else 8192,
            parameters=0,
            max_batch_tokens=(options.max_batch_tokens if options else 0) or _DEFAULT_BATCH_TOKENS,
            shares_prefix=self.shares_prefix,
            kv_cache_slots=options.prefix_cache_tokens if options else 0,
            details="no model: scores mean nothing",
        )

    def load(self) -> None:
        time.sleep(self.script.load_seconds)

    def warm_up(self) -> None:
        """Nothing to measure."""

    def health(self) -> bool:
        return not self._is_dead

    def close(self) -> None:
        self.release()

    def hold(self) -> None:
        """Let the next pass wait, with its batch, until ``release``."""
        self._free.clear()

    def release(self) -> None:
        self._free.set()

    def reset(self) -> None:
        """Count passes and pairs from now on."""
        self.passes = self.pairs = 0

    def record(self) -> list[Batch]:
        """Keep every batch from now on, for a test to look at."""
        self.batches = []
        return self.batches

    def score(self, batch: Batch) -> NDArray[np.float32]:
        self.passes += 1
        self.pairs += batch.pairs
        if self.batches is not None:
            self.batches.append(batch)
        self._free.wait()
        script = self.script
        time.sleep(script.seconds_per_batch + script.seconds_per_token * batch.tokens)
        self._follow(script, batch)
        ends, written = self._kv_cache.run(batch)
        scores = np.array([_logit(ends[leaf]) for leaf in batch.leaves], dtype=np.float32)
        for index in _pairs_with(script.nan_on, batch):
            scores[index] = np.nan
        for index in _pairs_with(script.inf_on, batch):
            scores[index] = np.inf
        if np.isfinite(scores).all():
            self._kv_cache.write(written)
        return scores[: len(scores) - script.missing_scores]

    def _follow(self, script: FakeScript, batch: Batch) -> None:
        """The faults that end a pass."""
        if _pairs_with(script.hang_on, batch):
            threading.Event().wait()
        if _pairs_with(script.die_on, batch) or (script.die_after and self.passes > script.die_after):
            self._is_dead = True
        if self._is_dead:
            raise EngineFault("the fake engine died as its script says")
        if script.oom_above_tokens and batch.tokens > script.oom_above_tokens:
            raise EngineOutOfMemory(f"{batch.tokens} tokens")
        if _pairs_with(script.fail_on, batch):
            raise RuntimeError("the fake engine failed as its script says")


def fake_logit(ids: IdArray) -> float:
    """The score that the fake engine gives to a pair's full ids."""
    return _logit(_checksum(ids))


def _logit(checksum: int) -> float:
    return float(np.float32((checksum / 2**32 - 0.5) * _LOGIT_SPAN))


def _checksum(ids: IdArray, before: int = 0) -> int:
    return zlib.crc32(np.ascontiguousarray(ids, dtype=np.int32).tobytes(), before)


class _KVCache:
    """Stands for keys and values: what lies in a slot is the checksum of the prompt up to its token."""

    def __init__(self) -> None:
        self._slots: dict[int, int] = {}

    def run(self, batch: Batch) -> tuple[list[int], dict[int, int]]:
        """The checksum at the end of each segment, and what the pass would write.

        Raises:
            AssertionError: a cached segment reads slots that hold something else.
        """
        ends: list[int] = []
        written: dict[int, int] = {}
        ids, offsets = batch.token_ids.astype(np.int32).tobytes(), batch.offsets.tolist()
        has_slots = np.logical_or.reduceat(batch.slots >= 0, batch.offsets[:-1]).tolist() if batch.segments else []
        for segment, parent in enumerate(batch.parents.tolist()):
            first, end = offsets[segment], offsets[segment + 1]
            checksum = ends[parent] if parent >= 0 else 0
            ends.append(zlib.crc32(ids[4 * first : 4 * end], checksum))
            for token in range(first, end) if has_slots[segment] else ():
                checksum = zlib.crc32(ids[4 * token : 4 * token + 4], checksum)
                slot = int(batch.slots[token])
                if slot >= 0 and not batch.cached[segment]:
                    written[slot] = checksum
                elif slot >= 0 and self._slots.get(slot) != checksum:
                    raise AssertionError("a cached segment reads keys and values of another prompt")
        return ends, written

    def write(self, written: dict[int, int]) -> None:
        self._slots.update(written)


def _pairs_with(marker: Ids, batch: Batch) -> list[int]:
    """Indices of the pairs whose ids contain ``marker``."""
    if not marker:
        return []
    needle = np.array(marker, dtype=np.int32).tobytes()
    return [index for index, ids in enumerate(batch.prompts()) if _contains(ids.astype(np.int32).tobytes(), needle)]


def _contains(haystack: bytes, needle: bytes) -> bool:
    """``needle`` at a multiple of four bytes: whole ids, not their parts."""
    at = haystack.find(needle)
    while at % 4 and at != -1:
        at = haystack.find(needle, at + 1)
    return at != -1
