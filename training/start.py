"""Where a run begins: at the compiled start, or at the weights and tokenizer of a published model folder."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
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


def deepened(shape: Shape, state: State, place: int, seed: int) -> tuple[Shape, State]:
    """One more layer at ``place``, which adds nothing yet: it reads with random weights and writes with zeros."""
    found: State = {}
    random = torch.Generator().manual_seed(seed)
    for name, tensor in state.items():
        if not name.startswith("model.layers."):
            found[name] = tensor
            continue
        layer, part = name.removeprefix("model.layers.").split(".", 1)
        found[f"model.layers.{int(layer) + (int(layer) >= place)}.{part}"] = tensor
        if int(layer) == place:
            found[f"model.layers.{place}.{part}"] = _new_weight(part, tensor.shape, random)
    return replace(shape, layers=shape.layers + 1), found


def _new_weight(part: str, size: torch.Size, random: torch.Generator) -> torch.Tensor:
    if part.endswith(("o_proj.weight", "down_proj.weight")):
        return torch.zeros(size)
    if len(size) == 1:
        return torch.ones(size)
    found: torch.Tensor = torch.randn(size, generator=random) / size[1] ** 0.5
    return found


def start_tokenizer(sources: list[Source], path: Path, folder: Path | None) -> Tokenizer:
    """The tokenizer at ``path``: that of the folder which the run continues, or one trained on ``sources``."""
    if folder is None:
        return train_tokenizer(sources, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / "tokenizer.json", path)
    return Tokenizer.from_file(str(path))
