"""Which template a checkpoint has: its own, a named one, or the one that its files are recognised by."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rerankd.checkpoint_files import MAX_TOKENIZER_BYTES, TEMPLATE, TOKENIZER, architectures, read_config
from rerankd.errors import ConfigurationError
from rerankd.files import read_json_object
from rerankd.prompt.template import ACTIVATIONS, Activation, Control, Head, Template, read_template
from rerankd.prompt.templates import PAIRS, RELEASED, TEMPLATES, Released

_LOGIT_SCORE = Path("1_LogitScore", "config.json")
"""Where sentence-transformers keeps the tokens whose logits are the score."""
_HUB_PARTS = 4
"""Folders at the end of a path that may hold a hub's name: ``models--ORG--NAME/snapshots/COMMIT``."""


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
    architecture = found[0] if found else ""
    rows = [row for row in RELEASED if architecture.startswith(f"{row.family}For")]
    if rows:
        return _with_head_of(folder, _released(folder, rows).template)
    frame = _pair_frame(folder)
    for template in PAIRS:
        if frame == [part.text for part in template.parts if isinstance(part, Control)]:
            return dataclasses.replace(template, activation=_activation_of(folder))
    raise ConfigurationError(
        f"the checkpoint in {folder} is of the architecture {architecture or '(none named)'}, for which no prompt "
        "template is known: name one with the setting 'template', or put a template.json beside config.json"
    )


def _released(folder: Path, rows: list[Released]) -> Released:
    """The row that the checkpoint's scored tokens match, where it says them; else the one that is named; else the
    family's first."""
    if (folder / _LOGIT_SCORE).is_file():
        return _by_words(folder, rows)
    config = read_config(folder)
    signs = [*folder.parts[-_HUB_PARTS:], config.get("_name_or_path"), json.dumps(config.get("auto_map"))]
    text = " ".join(map(str, signs)).lower()
    return next((row for row in rows if row.name in text), rows[0])


def _by_words(folder: Path, rows: list[Released]) -> Released:
    scored = read_json_object(folder / _LOGIT_SCORE)
    asked = [scored.get("true_token_id"), scored.get("false_token_id")]
    vocabulary = _vocabulary(folder)
    for row in rows:
        head = row.template.head
        if asked == [vocabulary.get(word) if word else None for word in (head.positive, head.negative)]:
            return row
    raise ConfigurationError(
        f"the checkpoint in {folder} is scored by the logits of the tokens {str(asked[0])[:20]} and "
        f"{str(asked[1])[:20]}, as none of {', '.join(row.template.name for row in rows)} is: name a template with "
        "the setting 'template', or put a template.json beside config.json"
    )


def _vocabulary(folder: Path) -> Mapping[str, Any]:
    model = read_json_object(folder / TOKENIZER, MAX_TOKENIZER_BYTES).get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    return vocabulary if isinstance(vocabulary, dict) else {}


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
    for ending, activation in ACTIVATIONS.items():
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
