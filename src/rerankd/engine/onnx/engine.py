"""The onnx engine behind the contract of ``engine/base.py``."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerankd.engine.base import Batch, EngineFault, EngineInfo, EngineOptions, EngineOutOfMemory
from rerankd.engine.onnx.padding import MAX_TOKENS, MicroBatch, micro_batches
from rerankd.engine.onnx.session import choose_device, count_threads, open_session, run_options
from rerankd.engine.onnx.source import Source
from rerankd.errors import ConfigurationError

_INPUTS = {"input_ids", "attention_mask", "token_type_ids"}
_SECONDS = 0.4
"""A batch should last about so long: a small request waits for at most one batch of a big one."""
_MIN_BUDGET, _MAX_BUDGET = 512, 8 * MAX_TOKENS
_PROBE_TOKENS = 256


class OnnxEngine:
    """A cross-encoder, or the embedded model, on ONNX Runtime. Shares no prefixes: prompts are computed whole."""

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self._source = Source.find(options.folder, options.dtype)
        self._device = choose_device(options.device)
        self._threads = count_threads(options.threads)
        self._length = min(options.max_pair_tokens, self._source.max_length)
        self._budget = options.max_batch_tokens or _MIN_BUDGET
        self._session: Any = None
        self._run_options: Any = None
        self._inputs: set[str] = set()

    def load(self) -> None:
        """Write or read the graph, and give it to ONNX Runtime.

        Raises:
            ConfigurationError: the checkpoint is incomplete, or the graph asks for inputs that are not known.
        """
        session = open_session(self._source.graph(self._length), self._device, self._threads)
        self._inputs = {value.name for value in session.get_inputs()}
        unknown = sorted(self._inputs - _INPUTS)
        if unknown:
            raise ConfigurationError(f"the graph asks for {unknown[0]!r}; the onnx engine gives {', '.join(_INPUTS)}")
        if "token_type_ids" in self._inputs and self._options.separator is None:
            raise ConfigurationError("the graph asks for 'token_type_ids', and the template has no separator token")
        self._session = session
        self._run_options = run_options(self._device)

    def warm_up(self) -> None:
        """Run once, and find the token budget unless the settings fix it."""
        self.health()
        if not self._options.max_batch_tokens:
            self._budget = self._measured_budget()

    @property
    def info(self) -> EngineInfo:
        source = self._source
        made = f"graph {source.published.name}" if source.published else "graph written from the weights"
        return EngineInfo(
            engine="onnx",
            device=self._device,
            dtype=source.dtype,
            architecture=source.architecture,
            max_length=source.max_length,
            parameters=source.parameters,
            max_batch_tokens=self._budget,
            shares_prefix=False,
            details=f"{made}, {self._threads} threads",
        )

    def score(self, batch: Batch) -> NDArray[np.float32]:
        """Raw scores, float32 (pairs,), in the order of the batch.

        Raises:
            EngineOutOfMemory: the batch does not fit, a smaller one may.
            EngineFault: the engine is not loaded, or the device failed for good.
        """
        if self._session is None:
            raise EngineFault("the engine is not loaded")
        scores = np.empty(batch.pairs, dtype=np.float32)
        for part in micro_batches(batch.prompts(), self._source.pad_id):
            scores[part.pairs] = self._run(part)
        return scores

    def health(self) -> bool:
        """Score one pair of two tokens."""
        return bool(np.isfinite(self._probe(2)).all())

    def close(self) -> None:
        """Let the weights go."""
        self._session = None

    def _run(self, part: MicroBatch) -> NDArray[np.float32]:
        feed = {"input_ids": part.input_ids, "attention_mask": part.attention_mask}
        if "token_type_ids" in self._inputs and self._options.separator is not None:
            feed["token_type_ids"] = part.token_type_ids(self._options.separator)
        try:
            logits = self._session.run(None, {name: feed[name] for name in self._inputs}, self._run_options)[0]
        except Exception as error:  # the library's exceptions have no base of their own
            failure = _classified(error)
        else:
            return np.asarray(logits, dtype=np.float32).reshape(len(part.pairs))
        raise failure

    def _probe(self, tokens: int) -> NDArray[np.float32]:
        ids = np.full(tokens, self._source.pad_id, dtype=np.int32)
        return self._run(MicroBatch.of(np.arange(1), [ids], self._source.pad_id))

    def _measured_budget(self) -> int:
        tokens = min(_PROBE_TOKENS, self._length)
        self._probe(tokens)
        # By processor time, all threads together: a busy machine must not make the budget small.
        began = time.process_time()
        self._probe(tokens)
        seconds = (time.process_time() - began) / self._threads
        return int(np.clip(tokens / max(seconds, 1e-4) * _SECONDS, _MIN_BUDGET, _MAX_BUDGET))


def _classified(error: Exception) -> Exception:
    """The contract's exception for a failure of ONNX Runtime; anything unknown is this batch's own failure."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    lowered = text.lower()
    if isinstance(error, MemoryError) or "failed to allocate memory" in lowered or "bad_alloc" in lowered:
        return EngineOutOfMemory(text)
    if "cuda failure" in lowered or "cublas failure" in lowered or "cudnn failure" in lowered:
        return EngineFault(text)
    return RuntimeError(text)
