"""A smaller export of a model for a cascade's first stage: its first layers, and a head that learned its scores.

The head is fitted by ridge regression of the whole model's raw scores on the last token's state after those layers
(T. Schuster et al.: Confident Adaptive Language Modeling, 2022, call such a head an early exit). Needs the extra
``reference``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from rerankd.checkpoint import Checkpoint
from rerankd.prompt.build import PromptBuilder, PromptLimits
from rerankd.types import PairPrompt

RIDGE = 1.0
_PAIRS_OF_A_BATCH = 16


def export(model: str, out: Path, layers: int, asked: Sequence[tuple[str, Sequence[str], Sequence[float]]]) -> None:
    """Write the first ``layers`` layers of a Qwen3 sequence classification model with a head of their own.

    Args:
        model: ``tiny``, or a folder.
        asked: queries with documents and the whole model's raw scores of them, to fit the head on.
    """
    checkpoint = Checkpoint.open(model)
    folder = Path(checkpoint.folder)
    states, scores = _states(folder, layers, checkpoint, asked)
    head = _ridge(states, scores)
    shutil.copytree(folder, out, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(config | {"num_hidden_layers": layers}))
    tensors = load_file(folder / "model.safetensors")
    dropped = tuple(f"model.layers.{layer}." for layer in range(layers, config["num_hidden_layers"]))
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(dropped)}
    kept["score.weight"] = torch.from_numpy(head)[None].to(tensors["score.weight"].dtype)
    save_file(kept, out / "model.safetensors", metadata={"format": "pt"})


def _states(
    folder: Path, layers: int, checkpoint: Checkpoint, asked: Sequence[tuple[str, Sequence[str], Sequence[float]]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The normed states of last tokens, shape (pairs, width), and the scores, shape (pairs,)."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval().model
    model.layers = model.layers[:layers]
    builder, limits = PromptBuilder(checkpoint.tokenizer), PromptLimits(512)
    states, scores = [], []
    for query, documents, values in asked:
        pairs = builder.pairs(query, documents, checkpoint.template.default_instruction, limits)
        rows = [(pair.ids, value) for pair, value in zip(pairs, values, strict=True) if isinstance(pair, PairPrompt)]
        for start in range(0, len(rows), _PAIRS_OF_A_BATCH):
            batch = rows[start : start + _PAIRS_OF_A_BATCH]
            states.append(_last_states(model, [ids for ids, _ in batch]))
            scores += [value for _, value in batch]
    return np.concatenate(states), np.array(scores)


@torch.inference_mode()
def _last_states(model: torch.nn.Module, prompts: Sequence[NDArray[np.int32]]) -> NDArray[np.float64]:
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    ids = torch.zeros(len(prompts), int(lengths.max()), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.from_numpy(np.asarray(prompt, dtype=np.int64))
    # Causal: what stands behind a prompt's end changes nothing before it.
    found = model(input_ids=ids).last_hidden_state[torch.arange(len(prompts)), lengths - 1]
    states: NDArray[np.float64] = found.double().numpy()
    return states


def _ridge(states: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.float32]:
    """Weights of the states, shape (width,); a constant changes no order and is left out."""
    centred, wanted = states - states.mean(axis=0), scores - scores.mean()
    penalty = RIDGE * np.eye(states.shape[1])
    weights: NDArray[np.float32] = np.linalg.solve(centred.T @ centred + penalty, centred.T @ wanted).astype(
        np.float32
    )
    return weights
