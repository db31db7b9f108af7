"""Requests that can be doubled: for every dialect and every field a value of about as many bytes as are asked for.

Nobody lists the fields here: they come from the dialects' own tables, so that a new field is measured from its first
day. What a value of a field looks like is a shape; each field is tried with each.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rerankd.wire.base import Dialect
from rerankd.wire.fields import COMMON, Field
from rerankd.wire.registry import ROUTES, Route

Shape = Callable[[int], str]


def repeated(item: str, start: str = "[", end: str = "]") -> Shape:
    """As many of an item as fit, between a start and an end."""

    def make(size: int) -> str:
        return start + ",".join([item] * max(1, size // (len(item) + 1))) + end

    return make


def numbered(item: str, start: str = "[", end: str = "]") -> Shape:
    """The same with a number in each, so that no two are equal."""

    def make(size: int) -> str:
        return start + ",".join(item % number for number in range(max(1, size // (len(item) + 4)))) + end

    return make


def long_text(piece: str) -> Shape:
    return lambda size: '"' + piece * (size // len(piece)) + '"'


SHAPES: dict[str, Shape] = {
    "a long text": long_text("word "),
    "a text of digits": long_text("1"),
    "a text of quotes": long_text('\\"'),
    "a text of escapes": long_text("\\u00e9"),
    "a text of half pairs": long_text("\\ud83d"),
    "a text of brackets": long_text("["),
    "a text of blanks": long_text(" "),
    "a text of backticks": long_text("`a`"),
    "JSON in a text": long_text('{\\"a\\":[1]} '),
    "equal texts": repeated('"a"'),
    "different texts": numbered('"text %d"'),
    "empty texts": repeated('""'),
    "half pairs": repeated('"\\ud83d"'),
    "texts of a thousand": repeated('"' + "x" * 1000 + '"'),
    "objects with text": repeated('{"text":"a"}'),
    "candidates": numbered('{"id":"%d","text":"a"}'),
    "objects with content": repeated('{"content":[{"type":"text","text":"a"}]}'),
    "one object of many parts": repeated('{"type":"text","text":"a"}', '{"content":[', "]}"),
    "pairs of texts": repeated('["q","d"]'),
    "different pairs": numbered('["q%d","d"]'),
    "pairs as objects": numbered('{"text":"q%d","text_pair":"d"}'),
    "queries with documents": numbered('{"query":"q%d","documents":["a","b"]}'),
    "one query with documents": repeated('"a"', '[{"query":"q","documents":[', "]}]"),
    "questions": numbered('{"type":"predicate","instructions":"Is it %d?"}'),
    "questions with documents": numbered('{"type":"predicate","instructions":"Relevant? Document: %d"}'),
    "a question of many options": numbered('"%d"', '[{"type":"choice","instructions":"?","choices":[', "]}]"),
    "named questions": numbered('"n%d":{"type":"noul","instructions":"Is `documents.D00` relevant?"}', "{", "}"),
    "a query with named documents": numbered('"D%d":"text"', '{"query":"q","documents":{', "}}"),
    "a query with listed documents": repeated('"text"', '{"query":"q","documents":[', "]}"),
    "messages": repeated('{"role":"user","content":"hello"}'),
    "a wide object": numbered('"k%d":1', "{", "}"),
    "a deep object": lambda size: '{"a":' * min(20, size) + '"' + "x" * size + '"' + "}" * min(20, size),
    "empty lists": repeated("[]"),
    "empty objects": repeated("{}"),
    "numbers": repeated("1"),
    "a long number": lambda size: "1" * size,
    "nulls": repeated("null"),
}

TELLING = (
    *("a long text", "a text of quotes", "a text of half pairs", "a text of backticks", "equal texts", "half pairs"),
    *(
        "different texts",
        "objects with text",
        "different pairs",
        "queries with documents",
        "one query with documents",
    ),
    *("named questions", "questions", "a question of many options", "a wide object", "empty lists"),
)
"""Shapes that between them reach every reader of a list, an object and a text."""

RAW: dict[str, Shape] = {
    "brackets, then an open text of quotes": lambda size: "[" * (size // 2) + '"' + '\\"' * (size // 4),
    "brackets and quotes in turn": lambda size: '["' * (size // 2),
    "brackets, then backslashes": lambda size: "[" * (size // 2) + "\\" * (size // 2),
    "braces": lambda size: '{"a":' * (size // 5),
    "blanks": lambda size: " " * size,
    "quotes": lambda size: '"' * size,
    "texts without commas": lambda size: '""' * (size // 2),
}
"""Bodies that are no object of any dialect, and mostly no JSON."""


@dataclass(frozen=True)
class Case:
    """Something to double.

    Attributes:
        route: where it is sent.
        dialect: whose body it is.
        field: what grows; None where the body itself does.
        shape: of its value.
        body: a body of about so many bytes.
    """

    route: Route
    dialect: Dialect
    field: Field | None
    shape: str
    body: Callable[[int], bytes]

    @property
    def where(self) -> str:
        return f"{self.dialect.name} {self.field.name if self.field else 'body'}"


def cases() -> Iterator[Case]:
    """Every dialect at one path, with each of its own fields in each shape; the common fields at one path."""
    seen: set[str] = set()
    for route in ROUTES:
        for dialect in route.dialects:
            if dialect.name in seen:
                continue
            seen.add(dialect.name)
            common = COMMON if dialect.name == "superset" else ()
            for field in {field.name: field for field in (*common, *dialect.fields)}.values():
                for shape, make in SHAPES.items():
                    yield Case(route, dialect, field, shape, grown(dialect, field.name, make))
    for name, make in RAW.items():
        yield Case(ROUTES[0], ROUTES[0].dialects[0], None, name, lambda size, make=make: make(size).encode())  # type: ignore[misc]


def few_cases() -> Iterator[Case]:
    """Each reader of a field once, at the first dialect that has it, in the telling shapes."""
    seen = set()
    for case in cases():
        key = (case.field and (case.field.meaning, case.field.read), case.shape)
        if key not in seen and (case.field is None or case.shape in TELLING):
            seen.add(key)
            yield case


def grown(dialect: Dialect, field: str, shape: Shape) -> Callable[[int], bytes]:
    """The dialect's example with a value of that shape in one field."""
    rest = {name: value for name, value in dialect.example.items() if name != field}
    if field == "rank_fields":
        rest["documents"] = [{"t": "text " * 20}] * 50
    start = json.dumps(rest)[:-1] + (", " if rest else "")
    return lambda size: f'{start}"{field}": {shape(size)}}}'.encode()


def exponent(sizes: Sequence[int], costs: Sequence[float]) -> float:
    """The slope of a least-squares line through the logarithms: 1 is linear, 2 is quadratic."""
    xs, ys = [math.log(size) for size in sizes], [math.log(max(cost, 1e-9)) for cost in costs]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)
