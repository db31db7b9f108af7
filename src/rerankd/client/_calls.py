"""Calls are built and their answers read by plain functions; nothing here does I/O."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from rerankd.client import errors
from rerankd.client._core import Call, Json, error_facts, text_of
from rerankd.client._error_table import BY_CODE
from rerankd.client.values import (
    Document,
    DocumentError,
    Pair,
    Passage,
    Query,
    RankedResults,
    Result,
    ServedModel,
    Usage,
)


class RowFacts(NamedTuple):
    """What an answer says of a document beside its score; the names are those of :class:`Result`."""

    best_passage: Passage | None = None
    relevant_spans: tuple[Passage, ...] = ()
    model_score: float | None = None
    rescored: bool | None = None


NO_FACTS = RowFacts()
NO_ROWS: Mapping[int, RowFacts] = MappingProxyType({})


def rank_call(query: Query, *, model: str | None, raw_scores: bool) -> Call[RankedResults]:
    documents = as_documents(query.documents)
    body = _item(query, documents, model) | {"return_documents": False}
    if raw_scores:
        body["raw_scores"] = True
    return Call("/rerank", body, lambda answer: _ranked(as_object(answer), documents, query))


def rank_many_call(queries: Sequence[Query], *, model: str | None) -> Call[list[RankedResults | errors.StatusError]]:
    sent = [as_documents(query.documents) for query in queries]
    pairs = [_item(query, documents, model) for query, documents in zip(queries, sent, strict=True)]

    def read(answer: Json) -> list[RankedResults | errors.StatusError]:
        items = as_object(answer).get("results")
        if not isinstance(items, list) or len(items) != len(sent):
            raise errors.InvalidResponse("the answer has not one result for every query")
        return [
            _batch_item(as_object(item), documents, query)
            for item, documents, query in zip(items, sent, queries, strict=True)
        ]

    return Call("/batch_rerank", {"pairs": pairs}, read)


def score_call(
    pairs: Sequence[Pair],
    *,
    instruction: str | None,
    model: str | None,
    raw_scores: bool,
    options: Mapping[str, Json],
) -> Call[list[float]]:
    texts: dict[str, Json] = {"queries": [query for query, _ in pairs], "documents": [text for _, text in pairs]}
    body = {**options, **texts}
    if instruction is not None:
        body["instruction"] = instruction
    if model is not None:
        body["model"] = model
    if raw_scores:
        body["use_activation"] = False

    def read(answer: Json) -> list[float]:
        rows = as_object(answer).get("data")
        scores = [as_object(row).get("score") for row in rows] if isinstance(rows, list) else []
        found = [score for score in scores if score is not None and _is_score(score)]
        if not len(found) == len(scores) == len(pairs):
            raise errors.InvalidResponse("the answer has not one score for every pair")
        return found

    return Call("/score", body, read)


def info_call() -> Call[dict[str, Json]]:
    return Call("/info", None, as_object)


def feedback_call(id: str, clicked: Sequence[int], used: Sequence[int]) -> Call[None]:
    return Call("/feedback", {"request_id": id, "clicked": list(clicked), "used": list(used)}, lambda answer: None)


def models_call() -> Call[tuple[ServedModel, ...]]:
    def read(answer: Json) -> tuple[ServedModel, ...]:
        rows = as_object(answer).get("data")
        if not isinstance(rows, list):
            raise errors.InvalidResponse("the answer has no list of models")
        return tuple(_served_model(as_object(row)) for row in rows)

    return Call("/v1/models", None, read)


def health_call() -> Call[dict[str, Json]]:
    # 503 says that the server is unhealthy: an answer to this question, not a failure to answer.
    return Call("/health", None, as_object, also_answers=(503,))


def as_documents(documents: Sequence[str | Document]) -> tuple[Document, ...]:
    if isinstance(documents, str):
        # A string is a sequence of strings too, and every letter would be scored.
        raise TypeError("documents has to be a list of texts, not one text")
    return tuple(Document(document) if isinstance(document, str) else document for document in documents)


def as_object(value: Json) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise errors.InvalidResponse("the answer is not the JSON object that rerankd sends")
    return value


def results_of(
    documents: Sequence[Document],
    scores: Sequence[float | None],
    query: Query,
    rows: Mapping[int, RowFacts] = NO_ROWS,
) -> tuple[tuple[Result, ...], bool | None]:
    """The documents that have a score, best first and as many as the query asks for; and whether none is relevant."""
    scored = [
        Result(index, score, document, *rows.get(index, NO_FACTS))
        for index, (document, score) in enumerate(zip(documents, scores, strict=True))
        if score is not None and (query.threshold is None or score >= query.threshold)
    ]
    # sorted() is stable, so that equal scores keep input order, as the server's own ranking does.
    results = sorted(scored, key=lambda result: -result.score)[: len(scored) if query.top_n is None else query.top_n]
    return tuple(results), None if query.threshold is None else not scored


def _item(query: Query, documents: Sequence[Document], model: str | None) -> dict[str, Json]:
    """One query as the wire has it; what was not given is left out, so that the server's default applies."""
    given = {
        "instruction": query.instruction,
        "top_n": query.top_n,
        "score_threshold": query.threshold,
        "model": model,
    }
    texts = [document.text for document in documents]
    return {**query.options, "query": query.text, "documents": texts} | {
        key: value for key, value in given.items() if value is not None
    }


def _batch_item(
    item: dict[str, Json], documents: tuple[Document, ...], query: Query
) -> RankedResults | errors.StatusError:
    if "error" not in item:
        return _ranked(item, documents, query)
    code, message, param = error_facts(item)
    return BY_CODE.get(code, errors.InvalidRequest)(message or "the query failed", status=0, code=code, param=param)


def _ranked(answer: dict[str, Json], documents: tuple[Document, ...], query: Query) -> RankedResults:
    scores = answer.get("scores")
    if not isinstance(scores, list) or len(scores) != len(documents) or not all(map(_is_score, scores)):
        raise errors.InvalidResponse("the answer has not one score for every document")
    results, nothing_relevant = results_of(documents, scores, query, _row_facts(answer.get("results")))
    return RankedResults(
        results,
        tuple(scores),
        model=text_of(answer.get("model")),
        id=text_of(answer.get("id")),
        usage=_usage(answer.get("usage")),
        errors=_document_errors(answer.get("errors")),
        warnings=_warnings(answer.get("meta")),
        meta=meta if isinstance(meta := answer.get("meta"), dict) else {},
        nothing_relevant=nothing_relevant,
    )


def _row_facts(rows: Json) -> dict[int, RowFacts]:
    """What each row says beside its score, by its document's index."""
    found = {}
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict) and isinstance(row.get("index"), int):
            spans = row.get("relevant_spans")
            spans = [_passage(span) for span in spans] if isinstance(spans, list) else []
            own, rescored = row.get("model_score"), row.get("rescored")
            found[row["index"]] = RowFacts(
                _passage(row.get("best_passage")),
                tuple(span for span in spans if span),
                own if _is_score(own) else None,
                rescored if isinstance(rescored, bool) else None,
            )
    return found


def _passage(value: Json) -> Passage | None:
    if not isinstance(value, dict):
        return None
    start, end, score = (value.get(name) for name in ("start", "end", "score"))
    if isinstance(start, int) and isinstance(end, int) and score is not None and _is_score(score):
        return Passage(start, end, score)
    return None


def _warnings(meta: Json) -> tuple[str, ...]:
    found = meta.get("warnings") if isinstance(meta, dict) else None
    return tuple(text for text in found if isinstance(text, str)) if isinstance(found, list) else ()


def _is_score(value: Json) -> bool:
    if value is None:
        return True
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _document_errors(values: Json) -> tuple[DocumentError, ...]:
    if not isinstance(values, list | None):
        raise errors.InvalidResponse("the errors of the answer are no list")
    return tuple(map(_document_error, values or ()))


def _document_error(value: Json) -> DocumentError:
    facts = as_object(value)
    index = facts.get("index")
    return DocumentError(
        index if isinstance(index, int) else -1, text_of(facts.get("code")), text_of(facts.get("message"))
    )


def _usage(value: Json) -> Usage | None:
    if not isinstance(value, dict):
        return None
    prompt, total = value.get("prompt_tokens"), value.get("total_tokens")
    return Usage(prompt, total) if isinstance(prompt, int) and isinstance(total, int) else None


def _served_model(row: dict[str, Json]) -> ServedModel:
    longest = row.get("max_model_len")
    return ServedModel(text_of(row.get("id")), longest if isinstance(longest, int) else None)
