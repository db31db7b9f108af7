from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rerankd.engine.base import EngineOptions, HeadSpec
from rerankd.engine.registry import create_engine
from rerankd.errors import ConfigurationError

OPTIONS = EngineOptions(folder=Path(), head=HeadSpec("words", 1, 0))


def test_an_unknown_engine_names_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="auto, native, onnx, reference, vllm, fake"):
        create_engine("turbo", OPTIONS)


def test_engines_are_imported_only_when_asked_for() -> None:
    code = "import sys, rerankd.engine.registry; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
