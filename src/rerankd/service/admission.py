"""Who is let in: sizes of a call, room before a model, and deadlines that cannot be met.

Everything here is cheap, and looked at before anything is spent on what it bounds. The rate of a caller is in
``rates.py``; whatever front end a server has, a call comes through here.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rerankd.core.engine_core import CoreStatus
from rerankd.core.fair_queue import Backlog
from rerankd.core.request import Output, ScoreRequest
from rerankd.errors import InvalidRequest, Overloaded, TooLarge
from rerankd.limits.quota import Quota
from rerankd.observe.metrics import EngineMetrics
from rerankd.prompt.fair_semaphore import FairSemaphore
from rerankd.settings import Settings
from rerankd.types import RerankRequest

TOKENS_PER_CHARACTER = 1
"""An upper bound for all but rare scripts: words cost a quarter of this, Chinese two thirds."""
CHARACTERS_PER_TOKEN = 4
"""Of English words; what waits to be tokenised may become about a queue's tokens."""
PROMPT_OVERHEAD_TOKENS = 256
"""A generous guess at what the prompt adds to a document: template, instruction, a question."""
_MAX_RETRY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class SizeLimits:
    """Limits of one request. Characters, because a tokenizer needs seconds and gigabytes for what they bound."""

    max_documents: int
    max_document_characters: int
    max_query_characters: int
    max_request_characters: int

    @classmethod
    def from_settings(cls, settings: Settings, max_documents: int) -> SizeLimits:
        return cls(
            max_documents=max_documents,
            max_document_characters=settings.max_document_characters,
            max_query_characters=settings.max_query_characters,
            max_request_characters=settings.max_request_characters,
        )


def check_queries(queries: int, settings: Settings) -> None:
    """Raises TooLarge for a call with more queries than one may have."""
    limit, setting = min((settings.max_queries, "max_queries"), (settings.queue_requests, "queue_requests"))
    if queries > limit:
        raise TooLarge(f"the call has {queries} queries, the limit is {limit}", setting=setting)


def check_sizes(request: RerankRequest, limits: SizeLimits) -> None:
    """Refuse what is empty or too large.

    Raises:
        InvalidRequest: no query, or no documents.
        TooLarge: names the limit, the value measured and the setting that moves the limit.
    """
    check_not_empty(request)
    if len(request.documents) > limits.max_documents:
        raise _too_large("the request", len(request.documents), "documents", limits.max_documents, "max_documents")
    for name, text in (("query", request.query), ("instruction", request.instruction or "")):
        if len(text) > limits.max_query_characters:
            raise _too_large(name, len(text), "characters", limits.max_query_characters, "max_query_characters")
    lengths = list(map(len, request.documents))
    if (longest := max(lengths)) > limits.max_document_characters:
        name = f"documents[{lengths.index(longest)}]"
        raise _too_large(name, longest, "characters", limits.max_document_characters, "max_document_characters")
    if (total := sum(lengths)) > limits.max_request_characters:
        raise _too_large("documents", total, "characters", limits.max_request_characters, "max_request_characters")


def check_not_empty(request: RerankRequest) -> None:
    """Raises InvalidRequest without a query or documents. An empty document gets a (low) score like any other."""
    if not request.query or request.query.isspace():
        raise InvalidRequest("query must not be empty or blank", param="query")
    if not request.documents:
        raise InvalidRequest("documents must not be empty", param="documents")


def _too_large(name: str, value: int, unit: str, limit: int, setting: str) -> TooLarge:
    param = "documents" if name == "the request" else name
    return TooLarge(f"{name} has {value} {unit}, the limit is {limit}", param=param, setting=setting)


def default_queue_tokens(settings: Settings) -> int:
    """Twice what the largest request can hold, so that one such request leaves half of the queue to others."""
    largest = settings.max_request_characters * TOKENS_PER_CHARACTER + settings.max_documents * PROMPT_OVERHEAD_TOKENS
    return 2 * max(largest, settings.max_pair_tokens)


class Admission:
    """The room before one model: requests, characters to tokenise, and tokens to score."""

    def __init__(self, settings: Settings, tokenizing: FairSemaphore, metrics: EngineMetrics) -> None:
        tokens = settings.queue_tokens or default_queue_tokens(settings)
        characters = max(CHARACTERS_PER_TOKEN * tokens, 2 * settings.max_request_characters)
        share = settings.max_tenant_share
        self.requests = Quota("requests", settings.queue_requests, share, "queue_requests")
        self.characters = Quota("characters", characters, share, "queue_tokens")
        self.tokens = Quota("tokens", tokens, share, "queue_tokens")
        self._tokenizing = tokenizing
        self._backlog: Backlog[ScoreRequest] = Backlog()
        metrics.queue_tokens.set_function(lambda: self.tokens.held)

    def enter(self, tenant: str, deadline: float) -> Ticket:
        """For the time of one call."""
        return Ticket(self, tenant, deadline)

    def served(self, output: Output) -> None:
        """Some pairs of a request have their outcomes, and wait no more."""
        request = output.request
        tokens = sum(len(request.pairs[index].tail) for index in output.outcomes)
        self.tokens.give_back(request.tenant, self._backlog.serve(request, request.tenant, tokens))

    def check_tokenizing(self, tenant: str, characters: int, deadline: float) -> None:
        """Raises Overloaded for texts that cannot be tokenised in time; idle threads refuse nothing."""
        if not self._tokenizing.is_idle:
            wait = self._tokenizing.seconds_until_done(tenant, characters)
            if wait > deadline - time.monotonic():
                raise Overloaded(
                    f"the texts would wait about {wait:.1f} s for the tokenizer, longer than the deadline allows",
                    retry_after=min(_MAX_RETRY_SECONDS, max(1.0, wait)),
                )

    def check_scoring(self, tenant: str, tokens: int, deadline: float, status: CoreStatus) -> None:
        """Raises Overloaded for pairs that cannot be scored in time.

        An idle engine refuses nothing: were the measured pace too slow, nothing would ever correct it.
        """
        left = deadline - time.monotonic()
        everything = self._backlog.total + tokens
        # Everything that waits, in any order, is the cheap upper bound; most of the time it is enough.
        if everything == tokens or status.pace.seconds_for(everything, status.budget) <= left:
            return
        ahead = self._backlog.until_done(tenant, tokens) + status.running_tokens
        wait = status.pace.seconds_for(min(everything, ahead), status.budget)
        if wait > left:
            raise Overloaded(
                f"the scores would take about {wait:.1f} s and the deadline is in {max(left, 0):.1f} s",
                retry_after=self.retry_after(status),
            )

    def retry_after(self, status: CoreStatus) -> float:
        """Seconds after which there may be room again."""
        return min(_MAX_RETRY_SECONDS, max(1.0, status.pace.seconds_for(self._backlog.total, status.budget)))

    def hold(self, tenant: str, sizes: Mapping[ScoreRequest, int], status: CoreStatus) -> None:
        """Take the tokens of requests, all or none."""
        try:
            self.tokens.take(tenant, sum(sizes.values()))
        except Overloaded as error:
            error.retry_after = self.retry_after(status)
            raise
        for request, size in sizes.items():
            self._backlog.add(request, request.tenant, size)

    def release(self, request: ScoreRequest) -> None:
        """A request has ended."""
        self.tokens.give_back(request.tenant, self._backlog.remove(request, request.tenant))


class Ticket:
    """What one call holds of a model's room; given back at its end. A call is let in whole, or not at all."""

    __slots__ = ("_admission", "_characters", "_deadline", "_queries", "_requests", "_tenant")

    def __init__(self, admission: Admission, tenant: str, deadline: float) -> None:
        self._admission = admission
        self._tenant = tenant
        self._deadline = deadline
        self._queries = self._characters = 0
        self._requests: Iterable[ScoreRequest] = ()

    def take_texts(self, queries: int, characters: int) -> None:
        """Room to tokenise the call's texts.

        Raises:
            TooLarge: more than all calls together may have.
            Overloaded: no room, or no hope to be done by the deadline.
        """
        admission, tenant = self._admission, self._tenant
        admission.check_tokenizing(tenant, characters, self._deadline)
        admission.requests.take(tenant, queries)
        self._queries = queries
        admission.characters.take(tenant, characters)
        self._characters = characters

    def take_tokens(self, sizes: Mapping[ScoreRequest, int], status: CoreStatus) -> None:
        """Room to score the call's pairs, in the place of its texts; ``sizes`` are the tokens that each computes.

        Raises:
            TooLarge: more than all calls together may have.
            Overloaded: no room, or no hope to be done by the deadline.
        """
        admission, tenant = self._admission, self._tenant
        admission.check_scoring(tenant, sum(sizes.values()), self._deadline, status)
        admission.hold(tenant, sizes, status)
        self._requests = sizes
        self._give_back_characters()  # the texts have become tokens

    def _give_back_characters(self) -> None:
        if self._characters:
            self._admission.characters.give_back(self._tenant, self._characters)
            self._characters = 0

    def close(self) -> None:
        """The call has ended."""
        self._give_back_characters()
        for request in self._requests:
            self._admission.release(request)
        self._admission.requests.give_back(self._tenant, self._queries)
