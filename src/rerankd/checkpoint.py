"""A model on disk: found by name, with its template and tokenizer, ready to be given to an engine."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rerankd.checkpoint_files import TOKENIZER, check_layout, read_config
from rerankd.engine.base import DType, Engine, EngineOptions
from rerankd.engine.process.engine import ProcessEngine
from rerankd.engine.process.placement import Place
from rerankd.engine.registry import create_engine
from rerankd.errors import ConfigurationError
from rerankd.fingerprint import fingerprint
from rerankd.model_hub import resolve_checkpoint
from rerankd.prompt.template import Template
from rerankd.prompt.template_choice import load_template
from rerankd.prompt.tokenizer import PromptTokenizer


@dataclass(frozen=True)
class Checkpoint:
    """Everything about a model but its weights."""

    folder: Path
    template: Template
    tokenizer: PromptTokenizer

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash over every byte of the checkpoint's files: the revision that cache keys carry.

        It is made when it is first asked for: 16 GB that nobody has read before take seconds.

        Raises:
            ConfigurationError: a file cannot be read.
        """
        return fingerprint(self.folder)

    @classmethod
    def open(cls, model: str, revision: str = "", template: str = "auto", dtype: DType = "auto") -> Self:
        """Find a checkpoint (``tiny``, a folder, a hub name) and read its small files.

        Raises:
            ConfigurationError: there is no such checkpoint or template, or a file of it is missing or broken; the
                message says what was found and what to do.
        """
        return cls.of(resolve_checkpoint(model, revision, dtype), template)

    @classmethod
    def of(cls, folder: Path, template: str = "auto") -> Self:
        """The checkpoint in a folder; raises what :meth:`open` raises of it."""
        check_layout(folder)
        chosen = load_template(folder, template)
        tokenizer = PromptTokenizer(folder / TOKENIZER, chosen)
        _check_vocabulary(folder, tokenizer)
        return cls(folder, chosen, tokenizer)

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
        place: Place | None = None,
    ) -> Engine:
        """An engine for this checkpoint, not loaded yet; the arguments are the settings of the same names.

        Args:
            place: None runs it in this process; else it runs in one of its own, there.
        """
        options = EngineOptions(
            folder=self.folder,
            head=self.tokenizer.head_spec(),
            dtype=dtype,
            device=device,
            threads=threads,
            max_pair_tokens=max_pair_tokens,
            max_batch_tokens=max_batch_tokens,
            prefix_cache_tokens=prefix_cache_tokens,
            separator=self.tokenizer.separator,
            script=script,
        )
        return create_engine(name, options) if place is None else ProcessEngine(name, options, place)


def _check_vocabulary(folder: Path, tokenizer: PromptTokenizer) -> None:
    """A tokenizer of another model would ask for rows that the embedding matrix does not have."""
    rows = read_config(folder).get("vocab_size")
    if isinstance(rows, int) and tokenizer.vocabulary > rows:
        raise ConfigurationError(
            f"the tokenizer in {folder} has ids up to {tokenizer.vocabulary - 1}, but config.json has a vocabulary "
            f"of {rows}: one of them belongs to another checkpoint"
        )
