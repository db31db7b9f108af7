"""What the comparison counts: lengths, operations, turns, and which rows are void."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks.engine import Setting, measure, shown, take_turn
from benchmarks.engine_process import EngineProcess, Scored
from benchmarks.flops import request_flops
from benchmarks.turn_log import TurnLog, Turns
from benchmarks.workloads import WORKLOADS, Request, Texts, Workload
from tests.checkpoints import Layout, shapes


class Stub(EngineProcess):
    """An engine's process that reads as many tokens as it is told and gives one score."""

    details, load_seconds, idle_mb = "", 1.0, 4.0

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens

    def score(self, request: dict[str, object]) -> Scored:
        return Scored(1.0, 1.0, 10.0, [0.5], self._tokens)


def request(prefix: int, tails: list[int]) -> Request:
    def ids(length: int) -> np.ndarray:
        return np.arange(length, dtype=np.int32)

    return Request("q", ("d",) * len(tails), "i", ids(prefix), tuple(map(ids, tails)))


@pytest.fixture(scope="module")
def texts(qwen3_file: Path) -> Texts:
    return Texts(qwen3_file)


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_request_has_the_lengths_that_its_workload_says(name: str, texts: Texts) -> None:
    workload = WORKLOADS[name]
    one, other = texts.request(workload, 0), texts.request(workload, 1)
    assert len(one.prefix) == workload.prefix
    assert [len(tail) for tail in one.tails] == [workload.tail] * workload.documents
    assert one.query != other.query
    assert np.array_equal(texts.pairs(one.query, one.documents)[0].prefix, one.prefix)


def test_a_workload_shorter_than_the_prompt_is_refused(texts: Texts) -> None:
    with pytest.raises(ValueError, match="at least one word"):
        texts.request(Workload(2, 10, 20))


def test_an_engine_that_reads_other_tokens_is_void() -> None:
    requests = {"mine": [request(5, [3, 4])] * 2}
    right, wrong = Turns(), Turns()
    take_turn(Stub(17), request(1, [1]), requests, {"mine": right})
    take_turn(Stub(16), request(1, [1]), requests, {"mine": wrong})
    assert (right.void, wrong.void) == ("", "it reads 16 tokens instead of 17")
    assert (len(right.scored), right.over_idle_mb) == (2, 6.0)


def test_an_engine_that_is_not_there_or_fails_is_void_and_the_others_are_measured(
    texts: Texts, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    setting = Setting(tmp_path, texts, 200, 1, {"openvino": tmp_path / "nowhere"})
    found = measure(["fake:float32", "openvino:int8", "nonsense"], {"mine": Workload(2, 77, 33)}, setting, 1, 2)
    void = {name: turns.void for name, turns in found["mine"].items()}
    assert void.pop("fake:float32") == ""
    assert "nowhere" in void["openvino:int8"]
    assert "there is no engine 'nonsense'" in void["nonsense"]
    assert len(found["mine"]["fake:float32"].scored) == 2


def test_a_comparison_is_made_in_pieces_and_starts_no_turn_twice(
    texts: Texts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []

    class Engine(Stub):
        def close(self) -> None: ...

    def start(_: Setting, name: str) -> Engine:
        started.append(name)
        if name == "interrupted":
            raise KeyboardInterrupt
        return Engine(2 * (77 + 33))

    monkeypatch.setattr(Setting, "start", start)
    setting, file = Setting(tmp_path, texts, 200), tmp_path / "turns"

    def piece(*names: str, rounds: int = 1, **same: object) -> dict[str, Turns]:
        return measure(names, {"mine": Workload(2, 77, 33)}, setting, rounds, 2, TurnLog(file, same))["mine"]

    with pytest.raises(KeyboardInterrupt):
        piece("a", "interrupted", "b")
    assert list(piece("a", "b")) == ["a", "b"]
    found = piece("c", "b", rounds=2)
    assert started == ["a", "interrupted", "b", "c", "b", "c"]
    assert {name: len(turns.scored) for name, turns in found.items()} == {"a": 2, "b": 4, "c": 4}
    with pytest.raises(ValueError, match="another_cpu"):
        piece("a", cpu="another_cpu")


def test_a_void_row_shows_its_reason_and_no_figure() -> None:
    (row,) = shown([{"engine": "x", "void": "it reads 16 tokens instead of 17"}])
    assert row["seconds"] == "void: it reads 16 tokens instead of 17"
    assert {value for name, value in row.items() if name not in ("engine", "seconds")} == {""}


def test_the_best_turn_is_the_quickest() -> None:
    turns = Turns([Scored(seconds, 1.0, 1.0, [0.5], 1) for seconds in (3.0, 1.0, 2.0)])
    assert turns.best.seconds == 1.0


def test_the_operations_of_a_request_are_those_of_its_products() -> None:
    """Counted one token at a time, from the shapes of the weights."""
    layout, workload = Layout(), Workload(3, 4, 5)
    sizes = {name: int(np.prod(shape)) for name, shape in shapes(layout) if ".layers.0." in name and len(shape) == 2}
    keys = sum(size for name, size in sizes.items() if "k_proj" in name or "v_proj" in name)
    rest = sum(sizes.values()) - keys
    wide = layout.num_attention_heads * layout.head_dim
    positions = [*range(4), *(4 + place for _ in range(3) for place in range(5))]
    layers = layout.num_hidden_layers - 1
    whole = sum(2 * (keys + rest) + 4 * wide * (position + 1) for position in positions)
    last = sum(2 * keys for _ in positions) + 3 * (2 * rest + 4 * wide * 9)
    assert request_flops(workload, layout) == layers * whole + last


def test_an_engine_in_a_process_of_its_own_answers(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    options = {"engine": "fake", "dtype": "float32", "folder": str(tmp_path), "positive": 1, "negative": 0,
               "threads": 1, "max_pair_tokens": 1024}  # fmt: skip
    message = {"query": "q", "documents": ["a", "b"], "instruction": "i", "prefix": [1, 2], "tails": [[3], [4, 5]]}
    with EngineProcess(Path(sys.executable), options) as engine:
        first, second = engine.score(message), engine.score(message)
    assert first.tokens == 7
    assert first.probabilities == second.probabilities
    assert 0 < engine.idle_mb <= first.peak_mb


def test_an_engine_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    options = {"engine": "nonsense", "dtype": "", "folder": str(tmp_path), "positive": 1, "negative": 0,
               "threads": 1, "max_pair_tokens": 1024}  # fmt: skip
    with pytest.raises(RuntimeError, match="there is no engine 'nonsense'"):
        EngineProcess(Path(sys.executable), options)
