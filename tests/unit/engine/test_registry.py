from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rerankd.engine.base import EngineOptions, HeadSpec
from rerankd.engine.registry import create_engine
from rerankd.errors import ConfigurationError
from rerankd.settings.testing import TESTING_VARIABLE

OPTIONS = EngineOptions(folder=Path(), head=HeadSpec("words", 1, 0))


def test_an_unknown_engine_names_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"there are auto, native, onnx, reference, vllm$"):
        create_engine("turbo", OPTIONS)


def test_the_fake_engine_is_for_tests_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert create_engine("fake", OPTIONS).info.engine == "fake"
    monkeypatch.delenv(TESTING_VARIABLE)
    with pytest.raises(ConfigurationError, match="there is no engine 'fake'"):
        create_engine("fake", OPTIONS)


def test_engines_are_imported_only_when_asked_for() -> None:
    code = "import sys, rerankd.engine.registry; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
