"""The prompt as data: which control tokens and which texts stand around the instruction, query and document.

A template is a sequence of parts. A ``control`` part is encoded with the tokenizer's added tokens (``<|im_start|>``
and the like), a ``text`` part without them, so that nothing a client sends can become a control token. The
tokenizer reads each part by itself; the fields stand in text parts alone: ``{instruction}``, ``{query}`` and
``{document}``. ``{query:strip}`` is a value without the white space around it, and in ``{Instruct: |instruction|. }``
the texts before and behind a value are there only where the value is not empty.

Another pointwise reranker is a row of ``templates.py``, or a ``template.json`` beside its weights:

    {"name": "mine",
     "parts": [{"control": "<bos>"}, {"text": "{query}"}, {"control": "<sep>"}, {"text": "{document}"}],
     "head": {"kind": "words", "positive": "yes", "negative": "no"}, "scale": 1.0, "bias": 0.0,
     "default_instruction": ""}
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from rerankd.errors import ConfigurationError
from rerankd.files import read_json_object

FIELDS = ("instruction", "query", "document")

_RULES = 2
"""Goes up when the same template starts to give other ids (truncation, normalisation), so that cached scores die."""
_MAX_FILE_BYTES = 64 * 1024
"""Of a template.json: what stands around every single pair."""
_FIELD = re.compile(r"\{(?:([^{}|]*)\|)?(instruction|query|document)(:strip)?(?:\|([^{}|]*))?\}")


Activation: TypeAlias = Literal["sigmoid", "identity"]
ACTIVATIONS: Mapping[str, Activation] = {".Sigmoid": "sigmoid", ".Identity": "identity"}


@dataclass(frozen=True, slots=True)
class Control:
    """Text of ours in which added tokens are meant."""

    text: str


@dataclass(frozen=True, slots=True)
class _Field:
    """A field with the texts that go with its value; ``strip`` is empty for a value as it is."""

    before: str
    name: str
    strip: str
    behind: str

    def fill(self, values: Mapping[str, str]) -> str:
        value = values[self.name].strip() if self.strip else values[self.name]
        return f"{self.before}{value}{self.behind}" if value else ""


@dataclass(frozen=True, slots=True)
class Text:
    """Text that may hold fields; no added token is recognised in it."""

    text: str
    fields: frozenset[str] = dataclasses.field(init=False, compare=False, repr=False)
    """Those that stand in the text."""
    _pieces: tuple[str | _Field, ...] = dataclasses.field(init=False, compare=False, repr=False)
    _alone: Mapping[str, int] = dataclasses.field(init=False, compare=False, repr=False)
    """Where among the pieces each field is that stands here once and as it is."""

    def __post_init__(self) -> None:
        pieces: list[str | _Field] = []
        end = 0
        for match in _FIELD.finditer(self.text):
            pieces += [self.text[end : match.start()], _Field(*match.groups(""))]
            end = match.end()
        object.__setattr__(self, "_pieces", (*pieces, self.text[end:]))
        names = self.names()
        object.__setattr__(self, "fields", frozenset(names))
        alone = {
            piece.name: at
            for at, piece in enumerate(pieces)
            if isinstance(piece, _Field) and piece == _Field("", piece.name, "", "") and names.count(piece.name) == 1
        }
        object.__setattr__(self, "_alone", alone)

    def fill(self, values: Mapping[str, str]) -> str:
        """The text with its fields filled in, in one pass: braces in a value mean nothing."""
        return _filled(self._pieces, values)

    def around(self, field: str, values: Mapping[str, str]) -> tuple[str, str] | None:
        """What stands before and behind a field that stands here once and as it is, the others filled in."""
        at = self._alone.get(field)
        if at is None:
            return None
        return _filled(self._pieces[:at], values), _filled(self._pieces[at + 1 :], values)

    def names(self) -> list[str]:
        """The fields in the order of the text, as often as they stand there."""
        return [piece.name for piece in self._pieces if isinstance(piece, _Field)]


def _filled(pieces: Sequence[str | _Field], values: Mapping[str, str]) -> str:
    return "".join([piece if isinstance(piece, str) else piece.fill(values) for piece in pieces])


@dataclass(frozen=True, slots=True)
class Head:
    """What the raw score is read from: the logits of words, or the checkpoint's own linear layer.

    Without a ``negative`` word the score is the logit of the positive word alone.
    """

    kind: Literal["words", "linear"]
    positive: str | None = None
    negative: str | None = None


@dataclass(frozen=True, slots=True)
class Template:
    """A model's prompt, and the score that its card defines: ``activation(scale * logit + bias)``."""

    name: str
    parts: tuple[Control | Text, ...]
    head: Head
    scale: float = 1.0
    bias: float = 0.0
    default_instruction: str = ""
    activation: Activation = "sigmoid"
    """``identity`` for cross-encoders whose card gives raw scores; all others give probabilities."""
    revision: str = dataclasses.field(init=False, compare=False, repr=False)
    """A hash over everything that changes a score, for cache keys and ``/info``; made once, asked by each request."""

    def __post_init__(self) -> None:
        kinds = [[type(part).__name__, part.text] for part in self.parts]
        head = dataclasses.astuple(self.head)
        everything = [
            _RULES,
            self.name,
            kinds,
            head,
            self.scale,
            self.bias,
            self.default_instruction,
            self.activation,
        ]
        revision = hashlib.sha256(json.dumps(everything).encode()).hexdigest()[:16]
        object.__setattr__(self, "revision", revision)

    @property
    def has_instruction(self) -> bool:
        return self.occurrences("instruction") > 0

    @property
    def reads_document_first(self) -> bool:
        """Prompts begin alike where they have the same document, not where they have the same query."""
        names = [name for part in self.parts if isinstance(part, Text) for name in part.names()]
        return names.index("document") < names.index("query")

    def occurrences(self, field: str) -> int:
        """How often a field stands in the prompt."""
        return sum(part.names().count(field) for part in self.parts if isinstance(part, Text))


def read_template(file: Path) -> Template:
    """A template from a JSON file; raises ConfigurationError that names what is wrong with it."""
    rows = read_json_object(file, _MAX_FILE_BYTES)
    unknown = rows.keys() - {row.name for row in dataclasses.fields(Template)}
    if unknown:
        raise ConfigurationError(f"{file} has an unknown key {min(unknown)!r}")
    try:
        template = Template(
            name=str(rows["name"]),
            parts=tuple(_part(row) for row in rows["parts"]),
            head=_head(rows["head"]),
            scale=_finite(rows.get("scale", 1.0)),
            bias=_finite(rows.get("bias", 0.0)),
            default_instruction=str(rows.get("default_instruction", "")),
            activation=ACTIVATIONS[f".{str(rows.get('activation', 'sigmoid')).capitalize()}"],
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ConfigurationError(f"{file} is not a template: {type(error).__name__} {str(error)[:200]}") from None
    _check(template, file)
    return template


def _part(row: Mapping[str, str]) -> Control | Text:
    ((kind, text),) = row.items()
    if kind not in ("control", "text") or not isinstance(text, str):
        raise ValueError("a part has one key, 'control' or 'text', with a text")
    return Control(text) if kind == "control" else Text(text)


def _head(row: Mapping[str, str | None]) -> Head:
    head = Head(**row)  # type: ignore[arg-type]
    if not all(word is None or isinstance(word, str) for word in (head.positive, head.negative)):
        raise ValueError("the words of the head have to be texts")
    return head


def _finite(value: float) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("scale and bias have to be finite numbers")
    return number


def _check(template: Template, file: Path) -> None:
    for field in ("query", "document"):
        if not template.occurrences(field):
            raise ConfigurationError(f"{file} has no text part with {{{field}}}")
    if any(_FIELD.search(part.text) for part in template.parts if isinstance(part, Control)):
        raise ConfigurationError(f"{file} has a field in a control part, where it could smuggle control tokens in")
    head = template.head
    if head.kind not in ("words", "linear") or (head.kind == "words" and not head.positive):
        raise ConfigurationError(f"{file} needs a head of kind 'linear', or of kind 'words' with a positive word")
