"""Sections G-08, G-09 and G-13: bodies that break servers, on every path; the answer is a 4xx and no echo."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest
from tests.figures import Measured
from tests.live import LiveServer

from rerankd.wire.registry import ROUTES

HOSTILE = {
    "nan": b'{"query": "q", "documents": ["d"], "top_n": NaN}',
    "infinity": b'{"query": "q", "documents": ["d"], "top_n": -Infinity}',
    "too_large_a_number": b'{"query": "q", "documents": ["d"], "top_n": 1e400}',
    "lone_surrogate": b'{"query": "\\ud800", "documents": ["d"]}',
    "lone_surrogate_in_a_key": b'{"query": "q", "documents": ["d"], "\\ud800": 1}',
    "bad_utf8": b'{"query": "\xff\xfe", "documents": ["d"]}',
    "byte_order_mark": b'\xef\xbb\xbf{"query": "q", "documents": ["d"]}',
    "utf16": '{"query": "q", "documents": ["d"]}'.encode("utf-16"),
    "a_million_deep": b"[" * 1_000_000 + b"]" * 1_000_000,
    "deep_object": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "an_integer_of_5000_digits": b'{"query": "q", "documents": ["d"], "top_n": ' + b"9" * 5000 + b"}",
    "the_same_key_twice": b'{"query": "q", "query": "r", "documents": ["d"]}',
    "a_hundred_thousand_keys": json.dumps({str(number): 0 for number in range(100_000)}).encode(),
    "a_million_lists": b'{"query": "q", "documents": [' + b",".join([b"[]"] * 1_000_000) + b"]}",
    "half_a_million_objects": b'{"query": "q", "documents": [' + b",".join([b'{"a":1}'] * 450_000) + b"]}",
    "empty": b"",
    "nothing": b"null",
    "a_string": b'"query"',
    "a_number": b"7",
    "a_list": b"[]",
    "an_empty_object": b"{}",
    "two_values": b"{} {}",
    "a_trailing_comma": b'{"query": "q", "documents": ["d"],}',
    "wrong_types": b'{"query": 1, "documents": {"0": []}, "top_n": "all", "return_documents": 7}',
    "empty_query": b'{"query": "", "documents": ["d"]}',
    "no_documents": b'{"query": "q", "documents": []}',
    "nulls_for_documents": b'{"query": "q", "documents": [null, null]}',
    "lists_for_documents": b'{"query": "q", "documents": [["d"]]}',
}

HEAVY = {"a_million_deep", "deep_object", "a_hundred_thousand_keys", "a_million_lists", "half_a_million_objects"}
"""Read by the same code on every path, before any dialect sees it: sent to a few."""

EVERY_PATH = sorted({route.path.replace("{", "").replace("}", "") for route in ROUTES})
EVERY_READER = sorted({route.dialects: route.path.replace("{", "").replace("}", "") for route in ROUTES}.values())
"""One path of those that are read alike."""

paths_of = pytest.mark.parametrize(
    "paths",
    [
        pytest.param(EVERY_READER, id="every reader"),
        pytest.param(EVERY_PATH, id="every path", marks=pytest.mark.thorough),
    ],
)


@pytest.fixture(scope="module")
def client(fake_server: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=fake_server.url, headers={"Content-Type": "application/json"}, timeout=30) as client:
        yield client


@pytest.mark.promise("G-08")
@paths_of
@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_body_is_a_4xx_on_every_path(
    client: httpx.Client, measured: Measured, case: str, paths: list[str]
) -> None:
    tried = paths[::20] if case in HEAVY else paths
    statuses = {path: client.post(path, content=HOSTILE[case]).status_code for path in tried}
    measured("G-08", case, "4xx on every path", f"{sorted(set(statuses.values()))} on {len(statuses)} paths")
    assert {path: status for path, status in statuses.items() if not 400 <= status < 500} == {}
    assert client.get("/readyz").status_code == 200


def test_an_escaped_nul_is_a_character_like_any_other(client: httpx.Client) -> None:
    assert client.post("/rerank", content=b'{"query": "a\\u0000b", "documents": ["\\u0000"]}').status_code == 200


def test_a_pair_of_surrogates_is_a_character(client: httpx.Client) -> None:
    body = client.post("/rerank", content=b'{"query": "q", "documents": ["\\ud83d\\uddfc"]}').json()
    assert body["ranked_documents"] == ["\U0001f5fc"]


@pytest.mark.promise("U12")
def test_half_a_pair_in_one_document_fails_no_other(client: httpx.Client) -> None:
    documents = b'["fine one", "bad \\udbff tail", "fine two"]'
    for path, name in (("/rerank", b"documents"), ("/v2/rerank", b"documents"), ("/tei/rerank", b"texts")):
        response = client.post(path, content=b'{"query": "q", "%b": %b}' % (name, documents))
        assert response.status_code == 200
        assert f"{name.decode()}[1]" in response.headers["x-warnings"]
    response = client.post("/batch_rerank", content=b'{"pairs": [{"query": "q", "documents": %b}]}' % documents)
    assert len(response.json()["results"][0]["scores"]) == 3
    assert "pairs[0].documents[1]" in response.json()["warnings"][0]


@pytest.mark.promise("G-09")
@pytest.mark.parametrize(
    "field",
    ["query", "documents", "texts", "top_n", "top_k", "instruction", "model", "truncation_direction", "priority"],
)
def test_a_wrong_field_of_a_megabyte_is_not_sent_back(client: httpx.Client, measured: Measured, field: str) -> None:
    text = "needle-" + "x" * 1_000_000
    longest = 0
    for wrong in ({text: text}, [[text]], text):
        body = json.dumps({"query": "q", "documents": ["d"], field: wrong})
        for path in ("/rerank", "/v1/rerank", "/v2/rerank", "/score", "/no/such/path"):
            response = client.post(path, content=body)
            if response.status_code != 200:
                longest = max(longest, len(response.content))
                assert b"needle" not in response.content
    measured("G-09", f"a wrong {field} of 1 MB", "answer < 4 KB, no input text", f"at most {longest} bytes, none")
    assert longest < 4096


@pytest.mark.promise("G-13")
@paths_of
def test_too_many_documents_are_refused_on_every_path(
    client: httpx.Client, measured: Measured, paths: list[str]
) -> None:
    texts = ["d"] * 1001
    bodies = [
        {"query": "q", "documents": texts},
        {"query": "q", "texts": texts},
        {"query": "q", "input": texts},
        {"query": {"text": "q"}, "passages": [{"text": text} for text in texts]},
        {"text_1": "q", "text_2": texts},
        {"queries": "q", "documents": texts},
        {"queries": ["q"] * 1001, "documents": texts},
        {"inputs": [["q", "d"]] * 1001},
        {"model": "m", "input": {"query": "q", "documents": texts}},
        {"pairs": [{"query": "q", "documents": texts}] * 2},
        {
            "input": "q",
            "questions": [{"type": "predicate", "name": f"{n}", "instructions": "d"} for n in range(1001)],
        },
        {"state": "d", "questions": {f"{n}": {"type": "noul", "instructions": "q"} for n in range(1001)}},
    ]
    refused = set()
    for body in bodies:
        content = json.dumps(body)
        for path in paths:
            response = client.post(path, content=content)
            assert response.status_code != 200 or path == "/batch_rerank", f"{path} took {list(body)}"
            assert response.status_code < 500
            # /batch_rerank answers 200 with each query's own error in its place.
            if response.status_code == 413 or '"code":"too_large"' in response.text:
                assert "max_documents" in response.text or "max_queries" in response.text
                refused.add(path)
    measured("G-13", "1,001 documents", "413 on every path", f"{len(refused)} of {len(paths)} paths")
    assert set(paths) - refused == set()
