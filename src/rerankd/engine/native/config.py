"""config.json of a released checkpoint, checked: what is not understood is refused by name, never guessed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from rerankd.checkpoint_files import CONFIG, read_config
from rerankd.engine.base import DType
from rerankd.engine.native.config_fields import Fields, Json
from rerankd.engine.native.rope_config import RopeScaling, YarnScaling, rope_of
from rerankd.errors import ConfigurationError
from rerankd.printable import shown

Gate: TypeAlias = Literal["silu", "gelu_tanh"]
"""The activation of the gated MLP; ``gelu_tanh`` is GELU by its approximation with a hyperbolic tangent."""

_MAX_LAYERS: Final = 1024
_MAX_HEAD_DIM: Final = 4096
"""RoPE's table has a column of it for each position, before the weights say whether they fit."""


@dataclass(frozen=True, slots=True)
class Family:
    """How one model family differs from its relatives: all are decoders with RMSNorm, RoPE and a gated MLP."""

    qk_norm: bool = False
    """RMSNorm of each query and key head."""
    qkv_bias: bool = False
    """Biases of the query, key and value projections, whatever config.json says."""
    optional_biases: bool = True
    """``attention_bias`` of config.json adds biases to all four projections."""
    gate: Gate = "silu"
    gate_names: tuple[str, ...] = ("silu",)
    """What ``hidden_act`` may call it; the first is what it means where it is not there."""
    norm_offset: float = 0.0
    """What is added to the stored weights of the norms."""
    scales_embedding: bool = False
    """Embeddings are multiplied by the square root of the hidden size."""
    tied: bool = False
    """``tie_word_embeddings`` where config.json does not say it."""


_FAMILIES = {
    "Qwen3": Family(qk_norm=True),
    "Qwen2": Family(qkv_bias=True, optional_biases=False),
    "Llama": Family(),
    # "gelu" in the released files has always meant the approximation.
    "Gemma": Family(
        gate="gelu_tanh",
        gate_names=("gelu_pytorch_tanh", "gelu"),
        norm_offset=1.0,
        scales_embedding=True,
        tied=True,
    ),
}
"""A family more is a row here, and a template in ``prompt/templates.py``."""
_TASKS = {"ForCausalLM": False, "ForSequenceClassification": True}
ARCHITECTURES = {family + task: (family, task) for family in _FAMILIES for task in _TASKS}


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The numbers that a forward pass needs."""

    architecture: str
    family: Family
    classifier: bool
    """The checkpoint has its own ``score.weight`` in place of an output matrix."""
    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    qkv_bias: bool
    output_bias: bool
    """The attention's output projection has a bias."""
    norm_eps: float
    rope_theta: float
    rope_scaling: RopeScaling | None
    max_length: int
    """Tokens of the longest pair that the model can read, YaRN included."""
    tied: bool
    """The output matrix is the embedding matrix."""
    stored: DType
    """The number format that the checkpoint says it is stored in."""

    @property
    def weights(self) -> int:
        """Numbers in the matrices of all layers."""
        attention = 2 * (self.heads + self.kv_heads) * self.head_dim * self.hidden
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @classmethod
    def read(cls, folder: Path) -> ModelConfig:
        """The configuration of the checkpoint in ``folder``.

        Raises:
            ConfigurationError: no readable config.json, or a model that the native engine cannot run.
        """
        raw = Fields(read_config(folder), folder / CONFIG)
        architecture = _architecture(raw.values)
        family_name, task = ARCHITECTURES[architecture]
        family = _FAMILIES[family_name]
        _refuse_unsupported(raw.values, family)
        hidden, heads = raw.size("hidden_size"), raw.size("num_attention_heads")
        has_bias = bool(raw.values.get("attention_bias")) and family.optional_biases
        length = raw.size("max_position_embeddings", 32_768)
        rope_theta, scaling = rope_of(raw.values, raw.path, length)
        config = cls(
            architecture=architecture,
            family=family,
            classifier=_TASKS[task],
            vocabulary=raw.size("vocab_size"),
            hidden=hidden,
            intermediate=raw.size("intermediate_size"),
            layers=raw.size("num_hidden_layers", most=_MAX_LAYERS),
            heads=heads,
            kv_heads=raw.size("num_key_value_heads", heads),
            head_dim=raw.size("head_dim", max(1, hidden // heads), most=_MAX_HEAD_DIM),
            qkv_bias=family.qkv_bias or has_bias,
            output_bias=has_bias,
            norm_eps=raw.positive("rms_norm_eps", 1e-6),
            rope_theta=rope_theta,
            rope_scaling=scaling,
            # Llama's config.json counts what its scaling adds, those with YaRN do not.
            max_length=(
                max(length, int(scaling.factor * scaling.original_length))
                if isinstance(scaling, YarnScaling)
                else length
            ),
            tied=bool(raw.values.get("tie_word_embeddings", family.tied)),
            stored=_stored(raw.values),
        )
        if config.heads % config.kv_heads or config.head_dim % 2:
            raise ConfigurationError(
                f"{raw.path}: {config.heads} attention heads of size {config.head_dim} with {config.kv_heads} "
                "key-value heads; the first has to be a multiple of the last, and the size even"
            )
        return config


def _architecture(raw: Json) -> str:
    names = raw.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    if not isinstance(name, str) or name not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        given = "(none named)" if name is None else shown(name).strip("'")
        raise ConfigurationError(f"the native engine cannot run the architecture {given}; it runs {known}")
    return name


def _refuse_unsupported(raw: Json, family: Family) -> None:
    if raw.get("quantization_config"):
        raise ConfigurationError("the native engine reads unquantised checkpoints; use --engine vllm for this one")
    for name in ("hidden_act", "hidden_activation"):
        activation = raw.get(name) or family.gate_names[0]
        if activation not in family.gate_names:
            known = " or ".join(family.gate_names)
            raise ConfigurationError(f"the native engine knows the activation {known}, not {shown(activation)}")
    if raw.get("use_bidirectional_attention"):
        raise ConfigurationError("the native engine has causal attention alone (use_bidirectional_attention)")
    kinds = raw.get("layer_types") or ["full_attention"]
    if (
        raw.get("use_sliding_window")
        or not isinstance(kinds, list)
        or any(kind != "full_attention" for kind in kinds)
    ):
        raise ConfigurationError(
            "the native engine has no sliding-window attention (use_sliding_window, layer_types)"
        )
    if raw.get("mlp_bias"):
        raise ConfigurationError("the native engine has no biases in the MLP (mlp_bias)")


def _stored(raw: Json) -> DType:
    # transformers 5 writes dtype, older releases torch_dtype.
    match raw.get("dtype") or raw.get("torch_dtype"):
        case "bfloat16":
            return "bfloat16"
        case "float16":
            return "float16"
    return "float32"
