"""rerankd.cores: affinity and CPU quota both count."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rerankd.checkpoint import Checkpoint
from rerankd.cores import usable_cores
from rerankd.prompt.build import PromptBuilder
from rerankd.prompt.workers import PromptWorkers

pytestmark = pytest.mark.promise("U7")


def machine(folder: Path, own: str, files: dict[str, str]) -> int:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "own").write_text(own)
    return usable_cores(folder, folder / "own")


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "100000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {}, 8),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "max 100000\n"}, 3),
        ("0::/gone/from/here\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/../../other\n", {"cpu.max": "200000 100000\n"}, 2),
        ("4:cpu,cpuacct:/x\n", {"cpu/x/cpu.cfs_quota_us": "400000\n", "cpu/x/cpu.cfs_period_us": "100000\n"}, 4),
        (
            "4:cpu,cpuacct:/x\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "100000", "cpu,cpuacct/cpu.cfs_period_us": "50000"},
            2,
        ),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ("0::/\n", {"cpu.max": "1600000 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "nonsense\n"}, 8),
        ("0::/\n", {"cpu.max": "100 0\n"}, 8),
        ("", {}, 8),
    ],
)
def test_the_smaller_of_affinity_and_quota_counts(
    tmp_path: Path, own: str, files: dict[str, str], cores: int
) -> None:
    assert machine(tmp_path, own, files) == cores


def test_the_affinity_of_the_process_counts() -> None:
    one = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    code = f"{one}; from rerankd.cores import *; print(usable_cores())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"


def test_threads_follow_the_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr("rerankd.engine.native.cpu.backend.usable_cores", lambda: 1)
    monkeypatch.setattr("rerankd.prompt.workers.usable_cores", lambda: 3)
    checkpoint = Checkpoint.open("tiny")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        engine = checkpoint.engine("native", device="cpu")
        engine.load()
        assert torch.get_num_threads() == 1
        engine.close()
    finally:
        torch.set_num_threads(before)
    assert PromptWorkers(PromptBuilder(checkpoint.tokenizer))._pool._max_workers == 2
