"""Where a run begins: at the compiled start, or at the weights and tokenizer of a published model folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.torch import load_file
from tokenizers import Tokenizer

from training.data import Source
from training.initialise import Shape, State, initial_state
from training.tokenizer import train_tokenizer


def published_start(folder: Path) -> tuple[Shape, State]:
    """Shape and float32 weights of a folder in the layout that `training.export` writes."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    shape = Shape(
        vocabulary=config["vocab_size"],
        hidden=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        head_dim=config["head_dim"],
        intermediate=config["intermediate_size"],
        rope_theta=config["rope_theta"],
        eps=config["rms_norm_eps"],
    )
    return shape, {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}


def compiled_start(work: Path, seed: int) -> tuple[Shape, State]:
    with np.load(work / "content.npz") as arrays:
        content, rarity = arrays["content"], arrays["rarity"]
    shape = Shape(vocabulary=len(rarity))
    return shape, initial_state(shape, content, rarity, seed)


def load_start(work: Path, seed: int, folder: Path | None) -> tuple[Shape, State]:
    return compiled_start(work, seed) if folder is None else published_start(folder)


def start_tokenizer(sources: list[Source], path: Path, folder: Path | None) -> Tokenizer:
    """The tokenizer at ``path``: that of the folder which the run continues, or one trained on ``sources``."""
    if folder is None:
        return train_tokenizer(sources, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / "tokenizer.json", path)
    return Tokenizer.from_file(str(path))
