"""Questions with a probability for an answer, as pairs: what the decision endpoints share.

A reranker computes the probability that a document meets an instruction and a query. So every question becomes one
pair or several, and all pairs of a call go through the engine together:

=========== =================================================================================================
a yes or no one pair; the answer is its score
a choice    one pair an option, with "Answer: <option>" behind the question; the softmax over their logits
a score     one pair a level, in the same way; the expected value of the softmax, levels counting from 0
=========== =================================================================================================

The probabilities of a choice and a score are of one option against the others, not of each against "none of them".

What becomes what: a question about a query and a document (see each dialect) is the instruction, and the two are the
pair. Any other question is the query, and what it is asked about is the document.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from rerankd.errors import InvalidRequest, ServiceError, TooLarge
from rerankd.types import DocumentScore, RerankRequest, RerankResult
from rerankd.wire import values
from rerankd.wire.base import Json, ParsedCall, ReadLimits
from rerankd.wire.documents import require_all_scored
from rerankd.wire.fields import request_options

Kind: TypeAlias = Literal["yes_or_no", "choice", "score"]

PLAIN_INSTRUCTION = "Given a question, judge whether the document shows that its answer is yes"
"""The instruction of a question that is not about a query and a document."""

MAX_OPTIONS = 255
"""Options or levels of one question."""

_MARKER = re.compile(r"<(?:document|passage)>|\b(?:document|passage|candidate)\s{0,4}:", re.IGNORECASE)
_END = re.compile(r"</(?:document|passage)>\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Ask:
    """One pair: the texts of a prompt."""

    instruction: str
    query: str
    document: str

    def answered(self, option: str) -> Ask:
        """Whether that is the answer to the question, wherever the question stands."""
        answer = f"\nAnswer: {option}"
        if self.instruction == PLAIN_INSTRUCTION:
            return replace(self, query=self.query + answer)
        return replace(self, instruction=self.instruction + answer)


@dataclass(frozen=True, slots=True)
class Option:
    """One answer to choose."""

    value: str | bool
    description: str = ""

    @property
    def text(self) -> str:
        value = str(self.value).lower() if isinstance(self.value, bool) else self.value
        return f"{value} ({self.description})" if self.description else value


@dataclass(frozen=True, slots=True)
class Question:
    """A question as its dialect read it; ``options`` of a yes or no are none."""

    name: str | None
    kind: Kind
    ask: Ask
    options: tuple[Option, ...] = ()

    def asks(self) -> list[Ask]:
        return [self.ask.answered(option.text) for option in self.options] if self.options else [self.ask]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the scores say to a question.

    Attributes:
        value: the probability of yes, the place of the likeliest option, or the expected level.
        probabilities: of each option.
    """

    question: Question
    value: float
    probabilities: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class QuestionsEcho:
    """The questions, and where the score of each of their pairs is found: (request, document)."""

    questions: tuple[Question, ...]
    places: tuple[tuple[int, int], ...]


def question_texts(instructions: str) -> tuple[str, str] | None:
    """A question that carries its document, as the question and the document; None where it carries none.

    ``Is this relevant? Document: …`` and ``… <document>…</document>`` are what rerank packages write.
    """
    marker = _MARKER.search(instructions)
    if marker is None:
        return None
    document = _END.sub("", instructions[marker.end() :].strip()).strip()
    question = instructions[: marker.start()].strip()
    return (question, document) if question and document else None


def read_options(value: Json, where: str) -> tuple[Option, ...]:
    """Options or levels: texts, objects with a value or label, or an object of descriptions by name."""
    if isinstance(value, dict):
        value = [{"value": name, "description": text} for name, text in value.items()]
    found = values.items(value, where, MAX_OPTIONS, setting=None)
    options = tuple(_option(item, f"{where}[{index}]") for index, item in enumerate(found))
    if len(options) < 2 or len({(type(option.value), option.value) for option in options}) < len(options):
        values.refuse(where, "has to hold at least two options, each once")
    return options


def _option(item: Json, where: str) -> Option:
    if isinstance(item, str | bool):
        return Option(item)
    if not isinstance(item, dict):
        values.refuse(where, "has to be a text, or an object with `value` or `label`")
    value = next((item[name] for name in ("value", "label", "name") if item.get(name) is not None), None)
    if not isinstance(value, str | bool):
        values.refuse(where, "has to be a text, or an object with `value` or `label`")
    description = item.get("description")
    return Option(value, "" if description is None else values.flat(description))


def call_for_questions(said: Mapping[str, Any], questions: Sequence[Question], limits: ReadLimits) -> ParsedCall:
    """Pairs of the same instruction and query are one request, so that the engine reads those once.

    Raises:
        TooLarge: more such requests than a call may have queries, more pairs in one than documents, or more
            characters to read than those of a request.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    order: dict[tuple[str, str], int] = {}
    places = []
    characters = 0
    for ask in _all_asks(questions):
        # Every question may be about the same long text, and each reads it anew.
        characters += len(ask.document)
        if characters > limits.max_characters:
            raise TooLarge(
                f"the documents of all questions have more than {limits.max_characters} characters, the limit",
                setting="max_request_characters",
            )
        key = (ask.instruction, ask.query)
        number = order.setdefault(key, len(order))
        group = groups.setdefault(key, [])
        if number == limits.max_queries:
            raise TooLarge(f"the questions make more than {number} queries, the limit", setting="max_queries")
        if len(group) == limits.max_documents:
            raise TooLarge(f"the questions name more than {len(group)} documents, the limit", setting="max_documents")
        places.append((number, len(group)))
        group.append(ask.document)
    requests = tuple(
        RerankRequest(
            **request_options(said) | {"query": query, "documents": tuple(texts), "instruction": instruction}
        )
        for (instruction, query), texts in groups.items()
    )
    return ParsedCall(requests, QuestionsEcho(tuple(questions), tuple(places)))


def _all_asks(questions: Iterable[Question]) -> Iterable[Ask]:
    return (ask for question in questions for ask in question.asks())


def answers_of(call: ParsedCall, results: Sequence[RerankResult | ServiceError]) -> list[Answer]:
    """An answer a question, in order; the error of any pair is raised."""
    scored = [require_all_scored(result) for result in results]
    echo: QuestionsEcho = call.echo
    scores = iter([scored[request].scores[document] for request, document in echo.places])
    return [_answer(question, [next(scores) for _ in question.asks()]) for question in echo.questions]


def _answer(question: Question, scores: Sequence[DocumentScore]) -> Answer:
    if question.kind == "yes_or_no":
        score = scores[0].score or 0.0
        return Answer(question, score, (score,))
    shares = softmax([score.logit or 0.0 for score in scores])
    if question.kind == "score":
        return Answer(question, sum(level * share for level, share in enumerate(shares)), shares)
    return Answer(question, max(range(len(shares)), key=shares.__getitem__), shares)


def softmax(logits: Sequence[float]) -> tuple[float, ...]:
    largest = max(logits)
    powers = [math.exp(logit - largest) for logit in logits]
    total = sum(powers)
    return tuple(power / total for power in powers)


def read_instructions(value: Json, where: str) -> str:
    """A text, or a list of parts of text and JSON; anything else, images above all, is refused."""
    text = value if isinstance(value, str) else parts_text(value, where)
    if not text.strip():
        raise InvalidRequest(f"{where} must not be empty or blank", param=where)
    return text


def parts_text(value: Json, where: str) -> str:
    """The parts of a message as lines."""
    parts = values.items(value, where, values.MAX_PARTS, setting=None)
    return "\n".join(_part_text(part, f"{where}[{index}]") for index, part in enumerate(parts))


def _part_text(part: Json, where: str) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        return str(part["text"])
    if isinstance(part, dict) and "json" in str(part.get("type", "")):
        return values.flat(next((part[name] for name in ("json", "value", "data") if name in part), None))
    return values.refuse(where, "has to be a part with text; images and files are not read")
