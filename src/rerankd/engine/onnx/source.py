"""What the onnx engine can load from a checkpoint's folder.

Weights of an architecture that ``graphs/`` has come first: such a graph is written in a moment, its weights stay in
their file, and the last layer is computed for one token of each pair. Anything else needs a published graph,
``onnx/model*.onnx``, under one of the names that model hubs use.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rerankd.checkpoint_files import CONFIG, architectures, read_config
from rerankd.engine.base import DType
from rerankd.engine.native.config import ARCHITECTURES, ModelConfig
from rerankd.engine.onnx.config import max_length_of, pad_id_of, require_one_label
from rerankd.engine.onnx.graph import GraphBuilder
from rerankd.engine.onnx.graphs import GRAPHS
from rerankd.engine.onnx.probe import signed_products_are_exact
from rerankd.engine.onnx.weights import StoredWeights, has_weights
from rerankd.errors import ConfigurationError

PUBLISHED = {
    "float32": ("model.onnx",),
    "float16": ("model_fp16.onnx",),
    "int8": ("model_int8.onnx", "model_quantized.onnx", "model_quint8_avx2.onnx", "model_qint8_avx512_vnni.onnx"),
}
"""File names of published graphs in the folder ``onnx``, by number format, the most portable first."""

MAX_DECODER_WEIGHTS = 50_000_000
"""Numbers in the layers of a decoder that is run here: the embedded model's kind. Larger ones are for the native
engine, which computes what prompts share once, and in half precision."""


_MAX_NAME = 100
"""Characters of an architecture's name, which errors repeat."""


@dataclass(frozen=True, slots=True)
class GraphSource:
    """A graph to load: an ONNX file, or one that was made in memory.

    Attributes:
        graph: the path of a file, or the encoded model.
        folder: where the external data of an encoded model lies.
    """

    graph: Path | bytes
    folder: Path


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint's folder, looked at but not loaded.

    Attributes:
        dtype: the number format of the weights: float32, float16 or int8.
        published: the graph file, or None where the graph is written here.
        max_length: tokens of one pair that the model can read.
        pad_id: what fills up shorter prompts.
    """

    folder: Path
    architecture: str
    dtype: str
    published: Path | None
    max_length: int
    pad_id: int

    @classmethod
    def find(cls, folder: Path, dtype: DType) -> Source:
        """What to load for a number format; ``auto`` means float32.

        Raises:
            ConfigurationError: the model has several labels, there is no such graph, or the format is none of ours.
        """
        raw = read_config(folder)
        require_one_label(raw)
        wanted = "float32" if dtype == "auto" else dtype
        architecture = architecture_of(folder)
        published = None if can_write(folder, architecture, wanted) else _published(folder, architecture, wanted)
        return cls(folder, architecture, wanted, published, max_length_of(folder, raw), pad_id_of(raw))

    def graph(self, length: int, *, portable: bool = False) -> GraphSource:
        """The graph itself, for pairs of up to ``length`` tokens; ``portable``: no faster here than anywhere."""
        if self.published:
            return GraphSource(self.published, self.published.parent)
        int8 = self.dtype == "int8"
        signed = int8 and not portable and signed_products_are_exact()
        builder = GraphBuilder(StoredWeights(self.folder), int8=int8, signed=signed)
        return GraphSource(GRAPHS[self.architecture](builder, self.folder, length), self.folder)

    @property
    def parameters(self) -> int:
        """Numbers in the checkpoint's weights; 0 where only a graph was published."""
        return StoredWeights(self.folder).parameters if has_weights(self.folder) else 0


def architecture_of(folder: Path) -> str:
    """The model class that config.json names first; empty where it names none."""
    return next(iter(architectures(folder)), "")[:_MAX_NAME]


def runs(folder: Path) -> bool:
    """Whether the engine can load something of this folder."""
    architecture = architecture_of(folder)
    return can_write(folder, architecture, "float32") or any((folder / "onnx").glob("model*.onnx"))


def can_write(folder: Path, architecture: str, dtype: str) -> bool:
    """Whether the graph is written here from the folder's weights."""
    if architecture not in GRAPHS or not has_weights(folder) or dtype not in ("float32", "int8"):
        return False
    return architecture not in ARCHITECTURES or ModelConfig.read(folder).weights <= MAX_DECODER_WEIGHTS


def published_graphs(folder: Path, dtype: DType) -> tuple[str, ...]:
    """Names of graphs of which one is needed beside the files that ``folder`` has; none where those are enough."""
    if not (folder / CONFIG).is_file():
        return ()
    architecture, wanted = architecture_of(folder), "float32" if dtype == "auto" else dtype
    if architecture in ARCHITECTURES or can_write(folder, architecture, wanted):
        return ()
    return PUBLISHED.get(wanted, ())


def _published(folder: Path, architecture: str, dtype: str) -> Path:
    found = sorted(file.name for file in (folder / "onnx").glob("model*.onnx"))
    if dtype not in PUBLISHED:
        raise ConfigurationError(f"the onnx engine has no dtype {dtype}; it has {', '.join(PUBLISHED)}")
    for name in PUBLISHED[dtype]:
        if name in found:
            return folder / "onnx" / name
    if found:
        raise ConfigurationError(f"{folder}/onnx has no graph in {dtype}; it has {', '.join(found)}")
    known = ", ".join(GRAPHS)
    raise ConfigurationError(
        f"the onnx engine needs a published graph ({folder}/onnx/model.onnx) for the architecture "
        f"{architecture or '(none named)'}; from weights alone it runs {known}"
    )
