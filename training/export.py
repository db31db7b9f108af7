"""Weights -> a model folder in the released layout: config.json, model.safetensors, tokenizer.json, template.json."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from training.initialise import Shape, State
from training.tokenizer import END, PAD

MAX_POSITIONS = 4096
# The document first: every query token then looks back at the document, and <end> only sums over the query.
TEMPLATE_PARTS: list[dict[str, str]] = [
    {"control": "<bos>"},
    {"text": "{document}"},
    {"control": "<q>"},
    {"text": "{query}"},
    {"control": "<end>"},
]


def config(shape: Shape) -> dict[str, Any]:
    return {
        "architectures": ["Qwen3ForSequenceClassification"],
        "model_type": "qwen3",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": shape.eps,
        # Written twice: older readers take the first, newer ones the second.
        "rope_theta": shape.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
        "max_position_embeddings": MAX_POSITIONS,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "use_sliding_window": False,
        "tie_word_embeddings": False,
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
        "pad_token_id": PAD,
        "eos_token_id": END,
        "dtype": "float16",
    }


def template(scale: float, bias: float) -> dict[str, Any]:
    return {
        "name": "tiny-dq",
        "parts": TEMPLATE_PARTS,
        "head": {"kind": "linear"},
        "scale": round(scale, 4),
        "bias": round(bias, 4),
        "default_instruction": "",
    }


def write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def export(out: Path, shape: Shape, state: State, tokenizer: Path, scale: float = 1.0, bias: float = 0.0) -> None:
    """Writes the folder; weights go to float16, which changes scores in the fourth digit."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "config.json", config(shape))
    write_json(out / "template.json", template(scale, bias))
    shutil.copyfile(tokenizer, out / "tokenizer.json")
    halves = {name: tensor.to(torch.float16).contiguous() for name, tensor in state.items()}
    save_file(halves, str(out / "model.safetensors"), metadata={"format": "pt"})
