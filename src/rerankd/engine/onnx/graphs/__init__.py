"""The forward passes that the onnx engine writes by itself, by the architecture that ``config.json`` names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from rerankd.checkpoint_files import read_config
from rerankd.engine.native.config import ModelConfig
from rerankd.engine.onnx.config import EncoderConfig, ModernBertConfig
from rerankd.engine.onnx.graph import GraphBuilder
from rerankd.engine.onnx.graphs.bert import build_bert, build_xlm_roberta
from rerankd.engine.onnx.graphs.modernbert import build_modernbert
from rerankd.engine.onnx.graphs.qwen3 import build_qwen3

GRAPHS: Mapping[str, Callable[[GraphBuilder, Path, int], bytes]] = {
    "BertForSequenceClassification": lambda graph, folder, _: build_bert(
        graph, EncoderConfig.read(read_config(folder))
    ),
    "XLMRobertaForSequenceClassification": lambda graph, folder, _: build_xlm_roberta(
        graph, EncoderConfig.read(read_config(folder))
    ),
    "ModernBertForSequenceClassification": lambda graph, folder, _: build_modernbert(
        graph, ModernBertConfig.read(read_config(folder))
    ),
    "Qwen3ForSequenceClassification": lambda graph, folder, length: build_qwen3(
        graph, ModelConfig.read(folder), length
    ),
}
"""Graph of a checkpoint: its builder with the weights, its folder, tokens of the longest pair -> the ONNX file."""
