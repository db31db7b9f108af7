"""POST /v1/systemone: named questions about one state, as local model servers answer them.

What the state is to a question:

* an object with ``query`` and a document that the question names (`` `document` ``, ``documents.D00``, ``passage``),
  or that is the only one there: the question is the instruction, with the name of the document made the same for all,
  so that a hundred questions about a hundred documents are one request;
* an object of instructions that holds a document of its own (``{"question", "document"}``) is about that one;
* anything else: the question is the query, the whole state the document.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

from rerankd.errors import ServiceError
from rerankd.types import RerankResult
from rerankd.wire import values
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
    read_instructions,
    read_options,
)

KINDS: Mapping[str, Kind] = {"noul": "yes_or_no", "choice": "choice", "score": "score"}
DOCUMENT_NAMES = ("document", "passage", "text", "content", "candidate", "chunk")
"""Fields of a state that hold its only document."""

QUESTION_NAMES = ("question", "instructions", "instruction")
"""Keys of the question in an object of instructions."""

_NAMED = re.compile(r"`([^`\n]{1,200})`|\b((?:documents|passages|candidates|chunks)(?:\.|\[)[\w\"'.-]{1,100}\]?)")
_INDEX = re.compile("[0-9]{1,6}")
_STEP = re.compile(r"[^.\[\]\"']+")

STATE = Field(
    "state",
    "state",
    "What the questions are about: a text, or an object with `query` and `document`, `passage` or `documents`.",
    {"anyOf": [{"type": kind} for kind in ("string", "object", "array")]},
    values.as_sent,
    required=True,
)
QUESTIONS = Field(
    "questions",
    "questions",
    "Questions by name: objects with `type` (`noul`, `choice`, `score`), `instructions`, and `criteria`.",
    {"type": "object", "minProperties": 1},
    values.as_sent,
    required=True,
)


class SystemOne:
    """A probability of yes a question (``noul``)."""

    name = "systemone"
    title = "Decisions by name (`/v1/systemone`)"
    keys = ("state", "questions")
    fields = (STATE, QUESTIONS, MODEL)
    example: ClassVar[Json] = {
        "state": {"query": "capital of France", "documents": {"D00": "Berlin", "D01": "Paris"}},
        "questions": {
            "D00": {"type": "noul", "instructions": "Is `documents.D00` relevant to `query`?"},
            "D01": {"type": "noul", "instructions": "Is `documents.D01` relevant to `query`?"},
        },
    }
    sometimes: ClassVar[Mapping[str, Json]] = {}
    other_bodies: ClassVar[tuple[Json, ...]] = ()

    def parse(self, body: Json, limits: ReadLimits) -> ParsedCall:
        said = read_fields(body, with_common(self.fields))
        asked = check_object(said["questions"], "questions")
        values.items(list(asked), "questions", limits.max_pairs)
        state = _State(said["state"])
        return call_for_questions(said, [_question(name, row, state) for name, row in asked.items()], limits)

    def render(self, call: ParsedCall, results: Sequence[RerankResult | ServiceError]) -> WireResponse:
        answers = {answer.question.name: _shown(answer) for answer in answers_of(call, results)}
        scored = [require_all_scored(result) for result in results]
        tokens = sum(result.prompt_tokens for result in scored)
        usage = {"input_tokens": tokens, "output_tokens": 0}
        return WireResponse({"model": scored[0].model, "answers": answers, "usage": usage})

    def render_error(self, error: ServiceError, request_id: str) -> WireResponse:
        return openai_error(error, request_id)


def _question(name: str, row: Json, state: _State) -> Question:
    # The name is the client's own text and is not repeated.
    where = "questions.*"
    given = check_object(row, where)
    kind = KINDS.get(given.get("type", "noul")) if isinstance(given.get("type", "noul"), str) else None
    if kind is None:
        values.refuse(f"{where}.type", f"has to be one of {', '.join(KINDS)}")
    instructions, document = _instructions(given.get("instructions"), f"{where}.instructions")
    criteria = given.get("criteria")
    if kind == "yes_or_no":
        return Question(name, kind, state.ask(_with_criteria(instructions, criteria), document))
    names = ("criteria", "options", "choices", "levels")
    options = next((given[name] for name in names if given.get(name) is not None), None)
    return Question(name, kind, state.ask(instructions, document), read_options(options, f"{where}.criteria"))


def _instructions(value: Json, where: str) -> tuple[str, str | None]:
    """The question, and the document of an object that holds both."""
    if not isinstance(value, dict):
        return read_instructions(value, where), None
    question = next((value[name] for name in QUESTION_NAMES if name in value), None)
    document = next((value[name] for name in DOCUMENT_NAMES if isinstance(value.get(name), str)), None)
    return read_instructions(value if question is None else question, where), None if question is None else document


def _with_criteria(instructions: str, criteria: Json) -> str:
    return instructions if criteria is None else f"{instructions}\nCriteria: {values.flat(criteria)}"


class _State:
    """What the questions of a call are about; its text is made once, however many there are."""

    def __init__(self, state: Json) -> None:
        self._state = state
        self._whole: str | None = None
        query = state.get("query") if isinstance(state, dict) else None
        self._query = query if isinstance(query, str) and query.strip() else None

    def ask(self, instructions: str, document: str | None) -> Ask:
        if document is not None:
            query = self._query
            return (
                Ask(PLAIN_INSTRUCTION, instructions, document)
                if query is None
                else Ask(instructions, query, document)
            )
        if self._query is not None and (found := self._document(instructions)) is not None:
            return Ask(found[0], self._query, found[1])
        if self._whole is None:
            self._whole = values.flat(self._state)
        return Ask(PLAIN_INSTRUCTION, instructions, self._whole)

    def _document(self, instructions: str) -> tuple[str, str] | None:
        """The question with its document named ``document``, and that document."""
        for name in _NAMED.finditer(instructions):
            path = name[1] or name[2]
            text = self._find(path)
            if text is None:
                text = self._find(f"documents.{path}")
            if text is not None:
                return f"{instructions[: name.start()]}`document`{instructions[name.end() :]}", text
        texts = [self._state[name] for name in DOCUMENT_NAMES if isinstance(self._state.get(name), str)]
        return (instructions, texts[0]) if len(texts) == 1 else None

    def _find(self, path: str) -> str | None:
        """The text at a path into the state, such as ``documents.D00`` or ``documents[0].text``; not the query."""
        value: Json = self._state
        steps = _STEP.findall(path)
        for step in steps:
            if isinstance(value, dict):
                value = value.get(step)
            elif isinstance(value, list) and _INDEX.fullmatch(step) and int(step) < len(value):
                value = value[int(step)]
            else:
                return None
        if isinstance(value, dict):
            value = value.get("text")
        return value if isinstance(value, str) and steps != ["query"] else None


def _shown(answer: Answer) -> dict[str, Json]:
    question = answer.question
    if question.kind == "yes_or_no":
        return {"type": "noul", "noul": answer.value}
    shares = {
        option.text if isinstance(option.value, bool) else option.value: share
        for option, share in zip(question.options, answer.probabilities, strict=True)
    }
    if question.kind == "score":
        return {"type": "score", "score": answer.value, "probabilities": shares}
    return {"type": "choice", "choice": question.options[int(answer.value)].value, "probabilities": shares}
