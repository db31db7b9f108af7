"""An engine in a process of its own is an engine like any other."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rerankd.core.prefix_tree import batch_of
from rerankd.engine.base import EngineFault, EngineOptions, EngineOutOfMemory, HeadSpec
from rerankd.engine.fake import FakeEngine
from rerankd.engine.process.engine import ProcessEngine
from rerankd.engine.process.frames import batch_frame, batch_of_frame
from rerankd.engine.process.placement import Place
from rerankd.errors import ConfigurationError

PROMPTS = [np.array(ids, dtype=np.int32) for ids in ([1, 2, 3], [1, 2, 4, 5], [9])]


def options(script: str = "") -> EngineOptions:
    return EngineOptions(Path("model"), HeadSpec("words", 1, 2), script=script)


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Iterator[ProcessEngine]:
    made = ProcessEngine("fake", options(getattr(request, "param", "")), Place((min(os.sched_getaffinity(0)),), 1))
    made.load()
    yield made
    made.close()


def test_a_batch_survives_its_frame() -> None:
    batch = batch_of(PROMPTS)
    again = batch_of_frame(*batch_frame(batch))
    for name in ("token_ids", "offsets", "parents", "leaves", "cached", "slots"):
        np.testing.assert_array_equal(getattr(again, name), getattr(batch, name))
        assert getattr(again, name).dtype == getattr(batch, name).dtype


def test_scores_and_info_are_the_engines_own(engine: ProcessEngine) -> None:
    here = FakeEngine(options())
    np.testing.assert_array_equal(engine.score(batch_of(PROMPTS)), here.score(batch_of(PROMPTS)))
    assert engine.info == here.info
    assert engine.health()
    assert os.sched_getaffinity(engine.pid) == {min(os.sched_getaffinity(0))}


@pytest.mark.parametrize("engine", ["oom_above_tokens=2"], indirect=True)
def test_a_shortage_of_memory_is_one_here(engine: ProcessEngine) -> None:
    with pytest.raises(EngineOutOfMemory):
        engine.score(batch_of(PROMPTS))
    assert len(engine.score(batch_of(PROMPTS[2:]))) == 1


@pytest.mark.parametrize("engine", ["fail_on=9"], indirect=True)
def test_a_failed_batch_fails_alone(engine: ProcessEngine) -> None:
    with pytest.raises(RuntimeError):
        engine.score(batch_of(PROMPTS))
    assert len(engine.score(batch_of(PROMPTS[:2]))) == 2


def test_a_process_that_ends_is_a_fault(engine: ProcessEngine) -> None:
    os.kill(engine.pid, signal.SIGKILL)
    with pytest.raises(EngineFault, match="signal 9"):
        engine.score(batch_of(PROMPTS))


def test_wrong_settings_are_said_as_such() -> None:
    engine = ProcessEngine("onnx", EngineOptions(Path("/nowhere"), HeadSpec("words", 1, 2)), Place((), 1))
    with pytest.raises((ConfigurationError, RuntimeError)):
        engine.load()
    engine.close()


def test_closing_ends_the_process(engine: ProcessEngine) -> None:
    pid = engine.pid
    engine.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
