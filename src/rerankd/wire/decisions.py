"""OpenAI: POST /v1/decisions, questions about one input.

A question that carries a document (``Is this relevant? Document: …``, as rerank packages ask) is judged with the
input as the query. Of any other the input is the document: a text, or a conversation as its lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from rerankd.errors import ServiceError
from rerankd.types import RerankResult
from rerankd.wire import schema, values
from rerankd.wire.base import Json, ParsedCall, ReadLimits, WireResponse
from rerankd.wire.documents import require_all_scored
from rerankd.wire.error_shapes import openai_error
from rerankd.wire.fields import MODEL, Field, check_object, read_fields, with_common
from rerankd.wire.questions import (
    PLAIN_INSTRUCTION,
    Answer,
    Ask,
    Kind,
    Question,
    answers_of,
    call_for_questions,
    parts_text,
    question_texts,
    read_instructions,
    read_options,
)

KINDS: Mapping[str, Kind] = {"predicate": "yes_or_no", "choice": "choice", "score": "score"}

INPUT = Field(
    "input",
    "input",
    "What the questions are about: a text, or a list of messages.",
    {"anyOf": [schema.TEXT, {"type": "array", "items": {"type": "object"}, "minItems": 1}]},
    values.as_sent,
    required=True,
)
QUESTIONS = Field(
    "questions",
    "questions",
    "Questions: objects with `type` (`predicate`, `choice`, `score`), `instructions`, `name`, `choices`, `levels`.",
    {"type": "array", "items": {"type": "object"}, "minItems": 1},
    values.as_sent,
    required=True,
)


class Decisions:
    """A probability a predicate."""

    name = "decisions"
    title = "OpenAI decisions"
    keys = ("input", "questions")
    fields = (INPUT, QUESTIONS, MODEL)
    example: ClassVar[Json] = {
        "model": "tiny",
        "input": "capital of France",
        "questions": [
            {"type": "predicate", "name": "first", "instructions": "Is this relevant? Document: Berlin"},
            {"type": "predicate", "name": "second", "instructions": "Is this relevant? Document: Paris"},
        ],
    }
    sometimes: ClassVar[Mapping[str, Json]] = {}
    other_bodies: ClassVar[tuple[Json, ...]] = (
        {
            "input": "Paris is the capital of France.",
            "questions": [
                {
                    "type": "choice",
                    "instructions": "Which country?",
                    "choices": [{"value": "France"}, {"value": "Chad"}],
                },
                {"type": "score", "instructions": "How clear?", "levels": [{"label": "vague"}, {"label": "clear"}]},
            ],
        },
    )

    def parse(self, body: Json, limits: ReadLimits) -> ParsedCall:
        said = read_fields(body, with_common(self.fields))
        asked = said["questions"]
        if not isinstance(asked, list):
            values.refuse("questions", "has to be a list of objects")
        rows = values.items(asked, "questions", limits.max_pairs)
        about = _input_text(said["input"])
        questions = [_question(row, f"questions[{index}]", about) for index, row in enumerate(rows)]
        return call_for_questions(said, questions, limits)

    def render(self, call: ParsedCall, results: Sequence[RerankResult | ServiceError]) -> WireResponse:
        scored = [require_all_scored(result) for result in results]
        tokens = sum(result.prompt_tokens for result in scored)
        usage = {
            "input_tokens": tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": 0,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": tokens,
        }
        answers = [_shown(answer) for answer in answers_of(call, results)]
        return WireResponse({"model": scored[0].model, "answers": answers, "usage": usage})

    def render_error(self, error: ServiceError, request_id: str) -> WireResponse:
        return openai_error(error, request_id)


def _input_text(value: Json) -> str:
    if isinstance(value, str):
        return read_instructions(value, "input")
    if not isinstance(value, list):
        values.refuse("input", "has to be a text or a list of messages")
    rows = values.items(value, "input", values.MAX_PARTS, setting=None)
    return "\n".join(_message_text(row, f"input[{index}]") for index, row in enumerate(rows))


def _message_text(row: Json, where: str) -> str:
    """One line of a conversation: a message, or what a tool was asked and answered."""
    given = check_object(row, where)
    for name in ("content", "output", "arguments", "input"):
        content = given.get(name)
        if content is not None:
            text = content if isinstance(content, str) else parts_text(content, f"{where}.{name}")
            role = given.get("role", given.get("name"))
            return f"{role}: {text}" if isinstance(role, str) else text
    return values.refuse(where, "has to be a message with content")


def _question(row: Json, where: str, about: str) -> Question:
    given = check_object(row, where)
    kind = KINDS.get(given["type"]) if isinstance(given.get("type"), str) else None
    if kind is None:
        values.refuse(f"{where}.type", f"has to be one of {', '.join(KINDS)}")
    name = given.get("name")
    if name is not None:
        values.string(name, f"{where}.name")
    ask = _ask(read_instructions(given.get("instructions"), f"{where}.instructions"), about)
    if kind == "yes_or_no":
        return Question(name, kind, ask)
    key = "choices" if kind == "choice" else "levels"
    return Question(name, kind, ask, read_options(given.get(key), f"{where}.{key}"))


def _ask(instructions: str, about: str) -> Ask:
    found = question_texts(instructions)
    return Ask(PLAIN_INSTRUCTION, instructions, about) if found is None else Ask(found[0], about, found[1])


def _shown(answer: Answer) -> dict[str, Json]:
    question, shares = answer.question, answer.probabilities
    if question.kind == "yes_or_no":
        return {"type": "predicate", "name": question.name, "probability": answer.value}
    common = {"name": question.name, "confidence": max(shares)}
    if question.kind == "choice":
        rows = [
            {"value": option.value, "probability": share}
            for option, share in zip(question.options, shares, strict=True)
        ]
        return {
            "type": "choice",
            "choice": question.options[int(answer.value)].value,
            **common,
            "probabilities": rows,
        }
    levels = [
        {
            "label": option.text if isinstance(option.value, bool) else option.value,
            "value": level,
            "probability": share,
        }
        for level, (option, share) in enumerate(zip(question.options, shares, strict=True))
    ]
    return {"type": "score", "score": answer.value, **common, "probabilities": levels}
