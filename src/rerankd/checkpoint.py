"""A model on disk: found by name, with its template and tokenizer, ready to be given to an engine."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rerankd.engine.base import DType, Engine, EngineOptions
from rerankd.engine.registry import create_engine, resolve_checkpoint
from rerankd.errors import ConfigurationError
from rerankd.prompt.template import Template, load_template
from rerankd.prompt.tokenizer import PromptTokenizer

_SAMPLES = 64
_SAMPLE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything about a model but its weights."""

    folder: Path
    fingerprint: str
    """Hash over the checkpoint's own files: the revision that cache keys carry."""
    template: Template
    tokenizer: PromptTokenizer

    @classmethod
    def open(cls, model: str, revision: str = "", template: str = "auto") -> Self:
        """Find a checkpoint (``tiny``, a folder, a hub name) and read its small files.

        Raises:
            ConfigurationError: there is no such checkpoint or template, or a file of it is missing.
        """
        folder = resolve_checkpoint(model, revision)
        chosen = load_template(folder, template)
        tokenizer_file = folder / "tokenizer.json"
        if not tokenizer_file.is_file():
            raise ConfigurationError(f"there is no tokenizer.json in the checkpoint {model!r}")
        return cls(folder, fingerprint(folder), chosen, PromptTokenizer(tokenizer_file, chosen))

    def engine(
        self,
        name: str,
        *,
        dtype: DType = "auto",
        device: str = "auto",
        threads: int = 0,
        max_pair_tokens: int = 8192,
        max_batch_tokens: int = 0,
        prefix_cache_tokens: int = 512,
        script: str = "",
    ) -> Engine:
        """An engine for this checkpoint, not loaded yet; the arguments are the settings of the same names."""
        options = EngineOptions(
            folder=self.folder,
            head=self.tokenizer.head_spec(),
            dtype=dtype,
            device=device,
            threads=threads,
            max_pair_tokens=max_pair_tokens,
            max_batch_tokens=max_batch_tokens,
            prefix_cache_tokens=prefix_cache_tokens,
            script=script,
        )
        return create_engine(name, options)


def fingerprint(folder: Path) -> str:
    """A hash that changes with the checkpoint, cheap enough for 16 GB of weights.

    Small files count whole, weights by size and by samples spread evenly over the file.
    """
    digest = hashlib.sha256()
    for file in sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")]):
        size = file.stat().st_size
        digest.update(f"{file.name}:{size}:".encode())
        digest.update(file.read_bytes() if file.suffix == ".json" else _samples(file, size))
    return digest.hexdigest()[:16]


def _samples(file: Path, size: int) -> bytes:
    step = max(size // _SAMPLES, _SAMPLE_BYTES)
    parts = []
    with file.open("rb") as stream:
        for start in range(0, size, step):
            stream.seek(start)
            parts.append(stream.read(_SAMPLE_BYTES))
    return b"".join(parts)
