"""Ranking in this process, without a server: for ``rerankd rank``, ``rerankd evaluate`` and notebooks.

The same checkpoint, prompts, core and engine as the server's, minus HTTP, cache and admission: a loop drives the core
where the server has a thread, and the next prompts are made meanwhile.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rerankd.cache.base import CachedScore
from rerankd.checkpoint import Checkpoint
from rerankd.client._calls import as_documents
from rerankd.client.values import Document, Pair, Query, RankedResults
from rerankd.core.engine_core import EngineCore, EngineGone, load_engine
from rerankd.core.request import Output, ScoreRequest
from rerankd.engine.base import DType, Engine, EngineInfo
from rerankd.errors import EngineDead, ScoringError, ServiceError
from rerankd.local_results import error_of, ranked_results, request_of, request_or_error
from rerankd.observe.metrics import EngineMetrics, Metrics
from rerankd.prompt.build import PromptBuilder, PromptLimits
from rerankd.prompt.template import Template
from rerankd.service.long_documents import LongDocumentRule, SplitDocuments, combine
from rerankd.service.ranking import rerank_result
from rerankd.settings import Settings
from rerankd.types import NO_WISH, LongDocuments, PairPrompt, RerankRequest, RerankResult, Timings

_DEFAULTS = Settings()


@dataclass(frozen=True, slots=True)
class WindowSize:
    """How many requests are tokenised together, while those before are scored.

    A window ends with the request that brings it to so many documents, or characters. Where the prompt begins with
    the document, queries share the work on the documents that they have in common, so that a longer window is less
    work; characters bound its ids to some 100 MB.
    """

    documents: int = 2048
    documents_first: int = 65_536
    characters: int = 64_000_000


@dataclass(frozen=True, slots=True)
class LocalScores:
    """What became of one request, in input order.

    Attributes:
        pairs: of each document the raw score with its tokens, or an error.
        passages: the same of each passage of ``split``, where long documents were split.
    """

    pairs: tuple[CachedScore | ScoringError, ...]
    passages: tuple[CachedScore | ScoringError, ...] = ()
    split: SplitDocuments | None = None

    @property
    def logits(self) -> NDArray[np.float32]:
        """The raw scores, float32, shape (documents,); NaN where there is none."""
        scores = [pair.logit if isinstance(pair, CachedScore) else np.nan for pair in self.pairs]
        return np.array(scores, dtype=np.float32)

    @property
    def tokens(self) -> int:
        """Tokens of all scored pairs as the model reads them, prompt included."""
        return sum(pair.tokens for pair in self.pairs if isinstance(pair, CachedScore))

    @property
    def truncated(self) -> int:
        """Pairs that were cut to the model's limit."""
        return sum(pair.truncated for pair in self.pairs if isinstance(pair, CachedScore))


class Reranker:
    """A loaded model that ranks documents in the calling thread. Not to be shared between threads.

    Args:
        model: ``tiny`` (embedded), a folder, or a hub name; the arguments are the settings of the same names.

    Raises:
        ConfigurationError: there is no such checkpoint or engine, or they do not fit each other.
    """

    def __init__(
        self,
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
        prefix_cache_tokens: int = _DEFAULTS.prefix_cache_tokens,
    ) -> None:
        checkpoint = Checkpoint.open(model, revision, template)
        made = checkpoint.engine(
            engine,
            dtype=dtype,
            device=device,
            threads=threads,
            max_pair_tokens=max_pair_tokens,
            max_batch_tokens=max_batch_tokens,
            prefix_cache_tokens=prefix_cache_tokens,
        )
        name = model.rstrip("/").rsplit("/", 1)[-1]
        self._set_up(name, checkpoint.fingerprint, PromptBuilder(checkpoint.tokenizer), made, max_pair_tokens)

    @classmethod
    def of(cls, name: str, revision: str, builder: PromptBuilder, engine: Engine, max_pair_tokens: int) -> Self:
        """One of parts that are there already; the engine is loaded here."""
        reranker = cls.__new__(cls)
        reranker._set_up(name, revision, builder, engine, max_pair_tokens)
        return reranker

    def _set_up(self, name: str, revision: str, builder: PromptBuilder, engine: Engine, max_pair_tokens: int) -> None:
        load_engine(engine)
        self.name = name
        self.revision = revision
        """Hash over the checkpoint's own files."""
        self.template: Template = builder.tokenizer.template
        self.limits = PromptLimits(max_pair_tokens=min(max_pair_tokens, engine.info.max_length))
        self.long_documents = LongDocumentRule.of(_DEFAULTS)
        """What happens to long documents where a request does not say."""
        self.window = WindowSize()
        self._builder = builder
        self._engine = engine
        self._core = EngineCore(engine, EngineMetrics(Metrics(), name))
        self._document_first = self.template.reads_document_first

    @property
    def max_pair_tokens(self) -> int:
        """Longer pairs are cut to this many tokens."""
        return self.limits.max_pair_tokens

    @property
    def info(self) -> EngineInfo:
        """What the engine says of itself."""
        return self._engine.info

    def rank(
        self,
        query: str,
        documents: Sequence[str | Document],
        instruction: str | None = None,
        top_n: int | None = None,
        model: str | None = None,
        *,
        threshold: float | None = None,
        raw_scores: bool = False,
        long_documents: LongDocuments = NO_WISH,
    ) -> RankedResults:
        """Order ``documents`` by how well each answers ``query``; the words and results are the client's.

        Args:
            instruction: what counts as relevant; None leaves it to the template.
            top_n: how many results are kept; None for all.
            model: this model's own name, or None.
            threshold: the least score of a result; ``nothing_relevant`` says whether no document reached it.
            raw_scores: logits instead of probabilities in 0..1.
            long_documents: what happens to long documents, in place of the model's own rule.

        Raises:
            TooLong: a document is too long, and long ones are to be refused.
            InvalidRequest: the query is blank, or there are no documents.
            ScoringError: no document could be scored.
            EngineDead: the engine cannot score any more.
        """
        asked = Query(query, as_documents(documents), instruction, top_n, threshold)
        request = replace(request_of(asked, self.name, model), long_documents=long_documents)
        (scored,) = self.score_many([request])
        answer = self.result_of(request, scored, Timings())
        if len(answer.errors) == len(answer.scores):
            raise error_of(answer)
        return ranked_results(asked, answer, raw_scores)

    def rank_many(self, queries: Sequence[Query], model: str | None = None) -> list[RankedResults | ServiceError]:
        """Rank several queries, scored together; a query that fails alone is its error in the list."""
        checked = [request_or_error(query, self.name, model) for query in queries]
        scored = self.score_many(request for request in checked if isinstance(request, RerankRequest))
        return [
            request
            if isinstance(request, ServiceError)
            else ranked_results(query, self.result_of(request, next(scored), Timings()), False)
            for query, request in zip(queries, checked, strict=True)
        ]

    def score(
        self,
        pairs: Sequence[Pair],
        instruction: str | None = None,
        model: str | None = None,
        *,
        raw_scores: bool = False,
    ) -> list[float]:
        """The score of each (query, document), in order. A pair that has none is an error of the whole call."""
        asked = [Query(query, (document,), instruction) for query, document in pairs]
        requests = [request_of(query, self.name, model) for query in asked]
        answers = [
            self.result_of(request, scored, Timings())
            for request, scored in zip(requests, self.score_many(requests), strict=True)
        ]
        for answer in answers:
            if answer.errors:
                raise error_of(answer)
        return [
            result.score
            for query, answer in zip(asked, answers, strict=True)
            for result in ranked_results(query, answer, raw_scores)
        ]

    def result_of(self, request: RerankRequest, scored: LocalScores, timings: Timings) -> RerankResult:
        """The answer that raw scores of :meth:`score_many` make."""
        rule = self.long_documents.for_request(request)
        pairs = scored.pairs if scored.split is None else scored.passages
        return rerank_result(
            uuid.uuid4().hex, self.name, self.template, request, pairs, 0, timings, rule, scored.split
        )

    def score_many(self, requests: Iterable[RerankRequest]) -> Iterator[LocalScores]:
        """Raw scores of many requests, in order, batched together; the next prompts are made meanwhile.

        ``requests`` may be endless: only three windows of it are held.

        Raises:
            EngineDead: the engine cannot score any more.
        """
        running: deque[_Window] = deque()
        windows = self._windows(requests)
        with ThreadPoolExecutor(1, thread_name_prefix="prompts") as thread:
            ahead = self._prepare_next(thread, windows)
            while running or ahead is not None:
                if ahead is not None and len(running) < 2:
                    running.append(self._begin(ahead.result()))
                    ahead = self._prepare_next(thread, windows)
                self._step(running)
                while running and not running[0].missing:
                    yield from running.popleft().scores()

    def _windows(self, requests: Iterable[RerankRequest]) -> Iterator[list[RerankRequest]]:
        """Runs of requests; see :class:`WindowSize`."""
        most = self.window.documents_first if self._document_first else self.window.documents
        window: list[RerankRequest] = []
        documents = characters = 0
        for request in requests:
            window.append(request)
            # One without documents takes its place in the window, too: an endless run of them must end it.
            documents += max(len(request.documents), 1)
            characters += sum(map(len, request.documents))
            if documents >= most or characters >= self.window.characters:
                yield window
                window, documents, characters = [], 0, 0
        if window:
            yield window

    def _prepare_next(
        self, thread: ThreadPoolExecutor, windows: Iterator[list[RerankRequest]]
    ) -> Future[_Window] | None:
        window = next(windows, None)
        return None if window is None else thread.submit(self._prepare, window)

    def _prepare(self, requests: Sequence[RerankRequest]) -> _Window:
        """The prompts of a window, those together that begin alike: a query's, or a document's."""
        window = _Window()
        alike: dict[int | str, list[tuple[PairPrompt, _Place]]] = {}
        for number, request in enumerate(requests):
            window.pairs.append([])
            texts, pairs = self._pairs(request, window)
            for document, pair in zip(texts, pairs, strict=True):
                if isinstance(pair, PairPrompt):
                    key = document if self._document_first else number
                    alike.setdefault(key, []).append((pair, (number, len(window.pairs[number]))))
                    window.missing += 1
                    window.pairs[number].append(None)
                else:
                    window.pairs[number].append(pair)
        for rows in alike.values():
            window.places[ScoreRequest(tuple(pair for pair, _ in rows))] = [place for _, place in rows]
        return window

    def _pairs(
        self, request: RerankRequest, window: _Window
    ) -> tuple[Sequence[str], Sequence[PairPrompt | ScoringError]]:
        """The texts of a request, documents or passages of them, and their prompts."""
        rule = self.long_documents.for_request(request)
        window.rules.append(rule)
        window.splits.append(None)
        if not request.documents:
            return (), ()
        given = request.instruction
        instruction = given if given and not given.isspace() else self.template.default_instruction
        limits = replace(self.limits, truncate=request.truncate is not False and rule.mode != "error")
        prompts = self._builder.begin(request.query, instruction, limits)
        if rule.mode != "chunk":
            return request.documents, prompts.pairs(request.documents, range(len(request.documents)))
        split = window.splits[-1] = SplitDocuments.of(
            request.documents, prompts.split(request.documents, rule.chunks)
        )
        return split.texts, prompts.pairs(split.texts, [ref.document for ref in split.refs])

    def _begin(self, window: _Window) -> _Window:
        for request in window.places:
            self._core.add(request)
        return window

    def _step(self, running: Iterable[_Window]) -> None:
        try:
            outputs = self._core.step()
        except EngineGone as error:
            raise EngineDead(f"the engine is gone: {error}") from None
        for output in outputs:
            window = next(window for window in running if output.request in window.places)
            window.take(output)

    def close(self) -> None:
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_Place: TypeAlias = tuple[int, int]
"""A pair's request within its window, and its text within that request."""


@dataclass(slots=True)
class _Window:
    """Requests that are scored together."""

    pairs: list[list[CachedScore | ScoringError | None]] = field(default_factory=list)
    """What is known of each text of each request: of its documents, or of their passages."""
    rules: list[LongDocumentRule] = field(default_factory=list)
    splits: list[SplitDocuments | None] = field(default_factory=list)
    """The passages of each request, where its documents are split."""
    places: dict[ScoreRequest, list[_Place]] = field(default_factory=dict)
    """Whose the pairs are."""
    missing: int = 0
    """Pairs without an outcome."""

    def take(self, output: Output) -> None:
        places = self.places[output.request]
        for index, outcome in output.outcomes.items():
            number, document = places[index]
            pair = output.request.pairs[index]
            if isinstance(outcome, float):
                self.pairs[number][document] = CachedScore(outcome, pair.tokens, pair.truncated)
            else:
                self.pairs[number][document] = outcome
        self.missing -= len(output.outcomes)

    def scores(self) -> Iterator[LocalScores]:
        """The answers, once nothing is missing."""
        for known, rule, split in zip(self.pairs, self.rules, self.splits, strict=True):
            pairs = tuple(pair for pair in known if pair is not None)
            if split is None:
                yield LocalScores(pairs)
            else:
                yield LocalScores(combine(rule, split, pairs).pairs, pairs, split)
