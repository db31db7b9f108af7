from __future__ import annotations

import pytest

from rerankd.http.route_table import RouteTable
from rerankd.wire.registry import NATIVE, ROUTES, Route


def test_every_path_of_the_wire_is_found() -> None:
    table = RouteTable(ROUTES)
    for route in ROUTES:
        found = table.find(route.path.replace("{", "").replace("}", ""))
        assert found is not None
        assert found[0] is route


@pytest.mark.promise("U4")
def test_a_model_in_a_path_may_have_slashes() -> None:
    table = RouteTable([Route("/inference/{model}", (NATIVE,), "x")])
    found = table.find("/inference/tiny")
    assert found is not None
    assert found[1] == {"model": "tiny"}
    found = table.find("/inference/Qwen/Qwen3-Reranker-0.6B")
    assert found is not None
    assert found[1] == {"model": "Qwen/Qwen3-Reranker-0.6B"}
    assert table.find("/inference/") is None


@pytest.mark.parametrize("path", ["/RERANK", "//rerank", "/rerank/x", "rerank", "", "/rerank\n"])
def test_a_path_that_only_looks_alike_is_not_found(path: str) -> None:
    assert RouteTable(ROUTES).find(path) is None
