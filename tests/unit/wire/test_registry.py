from __future__ import annotations

import pytest

from rerankd.errors import InvalidRequest
from rerankd.wire.registry import MOUNTED_GETS, ROUTES, not_found

ROUTE = {route.path: route for route in ROUTES}


@pytest.mark.parametrize(
    ("path", "body", "dialect"),
    [
        ("/rerank", {"documents": None}, "native"),
        ("/rerank", {"texts": None}, "tei"),
        ("/rerank", {}, "native"),
        ("/rerank", [], "native"),
        ("/v1/rerank", {"top_k": None, "documents": []}, "superset"),
        ("/v1/reranking", {"input": []}, "mixedbread"),
        ("/v1/reranking", {"documents": []}, "llamacpp"),
        ("/reranking", {"passages": []}, "nvidia"),
        ("/infinity/rerank", {"texts": [], "documents": []}, "infinity"),
    ],
)
def test_the_presence_of_a_key_decides_and_a_mount_beats_it(path: str, body: object, dialect: str) -> None:
    assert ROUTE[path].choose(body).name == dialect


def test_a_body_that_fits_two_shapes_is_refused_with_both_names() -> None:
    with pytest.raises(InvalidRequest) as caught:
        ROUTE["/rerank"].choose({"texts": [], "documents": []})
    assert "rerankd (`documents`)" in caught.value.message
    assert "text-embeddings-inference (`texts`)" in caught.value.message


@pytest.mark.promise("U11")
@pytest.mark.parametrize(
    ("body", "dialect"),
    [
        ({"query": "q", "documents": ["a"], "texts": None}, "native"),
        ({"query": "q", "documents": None, "texts": ["a"]}, "tei"),
    ],
)
def test_a_null_is_not_given(body: dict[str, object], dialect: str) -> None:
    """The same for the key of the other shape, whichever of the two it is."""
    assert ROUTE["/rerank"].choose(body).name == dialect


@pytest.mark.promise("W1")
def test_the_model_of_a_path_joins_the_body_where_it_names_none() -> None:
    route = ROUTE["/inference/{model}"]
    parameters = {"model": "Qwen/Qwen3-Reranker-4B"}
    assert route.with_path({}, parameters) == {"model": "Qwen/Qwen3-Reranker-4B"}
    assert route.with_path({"model": "mine"}, parameters) == {"model": "mine"}
    for nothing in (None, ""):
        assert route.with_path({"model": nothing}, parameters) == parameters
    assert route.with_path([1], parameters) == [1]


@pytest.mark.parametrize(("typed", "meant"), [("/v1/rerank/rerank", "/v1/rerank"), ("/v1/ranks", "/v1/rerank")])
def test_an_unknown_path_is_answered_with_the_right_ones(typed: str, meant: str) -> None:
    message = not_found(typed).message
    assert "POST /rerank" in message
    assert typed not in message
    assert meant in message


def test_an_unknown_path_is_never_repeated() -> None:
    assert "<script>" not in not_found("/<script>" + "x" * 100_000).message


def test_paths_are_unique_and_have_no_trailing_slash() -> None:
    paths = [route.path for route in ROUTES]
    assert len(paths) == len(set(paths))
    assert all(path == "/" or not path.endswith("/") for path in [*paths, *MOUNTED_GETS])
