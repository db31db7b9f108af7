"""Ranking in this process, without a server: for ``rerankd rank``, ``rerankd evaluate`` and notebooks.

The same checkpoint, prompts, core and engine as the server's, minus HTTP, cache and admission: a loop drives the core
where the server has a thread, and the next prompts are made meanwhile.
"""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from operator import attrgetter
from types import TracebackType
from typing import Any, Self

from rerankd.cache.base import CachedScore
from rerankd.checkpoint import Checkpoint
from rerankd.client._calls import as_documents
from rerankd.client.values import Document, Pair, Query, RankedResults
from rerankd.core.engine_core import EngineCore, EngineGone, load_engine
from rerankd.core.request import ScoreRequest
from rerankd.engine.base import DType, Engine, EngineInfo
from rerankd.errors import EngineDead, ScoringError, ServiceError
from rerankd.local_results import error_of, ranked_results, request_of, request_or_error
from rerankd.local_windows import LocalScores, Place, Window, WindowSize
from rerankd.observe.metrics import EngineMetrics, Metrics
from rerankd.prompt.build import PromptBuilder, PromptLimits, RequestPrompts
from rerankd.prompt.template import Template
from rerankd.service.calibration import Calibration
from rerankd.service.long_documents import LongDocumentRule, SplitDocuments
from rerankd.service.ranking import rerank_result
from rerankd.settings import Settings
from rerankd.types import PairPrompt, RerankRequest, RerankResult, Timings

_DEFAULTS = Settings()
_ASKED = attrgetter("query", "instruction", "truncate", "long_documents")
"""What the prompts of a request depend on, but for its documents."""


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
        # Before the fingerprint: a file that the engine refuses may be of any size, and that reads all of it.
        load_engine(made)
        self._set_up(name, checkpoint.fingerprint, PromptBuilder(checkpoint.tokenizer), made, max_pair_tokens)

    @classmethod
    def of(cls, name: str, revision: str, builder: PromptBuilder, engine: Engine, max_pair_tokens: int) -> Self:
        """One of parts that are there already; the engine is loaded here."""
        reranker = cls.__new__(cls)
        load_engine(engine)
        reranker._set_up(name, revision, builder, engine, max_pair_tokens)
        return reranker

    def _set_up(self, name: str, revision: str, builder: PromptBuilder, engine: Engine, max_pair_tokens: int) -> None:
        self.name = name
        self.revision = revision
        """Hash over the checkpoint's own files."""
        self.template: Template = builder.tokenizer.template
        self.limits = PromptLimits(max_pair_tokens=min(max_pair_tokens, engine.info.max_length))
        self.calibration: Calibration | None = None
        """What probabilities raw scores stand for; None for the sigmoid."""
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
        **options: Any,
    ) -> RankedResults:
        """Order ``documents`` by how well each answers ``query``; the words and results are the client's.

        Args:
            instruction: what counts as relevant; None leaves it to the template.
            top_n: how many results are kept; None for all.
            model: this model's own name, or None.
            threshold: the least score of a result; ``nothing_relevant`` says whether no document reached it.
            raw_scores: logits instead of probabilities in 0..1.
            options: what happens to long documents, by the API's names: ``truncate``, ``long_documents="chunk"``,
                ``chunk_tokens``, ``chunk_overlap_tokens``, ``chunk_aggregation``, ``chunk_top_k`` and
                ``max_chunks_per_doc``.

        Raises:
            TooLong: a document is too long, and long ones are to be refused.
            InvalidRequest: the query is blank, there are no documents, or an option needs a server.
            ScoringError: no document could be scored.
            EngineDead: the engine cannot score any more.
        """
        asked = Query(query, as_documents(documents), instruction, top_n, threshold, options)
        request = request_of(asked, self.name, model)
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
        **options: Any,
    ) -> list[float]:
        """The score of each (query, document), in order. A pair that has none is an error of the whole call.

        The arguments are those of :meth:`rank`.
        """
        asked = [Query(query, (document,), instruction, options=options) for query, document in pairs]
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
            f"{random.getrandbits(128):032x}",
            self.name,
            self.template,
            request,
            pairs,
            0,
            timings,
            rule,
            scored.split,
            calibration=self.calibration,
        )

    def score_many(self, requests: Iterable[RerankRequest]) -> Iterator[LocalScores]:
        """Raw scores of many requests, in order, batched together; the next prompts are made meanwhile.

        ``requests`` may be endless: only three windows of it are held.

        Raises:
            EngineDead: the engine cannot score any more.
        """
        running: deque[Window] = deque()
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
    ) -> Future[Window] | None:
        window = next(windows, None)
        return None if window is None else thread.submit(self._prepare, window)

    def _prepare(self, requests: Sequence[RerankRequest]) -> Window:
        """The prompts of a window, those together that begin alike: a query's, or a document's."""
        window = Window()
        alike: dict[int | str, list[tuple[PairPrompt, Place]]] = {}
        for number, (texts, pairs) in enumerate(self._pairs(requests, window)):
            known: list[CachedScore | ScoringError | None] = []
            window.pairs.append(known)
            for document, pair in zip(texts, pairs, strict=True):
                if isinstance(pair, PairPrompt):
                    key = document if self._document_first else number
                    alike.setdefault(key, []).append((pair, (number, len(known))))
                    known.append(None)
                else:
                    known.append(pair)
        # Pairs of about one length meet in a batch, for engines that pad. The window is one request to the core: less
        # work than many.
        groups = sorted(alike.values(), key=lambda rows: rows[0][0].tokens)
        rows = [row for group in groups for row in group]
        if rows:
            window.request = ScoreRequest(tuple([pair for pair, _ in rows]))
            window.places = [place for _, place in rows]
            window.missing = len(rows)
        return window

    def _pairs(
        self, requests: Sequence[RerankRequest], window: Window
    ) -> Iterator[tuple[Sequence[str], Sequence[PairPrompt | ScoringError]]]:
        """Of each request the texts, documents or passages of them, and their prompts.

        Requests in a row that ask the same of other documents are tokenised together.
        """
        for _, alike in itertools.groupby(requests, _ASKED):
            run = list(alike)
            rule = self.long_documents.for_request(run[0])
            window.rules += [rule] * len(run)
            if rule.mode != "chunk":
                window.splits += [None] * len(run)
                documents = [text for request in run for text in request.documents]
                indices = [index for request in run for index in range(len(request.documents))]
                found = iter(self._prompts(run[0], rule).pairs(documents, indices) if documents else ())
                for request in run:
                    yield request.documents, list(itertools.islice(found, len(request.documents)))
                continue
            for request in run:
                if not request.documents:
                    window.splits.append(None)
                    yield (), ()
                    continue
                prompts = self._prompts(request, rule)
                split = SplitDocuments.of(request.documents, prompts.split(request.documents, rule.chunks))
                window.splits.append(split)
                yield split.texts, prompts.pairs(split.texts, [ref.document for ref in split.refs])

    def _prompts(self, request: RerankRequest, rule: LongDocumentRule) -> RequestPrompts:
        given = request.instruction
        instruction = given if given and not given.isspace() else self.template.default_instruction
        limits = replace(self.limits, truncate=request.truncate is not False and rule.mode != "error")
        return self._builder.begin(request.query, instruction, limits)

    def _begin(self, window: Window) -> Window:
        if window.request is not None:
            self._core.add(window.request)
        return window

    def _step(self, running: Iterable[Window]) -> None:
        try:
            outputs = self._core.step()
        except EngineGone as error:
            raise EngineDead(f"the engine is gone: {error}") from None
        for output in outputs:
            next(window for window in running if window.request is output.request).take(output)

    def close(self) -> None:
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
