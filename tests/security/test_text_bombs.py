"""Sections G-10 to G-12: texts that cost a tokenizer seconds and gigabytes, and texts that are just too long."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.figures import Measured
from tests.live import LiveServer, running_server
from tests.raw import Lag, Memory

MB = 1024 * 1024
BOMBS = {
    "digits": "1234567890",
    "spaces": " ",
    "emoji": "👩‍👩‍👧‍👦",
    "combining": "a\u0301\u0302\u0303",
    "one letter": "a",
}

BUSY, QUIET = 0.25, 0.05
"""Seconds for which the loop may be held: beside other tests, and on a machine that does nothing else."""
CASES = [
    ("combining", BUSY),
    pytest.param("digits", BUSY, marks=pytest.mark.thorough),
    *[pytest.param(kind, QUIET, marks=pytest.mark.slow) for kind in BOMBS],
]


@pytest.fixture(scope="module")
def tokenising_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """The fake engine behind the embedded model's own tokenizer."""
    log = tmp_path_factory.mktemp("texts") / "server.log"
    with running_server("--engine", "fake", "--cache", "off", log=log) as server:
        httpx.post(f"{server.url}/rerank", json={"query": "warm", "documents": ["up"]}).raise_for_status()
        yield server


def seconds_of(server: LiveServer, body: bytes) -> tuple[httpx.Response, float]:
    with httpx.Client(base_url=server.url, headers={"Content-Type": "application/json"}, timeout=60) as client:
        client.get("/livez")
        started = time.perf_counter()
        response = client.post("/rerank", content=body)
        return response, time.perf_counter() - started


@pytest.mark.promise("G-10")
@pytest.mark.parametrize(("kind", "lag_allowed"), CASES)
def test_a_text_of_megabytes_is_refused_by_its_characters(
    tokenising_server: LiveServer, measured: Measured, kind: str, lag_allowed: float
) -> None:
    unit = BOMBS[kind]
    text = unit * (3_900_000 // len(json.dumps(unit, ensure_ascii=False).encode()[1:-1]))
    body = json.dumps({"query": "q", "documents": [text]}, ensure_ascii=False).encode()
    memory = Memory(tokenising_server.process.pid)
    with Lag(tokenising_server.url).watched() as lag:
        response, seconds = seconds_of(tokenising_server, body)
    grown = memory.growth()
    measured(
        "G-10",
        f"{len(body) / 1e6:.1f} MB of {kind}",
        f"413 (sent and read), lag < {lag_allowed * 1000:.0f} ms, growth < 32 MB",
        f"{response.status_code} in {seconds * 1000:.0f} ms, lag {lag.worst * 1000:.0f} ms, {grown / MB:.1f} MB",
    )
    assert response.status_code == 413
    assert grown < 32 * MB
    # The time holds the sending of 4 MB.
    assert seconds < 2 * lag_allowed
    assert lag.worst < lag_allowed


@pytest.mark.promise("G-11")
@pytest.mark.parametrize(("kind", "lag_allowed"), CASES)
def test_as_many_characters_as_are_allowed_do_not_hold_the_loop(
    tokenising_server: LiveServer, measured: Measured, kind: str, lag_allowed: float
) -> None:
    text = (BOMBS[kind] * 100_000)[:100_000]
    body = json.dumps({"query": "q", "documents": [text] * 5}, ensure_ascii=False).encode()
    with Lag(tokenising_server.url).watched() as lag:
        response, seconds = seconds_of(tokenising_server, body)
    measured(
        "G-11",
        f"5 documents of 100,000 characters of {kind}",
        f"an answer; lag < {lag_allowed * 1000:.0f} ms",
        f"{response.status_code} in {seconds:.2f} s, lag {lag.worst * 1000:.0f} ms",
    )
    assert response.status_code < 500
    assert lag.worst < lag_allowed


@pytest.mark.promise("G-11")
@pytest.mark.parametrize(
    ("words", "truncate", "status"), [(8_000, True, 200), (18_000, True, 200), (18_000, False, 400)]
)
def test_a_long_but_legal_document_is_scored_or_refused_as_asked(
    tokenising_server: LiveServer, measured: Measured, words: int, truncate: bool, status: int
) -> None:
    body = {"query": "q", "documents": ["word " * words, "short"], "truncate": truncate}
    response, _ = seconds_of(tokenising_server, json.dumps(body).encode())
    measured("G-11", f"{words} words, truncate={truncate}", str(status), str(response.status_code))
    assert response.status_code == status
    assert httpx.get(f"{tokenising_server.url}/readyz").status_code == 200


@pytest.mark.promise("G-12")
def test_one_token_too_many_is_refused_and_the_next_request_is_fine(tmp_path: Path, measured: Measured) -> None:
    with (
        running_server("--engine", "fake", "--max-pair-tokens", "128", log=tmp_path / "log") as server,
        httpx.Client(base_url=server.url) as client,
    ):

        def status_of(words: int) -> int:
            body = {"query": "q", "documents": ["a " * words], "truncate": False}
            return client.post("/rerank", json=body).status_code

        statuses = [status_of(words) for words in range(1, 160)]
        refused = statuses.index(400)
        measured(
            "G-12", "a document longer by one token each time", "200s, then 400s", f"400 from {refused + 1} words"
        )
        assert statuses == [200] * refused + [400] * (len(statuses) - refused)
        truncated = client.post("/rerank", json={"query": "q", "documents": ["a " * 500]}).json()
        assert "truncated" in truncated["meta"]["warnings"][0]
        assert status_of(1) == 200
