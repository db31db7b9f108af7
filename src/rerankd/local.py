"""Ranking in this process, without a server: for ``rerankd rank``, ``rerankd evaluate`` and notebooks.

The same checkpoint, prompt and engine as the server's, minus queue, cache and HTTP: texts -> prompts (one
window of requests ahead, in a thread) -> batches filled to the engine's token budget -> logits.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rerankd.checkpoint import Checkpoint
from rerankd.engine.base import Batch, DType, Engine, EngineInfo, EngineOutOfMemory, Group
from rerankd.errors import ScoringError
from rerankd.prompt.build import Prompt, PromptBuilder, PromptLimits
from rerankd.prompt.template import Template
from rerankd.service.ranking import document_score, rank
from rerankd.settings import Settings
from rerankd.types import RerankRequest, RerankResult, Timings

_DEFAULTS = Settings()
_WINDOW_DOCUMENTS = 2048
"""Documents that are tokenised while the window before them is scored: some seconds of work, some MB."""


@dataclass(frozen=True, slots=True)
class LocalScores:
    """The raw scores of one request.

    ``logits`` is float32, shape (documents,), in input order; not finite where the engine gave no number.
    """

    logits: NDArray[np.float32]
    tokens: int
    """Tokens of all pairs as the model reads them, prompt included."""
    truncated: int
    """Pairs that were cut to the model's limit."""


class LocalReranker:
    """A loaded model that ranks documents in the calling thread. Not to be shared between threads."""

    def __init__(
        self,
        name: str,
        revision: str,
        template: Template,
        builder: PromptBuilder,
        engine: Engine,
        limits: PromptLimits,
    ) -> None:
        self.name = name
        self.revision = revision
        """Hash over the checkpoint's own files."""
        self.template = template
        self._builder = builder
        self._engine = engine
        self._limits = limits

    @classmethod
    def load(
        cls,
        model: str = _DEFAULTS.model,
        *,
        revision: str = "",
        template: str = _DEFAULTS.template,
        engine: str = _DEFAULTS.engine,
        dtype: DType = "auto",
        device: str = _DEFAULTS.device,
        threads: int = 0,
        max_pair_tokens: int = _DEFAULTS.max_pair_tokens,
        max_batch_tokens: int = 0,
    ) -> Self:
        """Load and warm a model; the arguments are the settings of the same names.

        Raises:
            ConfigurationError: there is no such checkpoint or engine, or they do not fit each other.
        """
        checkpoint = Checkpoint.open(model, revision, template)
        made = checkpoint.engine(
            engine,
            dtype=dtype,
            device=device,
            threads=threads,
            max_pair_tokens=max_pair_tokens,
            max_batch_tokens=max_batch_tokens,
        )
        made.load()
        made.warm_up()
        limits = PromptLimits(max_pair_tokens=min(max_pair_tokens, made.info.max_length))
        name = model.rstrip("/").rsplit("/", 1)[-1]
        return cls(
            name, checkpoint.fingerprint, checkpoint.template, PromptBuilder(checkpoint.tokenizer), made, limits
        )

    @property
    def max_pair_tokens(self) -> int:
        """Longer pairs are cut to this many tokens."""
        return self._limits.max_pair_tokens

    @property
    def info(self) -> EngineInfo:
        """What the engine says of itself."""
        return self._engine.info

    def rank(
        self, query: str, documents: Sequence[str], instruction: str | None = None, top_n: int | None = None
    ) -> RerankResult:
        """Order ``documents`` by how well each answers ``query``; ``instruction`` None means the template's own."""
        started = time.monotonic()
        scored = next(iter(self.score_many([RerankRequest(query, tuple(documents), instruction=instruction)])))
        scores = tuple(
            document_score(index, float(logit), self.template.scale, self.template.bias)
            for index, logit in enumerate(scored.logits)
        )
        return RerankResult(
            id=uuid.uuid4().hex,
            model=self.name,
            scores=scores,
            ranked=rank(scores, top_n),
            prompt_tokens=scored.tokens,
            timings=Timings(total=time.monotonic() - started),
        )

    def score_many(self, requests: Iterable[RerankRequest]) -> Iterator[LocalScores]:
        """Raw scores of many requests, in order, batched together; the next prompts are made meanwhile.

        ``requests`` may be endless: only two windows of it are held.

        Raises:
            ScoringError: a single pair does not fit into the engine's memory.
        """
        with ThreadPoolExecutor(1, thread_name_prefix="prompts") as thread:
            ahead: Future[list[Prompt]] | None = None
            for window in _windows(requests):
                made, ahead = ahead, thread.submit(self._prompts, window)
                if made is not None:
                    yield from self._score_window(made.result())
            if ahead is not None:
                yield from self._score_window(ahead.result())

    def _prompts(self, window: Sequence[RerankRequest]) -> list[Prompt]:
        return [
            self._builder.build(
                request.query,
                request.documents,
                self.template.default_instruction if request.instruction is None else request.instruction,
                self._limits,
            )
            for request in window
        ]

    def _score_window(self, prompts: Sequence[Prompt]) -> Iterator[LocalScores]:
        logits = [np.full(len(prompt.tails), np.nan, dtype=np.float32) for prompt in prompts]
        for pieces in _fill(prompts, self.info.max_batch_tokens):
            for piece, scores in zip(pieces, self._score(prompts, pieces), strict=True):
                logits[piece.prompt][piece.pairs] = scores
        for prompt, row in zip(prompts, logits, strict=True):
            yield LocalScores(row, int(sum(prompt.pair_tokens)), sum(prompt.truncated))

    def _score(self, prompts: Sequence[Prompt], pieces: Sequence[_Piece]) -> list[NDArray[np.float32]]:
        """One forward pass; halved as long as it does not fit into memory."""
        groups = [
            Group(prompts[piece.prompt].prefix, tuple(prompts[piece.prompt].tails[pair] for pair in piece.pairs))
            for piece in pieces
        ]
        try:
            scores = self._engine.score(Batch.of(groups))
        except EngineOutOfMemory:
            too_big = True
        else:
            too_big = False
        # Outside of the handler: a live exception keeps the tensors of its frames.
        if not too_big:
            return np.split(scores, np.cumsum([len(piece.pairs) for piece in pieces])[:-1])
        if len(pieces) > 1:
            middle = len(pieces) // 2
            return self._score(prompts, pieces[:middle]) + self._score(prompts, pieces[middle:])
        if len(pieces[0].pairs) == 1:
            raise ScoringError("one pair alone does not fit into the engine's memory; lower max_pair_tokens")
        halves = [_Piece(pieces[0].prompt, half) for half in np.array_split(pieces[0].pairs, 2)]
        return [np.concatenate([self._score(prompts, [half])[0] for half in halves])]

    def close(self) -> None:
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class _Piece:
    """Pairs of one prompt that go into the same batch, by their indexes."""

    prompt: int
    pairs: NDArray[np.intp]


def _windows(requests: Iterable[RerankRequest]) -> Iterator[list[RerankRequest]]:
    window: list[RerankRequest] = []
    documents = 0
    for request in requests:
        window.append(request)
        documents += len(request.documents)
        if documents >= _WINDOW_DOCUMENTS:
            yield window
            window, documents = [], 0
    if window:
        yield window


def _fill(prompts: Sequence[Prompt], budget: int) -> Iterator[list[_Piece]]:
    """Batches of at most ``budget`` computed tokens; a pair that is longer than that goes alone.

    The pairs of a prompt are taken by length, so that those side by side in a batch cost about the same.
    """
    pieces: list[_Piece] = []
    room = budget
    for number, prompt in enumerate(prompts):
        lengths = np.array([len(tail) for tail in prompt.tails], dtype=np.intp)
        waiting = np.argsort(lengths, kind="stable")
        while len(waiting):
            costs = len(prompt.prefix) + np.cumsum(lengths[waiting])
            fitting = int(np.searchsorted(costs, room, side="right"))
            if fitting == 0 and pieces:
                yield pieces
                pieces, room = [], budget
                continue
            taken = max(fitting, 1)
            pieces.append(_Piece(number, waiting[:taken]))
            room -= int(costs[taken - 1])
            waiting = waiting[taken:]
    if pieces:
        yield pieces
