"""JSON schemas as data: every field that a dialect may take, written down once."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from rerankd.wire.base import Json

Schema = dict[str, Json]

TEXT: Schema = {"type": "string"}
_PART: Schema = {"type": "object", "required": ["text"], "properties": {"type": {"const": "text"}, "text": TEXT}}
_OBJECTS: list[Schema] = [
    {"type": "object", "required": ["text"], "properties": {"text": TEXT}},
    {
        "type": "object",
        "required": ["content"],
        "properties": {"content": {"anyOf": [TEXT, {"type": "array", "items": _PART, "minItems": 1}]}},
    },
]
TEXT_OR_OBJECT: Schema = {"anyOf": [TEXT, *_OBJECTS]}
TEXTS: Schema = {"anyOf": [TEXT, *_OBJECTS, {"type": "array", "items": TEXT_OR_OBJECT, "minItems": 1}]}


def field(kind: str, description: str, **more: Json) -> Schema:
    """An optional field: null means not given."""
    return {"type": [kind, "null"], "description": description, **more}


def choice(description: str, *values: str) -> Schema:
    return {"enum": [*values, None], "description": description}


FLAG = "boolean"
COUNT = "integer"
WORDS = "string"

FIELDS: Mapping[str, Schema] = MappingProxyType(
    {
        "query": {**TEXT_OR_OBJECT, "description": "What is searched for."},
        "documents": {**TEXTS, "description": "The texts to be ordered: strings, objects, or one string."},
        "texts": {"type": "array", "items": TEXT, "description": "The texts to be ordered."},
        "model": field(
            WORDS, "A served name; any other is answered by the default model unless `strict_models` is set."
        ),
        "instruction": field(WORDS, "What makes a document relevant; the model's own where not given."),
        "instruct": field(WORDS, "The same as `instruction`."),
        "top_n": field(COUNT, "How many results to return, the best first; all where not given.", minimum=1),
        "top_k": field(COUNT, "The same as `top_n`.", minimum=1),
        "return_documents": field(FLAG, "Whether the results carry the texts."),
        "raw_scores": field(FLAG, "Whether to return the logit in place of the probability."),
        "truncate": field(FLAG, "Whether to cut a pair that is too long; false makes it an error."),
        "truncation": field(FLAG, "The same as `truncate`."),
        "truncation_direction": choice("Which end is cut off.", "Left", "Right", "left", "right"),
        "max_tokens_per_doc": field(COUNT, "Tokens after which a document is cut.", minimum=0),
        "max_tokens_per_query": field(COUNT, "Tokens after which the query is cut.", minimum=0),
        "priority": field(COUNT, "0 is served first, 999 last."),
        "input": {**TEXTS, "description": "The texts to be ordered."},
        "inputs": {"type": "array", "description": "A pair [query, text], or a list of such pairs."},
        "passages": {**TEXTS, "description": "The texts to be ordered."},
        "parameters": {"type": ["object", "null"], "description": "`top_n`, `return_documents`, `instruct`."},
        "queries": {**TEXTS, "description": "One query, or as many as documents."},
        "items": {**TEXTS, "description": "The same as `documents`."},
        **{name: {**TEXTS, "description": "The same as `queries`."} for name in ("data_1", "text_1")},
        **{name: {**TEXTS, "description": "The same as `documents`."} for name in ("data_2", "text_2")},
        "return_text": field(FLAG, "Whether the results carry the texts."),
        "return_input": field(FLAG, "Whether the results carry the texts."),
        "rank_fields": field("array", "Keys of an object that are its text, in this order.", items=TEXT),
        "kwargs": field(WORDS, 'Xinference: a JSON object in a string, `"{"instruction": …}"`.'),
        "chat_template_kwargs": field("object", "vLLM: an object that may hold `instruction`."),
        "use_activation": field(FLAG, "false returns the logit in place of the probability."),
        "truncate_prompt_tokens": field(COUNT, "Anything from -1 up asks for truncation.", minimum=-1),
        "truncation_side": choice("Which end is cut off.", "left", "right"),
        "nvidia.truncate": choice("NONE refuses what is too long, END cuts it.", "NONE", "END"),
        "dashscope.input": {
            "type": "object",
            "required": ["query", "documents"],
            "properties": {"query": TEXT_OR_OBJECT, "documents": TEXTS},
            "description": "The query and the texts to be ordered.",
        },
        "pairs": {
            "type": "array",
            "items": {"type": "object"},
            "description": "Queries with their documents: each an object as `POST /rerank` takes it.",
        },
    }
)
"""Name of a field -> its schema; ``<dialect>.<field>`` where one dialect means something else by a name."""
