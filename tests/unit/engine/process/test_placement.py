"""Each of several engines has its part of the machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rerankd.engine.process import placement
from rerankd.engine.process.placement import ordered_cpus, places


def machine(folder: Path, nodes: dict[int, str], siblings: dict[int, str]) -> Path:
    for node, cpus in nodes.items():
        (folder / "node" / f"node{node}").mkdir(parents=True)
        (folder / "node" / f"node{node}" / "cpulist").write_text(cpus + "\n")
    for cpu, text in siblings.items():
        topology = folder / "cpu" / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(text + "\n")
    return folder


@pytest.fixture
def two_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two nodes of two cores with two hyperthreads each, numbered as Linux does."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(placement, "usable_cores", lambda: 8)
    pairs = {cpu: f"{cpu % 4},{cpu % 4 + 4}" for cpu in range(8)}
    return machine(tmp_path, {0: "0-1,4-5", 1: "2-3,6-7"}, pairs)


def test_cpus_stand_by_node_and_core(two_nodes: Path) -> None:
    assert ordered_cpus(two_nodes) == [0, 4, 1, 5, 2, 6, 3, 7]


def test_a_part_lies_in_one_node(two_nodes: Path) -> None:
    assert [place.cpus for place in places(2, "cpu", two_nodes)] == [(0, 4, 1, 5), (2, 6, 3, 7)]
    assert [place.cpus for place in places(4, "cpu", two_nodes)] == [(0, 4), (1, 5), (2, 6), (3, 7)]
    assert {place.threads for place in places(4, "cpu", two_nodes)} == {2}


def test_a_quota_bounds_the_threads(two_nodes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "usable_cores", lambda: 2)
    assert {place.threads for place in places(2, "cpu", two_nodes)} == {1}


def test_more_engines_than_cpus_share_them(two_nodes: Path) -> None:
    assert {place.cpus for place in places(9, "cpu", two_nodes)} == {()}


def test_each_has_a_gpu_where_there_are_some(two_nodes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert [place.gpu for place in places(3, "auto", two_nodes)] == ["3", "5", "3"]
    assert {place.gpu for place in places(2, "cpu", two_nodes)} == {""}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert {place.gpu for place in places(2, "auto", two_nodes)} == {""}
