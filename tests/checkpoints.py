"""Random-weight checkpoints in the released layout, for benchmarks and for the tests of the engines."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from rerankd.model_hub import resolve_checkpoint


@dataclass(frozen=True, slots=True)
class Layout:
    """The numbers of one model; the defaults are a very small Qwen3."""

    vocab_size: int = 512
    hidden_size: int = 64
    intermediate_size: int = 160
    num_hidden_layers: int = 3
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 32
    rope_theta: float = 1_000_000.0
    tie_word_embeddings: bool = True
    architecture: str = "Qwen3ForCausalLM"
    max_position_embeddings: int = 40_960
    attention_bias: bool = False
    yarn_factor: float = 0.0
    """How many times longer than 64 tokens YaRN makes the context; 0 for plain RoPE."""
    llama3_factor: float = 0.0
    """The same by Llama 3.1's rule."""

    @property
    def is_classifier(self) -> bool:
        return self.architecture.endswith("ForSequenceClassification")

    @property
    def family(self) -> str:
        return self.architecture.partition("For")[0]


RERANKER_0_6B = Layout(151_669, 1024, 3072, 28, 16, 8, 128)
RERANKER_4B = Layout(151_669, 2560, 9728, 36, 32, 8, 128)
SMALL = Layout(151_669, 256, 768, 4, 4, 2, 64)
"""The released vocabulary on the smallest model that still computes something: to try a command with."""
LAYOUTS = {"0.6B": RERANKER_0_6B, "4B": RERANKER_4B, "small": SMALL}


def write_checkpoint(
    folder: Path,
    layout: Layout,
    *,
    dtype: torch.dtype = torch.float32,
    shards: int = 1,
    seed: int = 0,
    device: str = "cpu",
) -> Path:
    """Write config.json and safetensors of random weights as the hub publishes them; returns ``folder``.

    ``device`` draws the weights, each its own: a card needs a second for what takes a core a minute.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(_config(layout, dtype), indent=2))
    generator = torch.Generator(device).manual_seed(seed)
    tensors = {name: _random(name, layout.family, shape, generator).to(dtype).cpu() for name, shape in shapes(layout)}
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        _write_shards(folder, tensors, shards)
    return folder


def write_small_reranker(folder: Path) -> Path:
    """A whole checkpoint of a few kilobytes that every engine serves: weights, tokenizer, template."""
    layout = Layout(32, 16, 32, 1, 1, 1, 16, architecture="Qwen3ForSequenceClassification")
    write_checkpoint(folder, layout, dtype=torch.bfloat16)
    shutil.copy(resolve_checkpoint("tiny") / "template.json", folder)
    tokenizer: dict[str, Any] = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "a": 1, "b": 2}, "unk_token": "[UNK]"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


def shapes(layout: Layout) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of all tensors of a checkpoint."""
    hidden, wide, d = layout.hidden_size, layout.intermediate_size, layout.head_dim
    query, key = layout.num_attention_heads * d, layout.num_key_value_heads * d
    yield "model.embed_tokens.weight", (layout.vocab_size, hidden)
    for index in range(layout.num_hidden_layers):
        base = f"model.layers.{index}"
        yield f"{base}.input_layernorm.weight", (hidden,)
        yield f"{base}.post_attention_layernorm.weight", (hidden,)
        for name, out in (("q_proj", query), ("k_proj", key), ("v_proj", key)):
            yield f"{base}.self_attn.{name}.weight", (out, hidden)
            if layout.family == "Qwen2" or layout.attention_bias:
                yield f"{base}.self_attn.{name}.bias", (out,)
        if layout.family == "Qwen3":
            yield f"{base}.self_attn.q_norm.weight", (d,)
            yield f"{base}.self_attn.k_norm.weight", (d,)
        yield f"{base}.self_attn.o_proj.weight", (hidden, query)
        if layout.attention_bias:
            yield f"{base}.self_attn.o_proj.bias", (hidden,)
        yield f"{base}.mlp.gate_proj.weight", (wide, hidden)
        yield f"{base}.mlp.up_proj.weight", (wide, hidden)
        yield f"{base}.mlp.down_proj.weight", (hidden, wide)
    yield "model.norm.weight", (hidden,)
    if layout.is_classifier:
        yield "score.weight", (1, hidden)
    elif not layout.tie_word_embeddings:
        yield "lm_head.weight", (layout.vocab_size, hidden)


def _random(name: str, family: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    numbers = torch.randn(shape, generator=generator, device=generator.device)
    if name.endswith("norm.weight"):
        return numbers.mul_(0.1).add_(0.0 if family == "Gemma" else 1.0)
    # 0.02 at 1,024 numbers a row, as a fresh model is initialised; narrower rows keep their products as large.
    return numbers.mul_(0.7 / shape[-1] ** 0.5)


def _config(layout: Layout, dtype: torch.dtype) -> dict[str, Any]:
    numbers = asdict(layout)
    architecture = numbers.pop("architecture")
    scaled = {}
    for kind, extra in {"yarn": {}, "llama3": {"low_freq_factor": 1.0, "high_freq_factor": 4.0}}.items():
        if factor := numbers.pop(f"{kind}_factor"):
            rope = {"rope_type": kind, "factor": factor, "original_max_position_embeddings": 64, **extra}
            scaled = {"rope_scaling": rope}
    classifier = {"num_labels": 1, "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}, "pad_token_id": 0}
    return {
        **numbers,
        "architectures": [architecture],
        "model_type": layout.family.lower(),
        "hidden_act": "gelu_pytorch_tanh" if layout.family == "Gemma" else "silu",
        "rms_norm_eps": 1e-6,
        "use_sliding_window": False,
        "torch_dtype": str(dtype).removeprefix("torch."),
        **(classifier if layout.is_classifier else {}),
        **scaled,
    }


def _write_shards(folder: Path, tensors: dict[str, torch.Tensor], shards: int) -> None:
    names = list(tensors)
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in names[shard::shards]}
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
