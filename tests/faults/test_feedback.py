"""Experiments over real servers: what is acknowledged outlives a kill, and two replicas say the same."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path

import httpx
import pytest
from tests.live import LiveServer

from rerankd.experiments.database import open_database
from rerankd.experiments.store import stored_answers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

SETTINGS = """
[experiments.words.arms.control]
[experiments.words.arms.candidate]
instruction = "Find the opposite"
"""
BODY = {"query": "capital of France", "documents": ["Berlin", "Paris", "Rome"]}


def ask(client: httpx.Client, server: LiveServer, user: int) -> httpx.Response:
    answer = client.post(f"{server.url}/rerank", json=BODY, headers={"X-Experiment-Key": f"user-{user}"})
    assert answer.status_code == 200, answer.text
    return answer


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_killed_server_loses_no_feedback_and_its_replica_and_successor_know_the_arms(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    store = str(tmp_path / "feedback.sqlite")
    if kind == "postgres":
        store = request.getfixturevalue("postgres_server").url
    (tmp_path / "rerankd.toml").write_text(SETTINGS)
    servers = [
        LiveServer("--threads", "1", "--feedback-store", store, log=tmp_path / f"{number}.log") for number in range(2)
    ]
    try:
        for server in servers:
            server.wait_ready()
        acknowledged = {}
        with httpx.Client(timeout=30) as client:
            arms = [[ask(client, server, user).headers["x-experiment"] for user in range(30)] for server in servers]
            assert arms[0] == arms[1]
            assert len(set(arms[0])) == 2
            for user in range(30):
                answer = ask(client, servers[0], user)
                given = {"request_id": answer.headers["x-request-id"], "clicked": [user % 3]}
                stored = client.post(f"{servers[0].url}/feedback", json=given)
                assert stored.status_code == 200, stored.text
                acknowledged[given["request_id"]] = user % 3
            servers[0].process.send_signal(signal.SIGKILL)
            servers[0].process.wait()
            wrong = client.post(f"{servers[1].url}/feedback", json={"request_id": "nobody's", "clicked": [0]})
            assert wrong.status_code == 404
            assert "request id" in wrong.text
            # The file is shared: the other replica knows of the answer.
            elsewhere = client.post(
                f"{servers[1].url}/feedback", json={"request_id": next(iter(acknowledged)), "used": [1]}
            )
            assert elsewhere.status_code == 200
            servers.append(
                LiveServer("--threads", "1", "--feedback-store", store, log=tmp_path / "2.log").wait_ready()
            )
            assert [ask(client, servers[2], user).headers["x-experiment"] for user in range(30)] == arms[0]
    finally:
        for server in servers:
            server.process.kill()
            server.process.wait()
    with contextlib.closing(open_database(store)) as database:
        found = list(stored_answers(database, "words"))
    kept = {answer.request_id: liked["clicked"] for answer, liked in found if "clicked" in liked}
    assert kept == {id: frozenset({index}) for id, index in acknowledged.items()}
