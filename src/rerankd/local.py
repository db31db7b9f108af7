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
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rerankd.checkpoint import Checkpoint
from rerankd.engine.base import Batch, DType, Engine, EngineInfo, EngineOutOfMemory, Group
from rerankd.errors import ScoringError
from rerankd.prompt.build import Pair, Prompt, PromptBuilder, PromptLimits
from rerankd.prompt.template import Template, Text
from rerankd.service.ranking import document_score, rank
from rerankd.settings import Settings
from rerankd.types import RerankRequest, RerankResult, Timings

_DEFAULTS = Settings()
_FEW, _MANY = 2048, 65_536
"""Documents of a window, tokenised while the one before is scored. Where the prompt begins with the document,
queries share the work on the documents that they have in common, so that a longer window is less work."""
_MANY_CHARACTERS = 64_000_000
"""... as long as its ids fit into some 100 MB."""


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
        self._document_first = _reads_document_first(template)

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
            ahead: Future[_Window] | None = None
            for window in _windows(requests, _MANY if self._document_first else _FEW):
                made, ahead = ahead, thread.submit(self._prepare, window)
                if made is not None:
                    yield from self._score_window(made.result())
            if ahead is not None:
                yield from self._score_window(ahead.result())

    def _prepare(self, requests: Sequence[RerankRequest]) -> _Window:
        """The prompts of a window, those together that begin alike: a request's own, or a document's."""
        pairs = [self._pairs(request) for request in requests]
        places: dict[int | str, list[_Place]] = {}
        for number, request in enumerate(requests):
            for index, document in enumerate(request.documents):
                places.setdefault(document if self._document_first else number, []).append((number, index))
        shared = [
            _Shared(Prompt.of([pairs[number][index] for number, index in alike]), alike) for alike in places.values()
        ]
        return _Window(pairs, shared)

    def _pairs(self, request: RerankRequest) -> list[Pair]:
        if not request.documents:
            return []
        instruction = self.template.default_instruction if request.instruction is None else request.instruction
        return self._builder.pairs(request.query, request.documents, instruction, self._limits)

    def _score_window(self, window: _Window) -> Iterator[LocalScores]:
        """Every request as soon as it and all before it have their scores."""
        logits = [np.full(len(pairs), np.nan, dtype=np.float32) for pairs in window.pairs]
        missing = [len(pairs) for pairs in window.pairs]
        done = 0
        for pieces in _fill([shared.prompt for shared in window.shared], self.info.max_batch_tokens):
            for piece, scores in zip(pieces, self._score(window.shared, pieces), strict=True):
                for pair, score in zip(piece.pairs, scores, strict=True):
                    number, index = window.shared[piece.prompt].places[pair]
                    logits[number][index] = score
                    missing[number] -= 1
            while done < len(missing) and not missing[done]:
                yield _scores_of(window.pairs[done], logits[done])
                done += 1
        for pairs, row in zip(window.pairs[done:], logits[done:], strict=True):
            yield _scores_of(pairs, row)

    def _score(self, shared: Sequence[_Shared], pieces: Sequence[_Piece]) -> list[NDArray[np.float32]]:
        """One forward pass; halved as long as it does not fit into memory."""
        prompts = [shared[piece.prompt].prompt for piece in pieces]
        groups = [
            Group(prompt.prefix, tuple(prompt.tails[pair] for pair in piece.pairs))
            for prompt, piece in zip(prompts, pieces, strict=True)
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
            return self._score(shared, pieces[:middle]) + self._score(shared, pieces[middle:])
        if len(pieces[0].pairs) == 1:
            raise ScoringError("one pair alone does not fit into the engine's memory; lower max_pair_tokens")
        halves = [_Piece(pieces[0].prompt, half) for half in np.array_split(pieces[0].pairs, 2)]
        return [np.concatenate([self._score(shared, [half])[0] for half in halves])]

    def close(self) -> None:
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_Place: TypeAlias = tuple[int, int]
"""A pair's request within its window, and its document within that request."""


@dataclass(frozen=True, slots=True)
class _Shared:
    """Pairs that begin with the same tokens, and whose they are."""

    prompt: Prompt
    places: list[_Place]


@dataclass(frozen=True, slots=True)
class _Window:
    """Requests that are scored together: their pairs, and the same pairs by what they share."""

    pairs: list[list[Pair]]
    shared: list[_Shared]


@dataclass(frozen=True, slots=True)
class _Piece:
    """Pairs of one prompt that go into the same batch, by their indexes."""

    prompt: int
    pairs: NDArray[np.intp]


def _scores_of(pairs: Sequence[Pair], logits: NDArray[np.float32]) -> LocalScores:
    return LocalScores(logits, sum(len(pair.ids) for pair in pairs), sum(pair.truncated for pair in pairs))


def _reads_document_first(template: Template) -> bool:
    text = "".join(part.text for part in template.parts if isinstance(part, Text))
    return text.find("{document}") < text.find("{query}")


def _windows(requests: Iterable[RerankRequest], least: int) -> Iterator[list[RerankRequest]]:
    """Runs of requests with at least so many documents each, or with many characters."""
    window: list[RerankRequest] = []
    documents = characters = 0
    for request in requests:
        window.append(request)
        documents += len(request.documents)
        characters += sum(map(len, request.documents))
        if documents >= least or characters >= _MANY_CHARACTERS:
            yield window
            window, documents, characters = [], 0, 0
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
