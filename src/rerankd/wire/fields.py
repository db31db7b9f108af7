"""Every field of every dialect, once: the parser reads by it and the OpenAPI document shows it.

A dialect lists the fields that its own API knows. Beyond them each reads :data:`COMMON`, so that an option that one
client has a name for may be sent to any path. Several fields may mean the same; the first that says something counts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rerankd.errors import InvalidRequest
from rerankd.types import DEFAULT_SPAN_THRESHOLD, Cascade, LongDocuments, RelevantSpans
from rerankd.wire import schema, values
from rerankd.wire.base import Json
from rerankd.wire.schema import Schema
from rerankd.wire.values import Reader


@dataclass(frozen=True, slots=True)
class Field:
    """One key of a body.

    Attributes:
        name: the key.
        meaning: what it says of a call: an attribute of ``RerankRequest``, or whatever the dialect asks for.
        description: one sentence for the reference.
        schema: of its value, without the description.
        read: the value and its name -> what it means; see ``wire.values``.
        required: whether a body without it is refused.
    """

    name: str
    meaning: str
    description: str
    schema: Schema
    read: Reader
    required: bool = False

    def needed(self) -> Field:
        return replace(self, required=True)

    @property
    def described(self) -> Schema:
        return {**self.schema, "description": self.description}


def check_object(body: Json, where: str = "") -> Mapping[str, Json]:
    if not isinstance(body, dict):
        raise InvalidRequest(f"{where or 'the body'} has to be a JSON object", param=where or None)
    return body


def read_fields(body: Json, fields: Iterable[Field], where: str = "") -> dict[str, Any]:
    """What a body says, by meaning; null counts as not given, unknown keys are ignored.

    Raises:
        InvalidRequest: names the field.
    """
    given = check_object(body, where)
    prefix = f"{where}." if where else ""
    said: dict[str, Any] = {}
    for field in fields:
        value = given.get(field.name)
        if value is None:
            if field.required:
                values.refuse(prefix + field.name, "is missing")
        elif field.meaning not in said and (meant := field.read(value, prefix + field.name)) is not None:
            said[field.meaning] = meant
    return said


def with_common(fields: Iterable[Field]) -> tuple[Field, ...]:
    """A dialect's own fields, then those of the common ones that it has no meaning of its own for."""
    own = tuple(fields)
    named = {field.name for field in own}
    return (*own, *(field for field in COMMON if field.name not in named))


_NO_MODEL = "default/not-specified"
"""What Infinity's client sends for a model that was not named."""


def _model(value: Json, where: str) -> str | None:
    name = values.filled(value, where)
    return None if name == _NO_MODEL else name


def _asks_for_truncation(value: Json, where: str) -> bool:
    """vLLM's clients ask for it by a count of tokens, where -1 stands for the model's own limit."""
    values.whole(least=-1)(value, where)
    return True


def _priority(value: Json, where: str) -> int:
    priority: int = values.whole(least=-(2**63))(value, where)
    return min(max(priority, 0), LOWEST_PRIORITY)


LOWEST_PRIORITY = 999
_MAX_SCORES = 100_000
"""Far above any server's ``max_documents``, which is looked at with the documents."""

QUERY = Field("query", "query", "What is searched for.", schema.TEXT_OR_OBJECT, values.text, required=True)
DOCUMENTS = Field(
    "documents",
    "documents",
    "The texts to be ordered: strings, objects, or one string.",
    schema.TEXTS,
    values.as_sent,
    required=True,
)
TEXTS = Field(
    "texts", "documents", "The texts to be ordered.", {"type": "array", "items": schema.TEXT}, values.as_sent, True
)
INPUT = replace(DOCUMENTS, name="input", description="The texts to be ordered.")
PASSAGES = replace(DOCUMENTS, name="passages", description="The texts to be ordered.")

MODEL = Field(
    "model",
    "model",
    "A served name; any other is answered by the default model unless `strict_models` is set.",
    schema.WORDS,
    _model,
)
INSTRUCTION = Field(
    "instruction",
    "instruction",
    "What makes a document relevant; the model's own where not given.",
    schema.WORDS,
    values.filled,
)
INSTRUCT = replace(INSTRUCTION, name="instruct", description="The same as `instruction`.")
TOP_N = Field(
    "top_n",
    "top_n",
    "How many results to return, the best first; all where not given.",
    schema.count(1),
    values.whole(1),
)
TOP_K = replace(TOP_N, name="top_k", description="The same as `top_n`.")
SCORE_THRESHOLD = Field(
    "score_threshold",
    "score_threshold",
    "The least score of a result. With it the answer says in `nothing_relevant` whether no document reached it.",
    schema.optional("number"),
    values.number,
)
RETURN_DOCUMENTS = Field(
    "return_documents", "return_documents", "Whether the results carry the texts.", schema.FLAG, values.flag
)
RETURN_TEXT = replace(RETURN_DOCUMENTS, name="return_text")
RETURN_INPUT = replace(RETURN_DOCUMENTS, name="return_input")
RAW_SCORES = Field(
    "raw_scores",
    "raw_scores",
    "Whether to return the logit in place of the probability.",
    schema.FLAG,
    values.flag,
)
USE_ACTIVATION = Field(
    "use_activation",
    "raw_scores",
    "false returns the logit in place of the probability.",
    schema.FLAG,
    values.not_flag,
)
TRUNCATE = Field(
    "truncate",
    "truncate",
    "Whether to cut a pair that is too long; false makes it an error.",
    schema.FLAG,
    values.flag,
)
TRUNCATION = replace(TRUNCATE, name="truncation", description="The same as `truncate`.")
TRUNCATE_PROMPT_TOKENS = Field(
    "truncate_prompt_tokens",
    "truncate",
    "Anything from -1 up asks for truncation.",
    schema.count(-1),
    _asks_for_truncation,
)
TRUNCATION_DIRECTION = Field(
    "truncation_direction",
    "truncation_side",
    "Which end is cut off.",
    schema.choice("Left", "Right", "left", "right"),
    values.side,
)
TRUNCATION_SIDE = replace(TRUNCATION_DIRECTION, name="truncation_side", schema=schema.choice("left", "right"))
MAX_TOKENS_PER_DOC = Field(
    "max_tokens_per_doc",
    "max_tokens_per_document",
    "Tokens after which a document is cut.",
    schema.count(),
    values.above_zero,
)
MAX_TOKENS_PER_DOCUMENT = replace(
    MAX_TOKENS_PER_DOC, name="max_tokens_per_document", description="The same as `max_tokens_per_doc`."
)
MAX_TOKENS_PER_QUERY = Field(
    "max_tokens_per_query",
    "max_tokens_per_query",
    "Tokens after which the query is cut.",
    schema.count(),
    values.above_zero,
)
LONG_DOCUMENTS = Field(
    "long_documents",
    "mode",
    "What happens to a document that is too long: `truncate` cuts it, `chunk` scores it passage by passage and says "
    "in `best_passage` which one won, `error` refuses it; the served name's own rule where not given.",
    schema.choice("truncate", "chunk", "error"),
    values.choice("truncate", "chunk", "error"),
)
CHUNK_AGGREGATION = Field(
    "chunk_aggregation",
    "aggregation",
    "How the scores of a document's passages become its own; `top_k_mean` averages the best `chunk_top_k`.",
    schema.choice("max", "first", "mean", "min", "top_k_mean"),
    values.choice("max", "first", "mean", "min", "top_k_mean"),
)
CHUNK_TOP_K = Field(
    "chunk_top_k", "chunk_top_k", "Passages that `top_k_mean` averages.", schema.count(1), values.whole(1)
)
CHUNK_TOKENS = Field(
    "chunk_tokens",
    "chunk_tokens",
    "Tokens of one passage; a document of no more is not split.",
    schema.count(1),
    values.whole(1),
)
CHUNK_OVERLAP_TOKENS = Field(
    "chunk_overlap_tokens",
    "overlap_tokens",
    "Tokens of a passage that stood in the one before, at most a quarter of it.",
    schema.count(),
    values.whole(),
)
MAX_CHUNKS_PER_DOC = Field(
    "max_chunks_per_doc",
    "max_chunks",
    "Passages of one document, no more than the server's own limit; the text behind them is left out.",
    schema.count(1),
    values.whole(1),
)
CHUNKS = (CHUNK_AGGREGATION, CHUNK_TOP_K, CHUNK_TOKENS, CHUNK_OVERLAP_TOKENS, MAX_CHUNKS_PER_DOC)


def _relevant_spans(value: Json, where: str) -> RelevantSpans | None:
    """Cohere's object of ``mode``, ``threshold`` and ``max_spans``."""
    said = read_fields(value, _SPAN_OPTIONS, where)
    if said["enabled"] != "enabled":
        return None
    return RelevantSpans(said.get("threshold", DEFAULT_SPAN_THRESHOLD), said.get("most"))


_SPAN_OPTIONS = (
    Field(
        "mode",
        "enabled",
        "Whether spans are returned.",
        {"enum": ["enabled", "disabled"]},
        values.choice("enabled", "disabled"),
        required=True,
    ),
    Field("threshold", "threshold", "The least score of a span, 0.1.", schema.optional("number"), values.number),
    Field("max_spans", "most", "Spans of one document; all where not given.", schema.count(1), values.whole(1)),
)
RELEVANT_SPANS = Field(
    "relevant_spans",
    "relevant_spans",
    "Asks for the sentences of each ranked document that answer the query: each scored by itself, best first.",
    schema.optional("object", required=["mode"], properties={field.name: field.described for field in _SPAN_OPTIONS}),
    _relevant_spans,
)
FIRST_STAGE_SCORES = Field(
    "first_stage_scores",
    "first_stage_scores",
    "What retrieval said of each document, in their order, on any scale; null for one of which it said nothing. "
    "Documents that are objects may carry it as `first_stage_score` instead.",
    schema.optional("array", items=schema.optional("number")),
    values.numbers(_MAX_SCORES),
)
FUSION = Field(
    "fusion",
    "fusion",
    "How first-stage scores are taken in: `zscore`, the weighted sum of z-scores, or `rrf`, reciprocal ranks; the "
    "served name's own way where not given. `model_score` is then the model's own.",
    schema.choice("none", "zscore", "rrf"),
    values.choice("none", "zscore", "rrf"),
)
FUSION_WEIGHT = Field(
    "fusion_weight",
    "fusion_weight",
    "The model's share of the fused score.",
    schema.optional("number", minimum=0, maximum=1),
    values.share,
)
_CASCADE_OPTIONS = (
    Field(
        "model",
        "model",
        "The served name that orders all documents, or `first_stage` for the order of their first-stage scores.",
        schema.WORDS,
        values.filled,
    ),
    Field("depth", "depth", "Documents that the model then scores.", schema.count(1), values.whole(1)),
    Field(
        "confidence",
        "confidence",
        "Score on, instead, until the first `top_n` are settled with this probability.",
        schema.optional("number", minimum=0, maximum=1),
        values.share,
    ),
)


def _cascade(value: Json, where: str) -> Cascade:
    return Cascade(**read_fields(value, _CASCADE_OPTIONS, where))


CASCADE = Field(
    "cascade",
    "cascade",
    "A cheap order of all documents first, then the model's scores for the best of them.",
    schema.optional("object", properties={field.name: field.described for field in _CASCADE_OPTIONS}),
    _cascade,
)
STAGES = (FIRST_STAGE_SCORES, FUSION, FUSION_WEIGHT, CASCADE)
PRIORITY = Field("priority", "priority", "0 is served first, 999 last.", schema.optional("integer"), _priority)
USER = Field(
    "user",
    "user",
    "Who asks, for experiments, where no header says it.",
    schema.optional("string"),
    values.user,
)
RANK_FIELDS = Field(
    "rank_fields",
    "rank_fields",
    "Keys of an object that are its text, in this order.",
    schema.optional("array", items=schema.TEXT, maxItems=values.MAX_RANK_FIELDS),
    values.names,
)
KWARGS = Field(
    "kwargs",
    "instruction",
    'Xinference: a JSON object in a string, `"{"instruction": …}"`.',
    schema.WORDS,
    values.instruction_in_words,
)
CHAT_TEMPLATE_KWARGS = Field(
    "chat_template_kwargs",
    "instruction",
    "vLLM: an object that may hold `instruction`.",
    schema.OBJECT,
    values.instruction_inside,
)

THRESHOLDS = (
    SCORE_THRESHOLD,
    *(
        replace(SCORE_THRESHOLD, name=name, description="The same as `score_threshold`.")
        for name in ("threshold", "min_score", "relevance_threshold", "similarity_threshold")
    ),
)

COMMON: tuple[Field, ...] = (
    *(MODEL, INSTRUCTION, INSTRUCT, CHAT_TEMPLATE_KWARGS, KWARGS),
    *(TOP_N, TOP_K, *THRESHOLDS, RETURN_DOCUMENTS, RAW_SCORES, USE_ACTIVATION, RANK_FIELDS),
    *(TRUNCATE, TRUNCATION, TRUNCATE_PROMPT_TOKENS, TRUNCATION_DIRECTION, TRUNCATION_SIDE),
    *(MAX_TOKENS_PER_DOC, MAX_TOKENS_PER_DOCUMENT, MAX_TOKENS_PER_QUERY, PRIORITY, USER),
    *(LONG_DOCUMENTS, *CHUNKS, RELEVANT_SPANS, *STAGES),
)
"""What every dialect reads, whether or not its own API has a name for it."""

REQUEST_OPTIONS = frozenset(
    (
        *("model", "instruction", "top_n", "truncate", "truncation_side", "max_tokens_per_document"),
        *("max_tokens_per_query", "priority", "relevant_spans", "user"),
        *("first_stage_scores", "fusion", "fusion_weight", "cascade"),
    )
)
"""Meanings that are attributes of ``RerankRequest``."""

_LONG_DOCUMENTS = frozenset(field.name for field in dataclasses.fields(LongDocuments))
"""Meanings that are attributes of ``RerankRequest.long_documents``."""


def request_options(said: Mapping[str, Any]) -> dict[str, Any]:
    """What a body says of each of its requests."""
    options = {name: said[name] for name in said.keys() & REQUEST_OPTIONS}
    if not _LONG_DOCUMENTS.isdisjoint(said):
        options["long_documents"] = LongDocuments(**{name: said[name] for name in said.keys() & _LONG_DOCUMENTS})
    return options
