"""A checkpoint of BERT, XLM-RoBERTa or ModernBERT as an ONNX file, checked against transformers.

The engine needs no such file: it writes the graph itself when it loads the checkpoint. The file is for other servers,
and keeps weights in eight bits that would be quantised at every start.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rerankd.checkpoint_files import read_config
from rerankd.engine.base import DType
from rerankd.engine.onnx.padding import MicroBatch
from rerankd.engine.onnx.session import open_session
from rerankd.engine.onnx.source import PUBLISHED, GraphSource, Source
from rerankd.errors import ConfigurationError
from rerankd.types import IdArray

MAX_DIFFERENCE = {"float32": 1e-4, "int8": 0.1}
"""Largest difference to transformers' logits that a conversion may have, by number format."""
_LENGTHS = (2, 17, 64, 129, 300)


def convert(folder: Path, out: Path, dtype: DType) -> float:
    """Write ``out`` with the graph in ``onnx/``, beside the small files of the checkpoint in ``folder``.

    Returns:
        The largest difference of its logits to those of transformers, over random token ids.

    Raises:
        ConfigurationError: the architecture is none of ours, ``out`` is there already, transformers is not installed,
            or the scores differ.
    """
    source = Source.find(folder, dtype)
    if source.published or source.dtype not in MAX_DIFFERENCE:
        raise ConfigurationError(f"the checkpoint in {folder} has no weights that can be converted to {dtype}")
    expected_of = _reference(folder)
    graphs = out / "onnx"
    try:
        graphs.mkdir(parents=True)
    except FileExistsError:
        raise ConfigurationError(f"{graphs} is there already; give another folder") from None
    encoded = source.graph(source.max_length, portable=True).graph
    assert isinstance(encoded, bytes)
    graph = graphs / PUBLISHED[source.dtype][0]
    graph.write_bytes(encoded)
    for weights in folder.glob("*.safetensors"):
        shutil.copyfile(weights, graphs / weights.name)
    for small in [*folder.glob("*.json"), *folder.glob("*.txt")]:
        if not small.name.endswith(".index.json"):
            shutil.copyfile(small, out / small.name)
    prompts = _random_prompts(int(read_config(folder)["vocab_size"]), source.max_length)
    difference = float(np.abs(_logits(graph, source.pad_id, prompts) - expected_of(prompts)).max())
    if not difference <= MAX_DIFFERENCE[source.dtype]:
        raise ConfigurationError(f"the graph's logits differ from those of transformers by {difference:.2g}")
    return difference


def _random_prompts(vocabulary: int, max_length: int) -> list[IdArray]:
    rng = np.random.default_rng(0)
    lengths = [min(length, max_length) for length in _LENGTHS]
    return [rng.integers(0, vocabulary, length).astype(np.int32) for length in lengths]


def _logits(graph: Path, pad_id: int, prompts: Sequence[IdArray]) -> NDArray[np.float32]:
    session = open_session(GraphSource(graph, graph.parent), "cpu", 1)
    names = {value.name for value in session.get_inputs()}
    part = MicroBatch.of(np.arange(len(prompts)), prompts, pad_id)
    feed = {"input_ids": part.input_ids, "attention_mask": part.attention_mask}
    feed["token_type_ids"] = np.zeros_like(part.input_ids)
    logits: NDArray[np.float32] = session.run(None, {name: feed[name] for name in names})[0][:, 0]
    return logits


def _reference(folder: Path) -> Callable[[Sequence[IdArray]], NDArray[np.float32]]:
    """Logits of the released code, one pair at a time, in float32."""
    try:
        import torch
        import transformers
    except ImportError:
        needed = "pip install 'rerankd[reference]'"
        raise ConfigurationError(f"a conversion is checked with transformers: {needed}") from None
    loader = transformers.AutoModelForSequenceClassification
    model = loader.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False, use_safetensors=True).eval()

    def logits(prompts: Sequence[IdArray]) -> NDArray[np.float32]:
        with torch.inference_mode():
            rows = [model(input_ids=torch.from_numpy(ids.astype(np.int64))[None]).logits[0, 0] for ids in prompts]
        return np.array([float(row) for row in rows], dtype=np.float32)

    return logits
