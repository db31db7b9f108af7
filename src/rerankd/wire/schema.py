"""JSON schemas as data: every field that a dialect may take, written down once."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from rerankd.wire.base import Json

Schema = dict[str, Json]

TEXT: Schema = {"type": "string"}
TEXT_OR_OBJECT: Schema = {
    "anyOf": [TEXT, {"type": "object", "description": 'A text as `{"text": …}` or with `content` parts.'}]
}
TEXTS: Schema = {"anyOf": [TEXT, {"type": "object"}, {"type": "array", "items": TEXT_OR_OBJECT}]}


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
        "model": field(WORDS, "A served name; any other name is answered by the default model."),
        "instruction": field(WORDS, "What makes a document relevant; the model's own where not given."),
        "instruct": field(WORDS, "The same as `instruction`."),
        "top_n": field(COUNT, "How many results to return, the best first; all where not given.", minimum=0),
        "top_k": field(COUNT, "The same as `top_n`.", minimum=1),
        "return_documents": field(FLAG, "Whether the results carry the texts."),
        "raw_scores": field(FLAG, "Whether to return the logit in place of the probability."),
        "truncate": field(FLAG, "Whether to cut a pair that is too long; false makes it an error."),
        "truncation": field(FLAG, "The same as `truncate`."),
        "truncation_direction": choice("Which end is cut off.", "Left", "Right", "left", "right"),
        "max_tokens_per_doc": field(COUNT, "Tokens after which a document is cut.", minimum=0),
        "max_tokens_per_query": field(COUNT, "Tokens after which the query is cut.", minimum=0),
        "priority": field(COUNT, "0 is served first, 999 last."),
        "pairs": {
            "type": "array",
            "items": {"type": "object"},
            "description": "Queries with their documents: each an object as `POST /rerank` takes it.",
        },
    }
)
