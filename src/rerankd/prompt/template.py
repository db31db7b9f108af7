"""The prompt as data: which control tokens and which texts stand around the instruction, query and document.

A template is a sequence of parts. A ``control`` part is encoded with the tokenizer's added tokens (``<|im_start|>``
and the like), a ``text`` part without them, so that nothing a client sends can become a control token. The
tokenizer reads each part by itself; ``{instruction}``, ``{query}`` and ``{document}`` stand in text parts alone.

Another pointwise reranker is a row here, or a ``template.json`` beside its weights:

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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from rerankd.checkpoint_files import TEMPLATE, architectures, read_config
from rerankd.errors import ConfigurationError
from rerankd.files import read_json_object

FIELDS = ("instruction", "query", "document")

_RULES = 2
"""Goes up when the same template starts to give other ids (truncation, normalisation), so that cached scores die."""
_MAX_FILE_BYTES = 64 * 1024
"""Of a template.json: what stands around every single pair."""
_FIELD = re.compile(r"\{(instruction|query|document)\}")


Activation: TypeAlias = Literal["sigmoid", "identity"]
_ACTIVATIONS: Mapping[str, Activation] = {".Sigmoid": "sigmoid", ".Identity": "identity"}


@dataclass(frozen=True, slots=True)
class Control:
    """Text of ours in which added tokens are meant."""

    text: str


@dataclass(frozen=True, slots=True)
class Text:
    """Text that may hold fields; no added token is recognised in it."""

    text: str
    fields: frozenset[str] = dataclasses.field(init=False, compare=False, repr=False)
    """Those that stand in the text."""
    _pieces: tuple[str, ...] = dataclasses.field(init=False, compare=False, repr=False)
    """What stands around the fields, and between two of that a field's name."""

    def __post_init__(self) -> None:
        pieces = _FIELD.split(self.text)
        object.__setattr__(self, "fields", frozenset(pieces[1::2]))
        object.__setattr__(self, "_pieces", tuple(pieces))

    def fill(self, values: Mapping[str, str]) -> str:
        """The text with its fields filled in, in one pass: braces in a value mean nothing."""
        return "".join([values[piece] if at % 2 else piece for at, piece in enumerate(self._pieces)])


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

    def occurrences(self, field: str) -> int:
        """How often a field stands in the prompt."""
        return sum(_FIELD.findall(part.text).count(field) for part in self.parts if isinstance(part, Text))


_QWEN3_SYSTEM = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
_QWEN3_ANSWER = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


def _qwen3(name: str, gap: str) -> Template:
    # Cutting the body behind the instruction's gap and before the document's space changes no id: the pre-tokenizer
    # always cuts there ("<" cannot take a line's end in, ":" cannot take a space in, and it never looks back). So the
    # instruction is encoded once for all requests, and the query once for all documents of a request. tests/golden
    # compares the ids with those of the whole string. At any other place they would differ.
    return Template(
        name=name,
        parts=(
            Control(_QWEN3_SYSTEM),
            Text(f"<Instruct>: {{instruction}}{gap}"),
            Text(f"<Query>: {{query}}{gap}<Document>:"),
            Text(" {document}"),
            Control(_QWEN3_ANSWER),
        ),
        head=Head(kind="words", positive="yes", negative="no"),
        default_instruction="Given a web search query, retrieve relevant passages that answer the query",
    )


def _pair(name: str, begin: str, between: str, end: str) -> Template:
    """The pair of a cross-encoder: what its tokenizer's post-processor puts around two texts."""
    parts = (Control(begin), Text("{query}"), Control(between), Text("{document}"), Control(end))
    return Template(name=name, parts=parts, head=Head(kind="linear"))


_PAIRS = (
    _pair("bert-pair", "[CLS]", "[SEP]", "[SEP]"),  # BERT, DeBERTa, ELECTRA, ModernBERT
    _pair("roberta-pair", "<s>", "</s></s>", "</s>"),  # RoBERTa, XLM-RoBERTa, MPNet
)

TEMPLATES: Mapping[str, Template] = {
    template.name: template
    for template in (
        _qwen3("qwen3-reranker", gap="\n"),  # the model card's transformers example
        _qwen3("qwen3-reranker-chat", gap="\n\n"),  # the model card's vLLM example
        *_PAIRS,
    )
}


def load_template(folder: Path, name: str = "auto") -> Template:
    """The template for a checkpoint.

    Args:
        folder: the checkpoint's folder; its ``template.json`` and ``config.json`` are looked at.
        name: one of :data:`TEMPLATES`, the path of a ``.json`` file, or ``auto``: the checkpoint's own
            ``template.json``, else what its architecture asks for.

    Raises:
        ConfigurationError: no such template, a broken file, or a checkpoint that gives no hint.
    """
    if name in TEMPLATES:
        return _with_head_of(folder, TEMPLATES[name])
    if name.endswith(".json"):
        return read_template(Path(name))
    if name != "auto":
        known = ", ".join(TEMPLATES)
        raise ConfigurationError(f"there is no template {name!r}: known are {known}, or the path of a .json file")
    own = folder / TEMPLATE
    return read_template(own) if own.is_file() else _by_architecture(folder)


def _by_architecture(folder: Path) -> Template:
    found = architectures(folder)
    if any(architecture.startswith("Qwen3For") for architecture in found):
        return _with_head_of(folder, TEMPLATES["qwen3-reranker"])
    frame = _pair_frame(folder)
    for template in _PAIRS:
        if frame == [part.text for part in template.parts if isinstance(part, Control)]:
            return dataclasses.replace(template, activation=_activation_of(folder))
    raise ConfigurationError(
        f"the checkpoint in {folder} is of the architecture {found[0] if found else '(none named)'}, for which no "
        "prompt template is known: name one with the setting 'template', or put a template.json beside config.json"
    )


def _activation_of(folder: Path) -> Activation:
    """What sentence-transformers' CrossEncoder puts on the logit: its settings name a class, and a sigmoid is its own
    choice for one label."""
    config, own = read_config(folder), folder / "config_sentence_transformers.json"
    rows = config.get("sentence_transformers")
    named = (
        (read_json_object(own).get("activation_fn") if own.is_file() else None)
        or (rows.get("activation_fn") if isinstance(rows, dict) else None)
        or config.get("sbert_ce_default_activation_function")
        or "torch.nn.modules.activation.Sigmoid"
    )
    for ending, activation in _ACTIVATIONS.items():
        if str(named).endswith(ending):
            return activation
    raise ConfigurationError(
        f"the checkpoint in {folder} asks for the activation {str(named)[:100]!r}, not known here"
    )


def _pair_frame(folder: Path) -> list[str] | None:
    """What a tokenizer's post-processor puts before, between and behind two texts; None where it says nothing."""
    file = folder / "tokenizer.json"
    processor = read_json_object(file).get("post_processor") if file.is_file() else None
    for step in (processor or {}).get("processors") or [processor or {}]:
        match step:
            case {"type": "BertProcessing" | "RobertaProcessing" as kind, "cls": [cls, _], "sep": [sep, _]}:
                return [cls, sep if kind == "BertProcessing" else sep + sep, sep]
            case {"type": "TemplateProcessing", "pair": list(pieces)}:
                # Neighbouring special tokens are one part; the two texts stand between the parts.
                frame = "".join(piece["SpecialToken"]["id"] if "SpecialToken" in piece else "\0" for piece in pieces)
                return frame.split("\0")
    return None


def _with_head_of(folder: Path, template: Template) -> Template:
    """The same prompt with the checkpoint's linear head, where a conversion has made it one."""
    if any("ForSequenceClassification" in architecture for architecture in architectures(folder)):
        return dataclasses.replace(template, head=Head(kind="linear"))
    return template


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
            activation=_ACTIVATIONS[f".{str(rows.get('activation', 'sigmoid')).capitalize()}"],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
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
