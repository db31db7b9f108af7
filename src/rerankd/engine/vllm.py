"""vLLM's pooling runner behind the contract: tensor parallelism and quantised checkpoints.

The classifier is made from the two words' rows of the output matrix, so a score never depends on which words were
among the likeliest. Token ids come from our prompt: vLLM's own templates and tokenizer are not asked.
"""

from __future__ import annotations

import gc
import os
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from rerankd.checkpoint_files import read_config
from rerankd.cores import usable_cores
from rerankd.engine.base import Batch, EngineFault, EngineInfo, EngineOptions
from rerankd.errors import ConfigurationError

_BATCH_TOKENS = 8192
_FORMATS = {"auto": "auto", "float32": "float32", "bfloat16": "bfloat16", "float16": "float16"}


class VllmEngine:
    """Qwen3 rerankers, released or converted to a classifier, run by vLLM on every GPU that is visible."""

    prefix_caching = True
    """Requests share whole blocks: 16 tokens on a GPU, 128 on a CPU."""

    def __init__(self, options: EngineOptions) -> None:
        if options.dtype not in _FORMATS:
            raise ConfigurationError(
                f"the vllm engine takes the formats {', '.join(_FORMATS)}, not {options.dtype!r}"
            )
        self._options = options
        self._config = read_config(options.folder)
        self._length = min(options.max_pair_tokens, int(self._config.get("max_position_embeddings", 32768)))
        self._budget = options.max_batch_tokens or max(_BATCH_TOKENS, self._length)
        self._llm: Any = None

    def load(self) -> None:
        """Start vLLM.

        Raises:
            ConfigurationError: vLLM is not installed, or the checkpoint's words are not in its tokenizer.
        """
        vllm = _vllm()
        cpu: dict[str, Any] = {} if torch.cuda.is_available() else self._cpu_arguments()
        self._llm = vllm.LLM(
            model=str(self._options.folder),
            runner="pooling",
            dtype=_FORMATS[self._options.dtype],
            hf_overrides=self._overrides(),
            # The raw score is wanted: the sigmoid is the service's.
            pooler_config=vllm.config.PoolerConfig(use_activation=False),
            tensor_parallel_size=max(1, torch.cuda.device_count()),
            max_model_len=self._length,
            max_num_batched_tokens=self._budget,
            enable_prefix_caching=self.prefix_caching,
            trust_remote_code=False,
            disable_log_stats=True,
            **cpu,
        )

    def warm_up(self) -> None:
        """vLLM measures its memory and runs its kernels while it starts."""

    @property
    def info(self) -> EngineInfo:
        return EngineInfo(
            engine="vllm",
            device="cuda" if torch.cuda.is_available() else "cpu",
            dtype=str(self._llm.llm_engine.model_config.dtype).removeprefix("torch.") if self._llm else "",
            architecture=str(self._config["architectures"][0]),
            max_length=self._length,
            parameters=0,
            max_batch_tokens=self._budget,
            shares_prefix=False,
            details=f"vLLM {_vllm().__version__}, {max(1, torch.cuda.device_count())} shards",
        )

    def score(self, batch: Batch) -> NDArray[np.float32]:
        """Raw scores, float32 (pairs,). vLLM finds shared prefixes by itself, in blocks.

        Raises:
            EngineFault: vLLM's worker is gone.
        """
        if self._llm is None:
            raise EngineFault("the engine is not loaded")
        if not batch.pairs:
            return np.empty(0, dtype=np.float32)
        prompts = [{"prompt_token_ids": ids.tolist()} for ids in batch.prompts()]
        try:
            outputs = self._llm.classify(prompts, use_tqdm=False)
        except Exception as error:
            if type(error).__name__ == "EngineDeadError":
                raise EngineFault("vLLM's worker is gone") from error
            raise
        return np.array([output.outputs.probs[0] for output in outputs], dtype=np.float32)

    def health(self) -> bool:
        return self._llm is not None

    def close(self) -> None:
        """End vLLM's workers."""
        if self._llm is not None:
            self._llm.llm_engine.engine_core.shutdown()
        self._llm = None
        # vLLM's objects hold each other, and sockets with them.
        gc.collect()

    def _cpu_arguments(self) -> dict[str, Any]:
        """Room for the keys and values of a batch and a half, where vLLM would take most of the memory; every core,
        where it would leave one to its front end, which only waits."""
        cores = sorted(os.sched_getaffinity(0))
        # vLLM reads the cores from here alone.
        chosen = ",".join(map(str, cores[: self._options.threads or usable_cores()]))
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", chosen)
        config = self._config
        wide = int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])
        numbers = 2 * int(config["num_hidden_layers"]) * int(config["num_key_value_heads"]) * wide
        size = 4 if self._options.dtype == "float32" else 2
        return {"kv_cache_memory_bytes": self._budget * 3 // 2 * numbers * size}

    def _overrides(self) -> dict[str, Any]:
        head = self._options.head
        if str(self._config["architectures"][0]).endswith("ForSequenceClassification"):
            return {}
        if head.positive is None or head.negative is None:
            raise ConfigurationError("the vllm engine makes its classifier from two words; this template names fewer")
        tokenizer = Tokenizer.from_file(str(self._options.folder / "tokenizer.json"))
        return {
            "architectures": ["Qwen3ForSequenceClassification"],
            "classifier_from_token": [tokenizer.id_to_token(head.negative), tokenizer.id_to_token(head.positive)],
            "is_original_qwen3_reranker": True,
        }


def _vllm() -> Any:
    try:
        import vllm
    except ImportError:
        raise ConfigurationError("the vllm engine needs vLLM: pip install 'rerankd[vllm]'") from None
    return vllm
