"""The client's words for a model in this process: a query becomes a request, its answer ranked results."""

from __future__ import annotations

from rerankd.client._calls import RowFacts, as_documents, results_of
from rerankd.client.values import DocumentError, Passage, Query, RankedResults, Usage
from rerankd.errors import InvalidRequest, NotFound, ScoringError, ServiceError
from rerankd.service.admission import check_not_empty
from rerankd.types import RerankRequest, RerankResult
from rerankd.wire.fields import CHUNKS, LONG_DOCUMENTS, TOP_N, TRUNCATE, read_fields, request_options

_OPTIONS = {field.name: field for field in (TRUNCATE, LONG_DOCUMENTS, *CHUNKS)}
"""Fields of a server's request that make sense without one."""


def request_of(query: Query, name: str, model: str | None) -> RerankRequest:
    """The request of a query to the model ``name``; raises what a server answers to one that makes no sense."""
    if model not in (None, name):
        raise NotFound(f"the model loaded here is {name!r}", param="model")
    if unknown := sorted(query.options.keys() - _OPTIONS.keys()):
        raise InvalidRequest(f"{unknown[0]} needs a server; here are {', '.join(_OPTIONS)}", param=unknown[0])
    options = request_options(read_fields({**query.options, "top_n": query.top_n}, (TOP_N, *_OPTIONS.values())))
    texts = tuple(document.text for document in as_documents(query.documents))
    request = RerankRequest(query.text, texts, instruction=query.instruction, **options)
    check_not_empty(request)
    return request


def request_or_error(query: Query, name: str, model: str | None) -> RerankRequest | ServiceError:
    """The same where a query may fail alone."""
    try:
        return request_of(query, name, model)
    except InvalidRequest as error:
        return error


def ranked_results(query: Query, answer: RerankResult, raw_scores: bool) -> RankedResults:
    """The answer as a client has it."""
    documents = as_documents(query.documents)
    scores = tuple(place.logit if raw_scores else place.score for place in answer.scores)
    rows = {
        place.index: RowFacts(Passage(best.start, best.end, best.logit if raw_scores else best.score))
        for place in answer.scores
        if (best := place.best_passage) is not None
    }
    results, nothing_relevant = results_of(documents, scores, query, rows)
    return RankedResults(
        results,
        scores,
        model=answer.model,
        id=answer.id,
        usage=Usage(answer.prompt_tokens, answer.prompt_tokens),
        errors=tuple(
            DocumentError(place.index, place.error.code, place.error.message)
            for place in answer.errors
            if place.error is not None
        ),
        warnings=answer.warnings,
        meta={"long_documents": answer.long_documents.described} if answer.long_documents else {},
        nothing_relevant=nothing_relevant,
    )


def error_of(answer: RerankResult) -> ScoringError:
    """The first error of an answer that has some."""
    return next(place.error for place in answer.errors if place.error is not None)
