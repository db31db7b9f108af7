"""Requests and their arms, over a whole server with the fake engine."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.served import Served, served, until

from rerankd.errors import ConfigurationError
from rerankd.experiments.analysis import analyse
from rerankd.experiments.database import open_database
from rerankd.experiments.setup import experiments_of
from rerankd.experiments.store import stored_agreements, stored_answers
from rerankd.service.interleaved import interleaved
from rerankd.service.ranking import document_score, rank
from rerankd.settings import ArmSettings, ExperimentSettings, ModelSettings, Settings
from rerankd.types import RerankResult

DOCUMENTS = [f"document {number}" for number in range(8)]
SPLIT = {"control": ArmSettings(), "candidate": ArmSettings(instruction="Find the opposite")}


@contextlib.asynccontextmanager
async def experimenting(folder: Path, **rule: Any) -> AsyncIterator[Served]:
    experiment = ExperimentSettings(**{"arms": SPLIT, **rule})
    file = str(folder / "feedback.sqlite")
    async with served(experiments={"words": experiment}, feedback_store=file, admin_keys="root:secret") as server:
        yield server


async def ask(server: Served, key: str = "me", **fields: Any) -> Any:
    body = {"query": "q", "documents": DOCUMENTS, **fields}
    return await server.client.post("/rerank", json=body, headers={"X-Experiment-Key": key})


async def test_each_arm_answers_its_keys_and_says_so(tmp_path: Path) -> None:
    async with experimenting(tmp_path) as server:
        arms = {}
        for number in range(40):
            answer = await ask(server, f"user-{number}")
            arms[f"user-{number}"] = answer.json()["meta"]["experiment"]["arm"]
            assert answer.headers["x-experiment"] == f"words={arms[f'user-{number}']}"
        counts = Counter(arms.values())
        assert set(counts) == {"control", "candidate"}
        for key, arm in list(arms.items())[:8]:
            by_field = await server.rerank("q", DOCUMENTS, user=key)
            assert by_field.headers["x-experiment"] == f"words={arm}"
        # By the query, where nobody sends a key; what is no text is no user.
        assert "x-experiment" in (await server.rerank("q", DOCUMENTS, user=5)).headers
        plain = (await server.rerank("q", DOCUMENTS)).json()
        for key, arm in list(arms.items())[:8]:
            # `tiny` reads no instruction, and says so of the arm that puts one into the request.
            warnings = (await ask(server, key)).json()["meta"].get("warnings", [])
            assert any("instruction" in warning for warning in warnings) == (arm == "candidate")
        assert plain["meta"]["experiment"]["name"] == "words"
        for arm, count in counts.items():
            assert server.metric("reranker_experiment_seconds_count", experiment="words", arm=arm) >= count
    found = list(stored_answers(open_database(str(tmp_path / "feedback.sqlite")), "words"))
    assert len(found) == 40 + 8 + 1 + 1 + 8
    assert all(sorted(answer.ranked) == list(range(8)) for answer, _ in found)


async def test_a_restart_changes_no_arm(tmp_path: Path) -> None:
    seen: list[list[str]] = []
    for _ in range(2):
        async with experimenting(tmp_path) as server:
            seen.append([(await ask(server, str(n))).headers["x-experiment"] for n in range(12)])
    assert seen[0] == seen[1]


async def test_feedback_to_an_answer_is_kept_and_to_none_is_refused(tmp_path: Path) -> None:
    async with experimenting(tmp_path) as server:
        answer = await ask(server)
        given = {"request_id": answer.headers["x-request-id"], "clicked": [1], "used": [2]}
        assert (await server.client.post("/feedback", json=given)).status_code == 200
        by_id = await server.client.post("/feedback", json={"request_id": answer.json()["id"], "clicked": [3]})
        assert by_id.status_code == 200
        wrong = await server.client.post("/feedback", json={"request_id": "no-such", "clicked": [1]})
        assert wrong.status_code == 404
        assert "request id" in wrong.text
        for name in (rb"a\u0000b", b"nobody's", b"x" * 2_000):
            content = b'{"request_id": "' + name + b'", "clicked": [0]}'
            assert (await server.client.post("/feedback", content=content)).status_code == 404
        for body in (
            {"request_id": "x"},
            {"request_id": "x", "clicked": ["1"]},
            {"request_id": "x", "clicked": [-1]},
            {"request_id": "x", "clicked": [True]},
            {"clicked": [1]},
            {"request_id": 5, "clicked": [1]},
            {**given, "clicked": [8]},
            {**given, "clicks": [1]},
            {**given, "clicked": [0] * 1001},
            [],
        ):
            assert (await server.client.post("/feedback", json=body)).status_code == 400, body
    ((_, liked),) = stored_answers(open_database(str(tmp_path / "feedback.sqlite")), "words")
    assert liked == {"clicked": {1, 3}, "used": {2}}


async def test_a_server_without_experiments_keeps_nothing() -> None:
    async with served(admin_keys="root:secret") as server:
        answer = await server.client.post("/feedback", json={"request_id": "x", "clicked": [1]})
        assert answer.status_code == 404
        assert "no experiments" in answer.text
        assert "experiment" not in (await server.rerank("q", DOCUMENTS)).json()["meta"]


async def test_ramp_stop_and_pin_without_a_restart(tmp_path: Path) -> None:
    admin = {"Authorization": "Bearer secret"}
    async with experimenting(tmp_path, traffic=0.0) as server:

        async def control(name: str = "words", **body: Any) -> Any:
            return await server.client.post(f"/admin/experiments/{name}", json=body, headers=admin)

        assert "x-experiment" not in (await ask(server)).headers
        assert (await server.client.get("/admin/experiments")).status_code == 401
        assert (await control(pins={"me": "candidate"})).json()["experiments"][0]["pins"] == {"me": "candidate"}
        assert (await ask(server)).json()["meta"]["experiment"] == {
            "name": "words", "arm": "candidate", "pinned": True
        }  # fmt: skip
        assert "x-experiment" not in (await ask(server, "you")).headers
        assert (await control(traffic=1)).status_code == 200
        assert "x-experiment" in (await ask(server, "you")).headers
        assert (await control(stopped=True, pins={"me": None})).status_code == 200
        assert "x-experiment" not in (await ask(server)).headers
        assert (await control("other", traffic=1)).status_code == 404
        for body in ({"traffic": 2}, {"traffic": True}, {"pins": {"me": "nobody"}}, {"stopped": 1}, {"weight": 1}):
            assert (await control(**body)).status_code == 400, body
    async with experimenting(tmp_path) as server:
        # What an operator said outlives the process.
        await until(lambda: server.service.experiments.state()[0]["stopped"])


async def test_interleaved_answers_name_their_teams(tmp_path: Path) -> None:
    arms = {"control": ArmSettings(), "candidate": ArmSettings(template="qwen3-reranker")}
    async with experimenting(tmp_path, method="interleave", arms=arms) as server:
        answer = await ask(server, top_n=6)
        body = answer.json()
        assert answer.headers["x-experiment"] == "words=control+candidate"
        teams = Counter(row["team"] for row in body["results"])
        assert teams["control"] + teams["candidate"] > 0
        assert teams.keys() <= {"control", "candidate", "control+candidate"}
        scores = [row["relevance_score"] for row in body["results"]]
        assert scores == sorted(scores, reverse=True)
        assert len(set(scores)) == 6
        assert (await ask(server, top_n=6)).json()["results"] == body["results"]
        liked = next(row for row in body["results"] if row["team"] in arms)
        given = {"request_id": answer.headers["x-request-id"], "clicked": [liked["index"]]}
        assert (await server.client.post("/feedback", json=given)).status_code == 200
    connection = open_database(str(tmp_path / "feedback.sqlite"))
    report = analyse("words", stored_answers(connection, "words"), [], {"control": 1, "candidate": 1})
    assert report.is_interleaved
    # One unit, two answers, one of them won.
    assert report.comparisons[0].effect.mean == (0.5 if liked["team"] == "candidate" else -0.5)


async def test_a_shadow_is_scored_when_nobody_waits(tmp_path: Path) -> None:
    arms = {"live": ArmSettings(), "other": ArmSettings(instruction="Find the opposite", shadow=True)}
    async with experimenting(tmp_path, arms=arms) as server:
        assert (await ask(server)).headers["x-experiment"] == "words=live"
        labels = {"experiment": "words", "arm": "other"}
        await until(lambda: server.metric("reranker_shadow_requests_total", outcome="scored", **labels) == 1, 30)
        assert server.metric("reranker_shadow_tau_count", **labels) == 1
    ((agreement,),) = [stored_agreements(open_database(str(tmp_path / "feedback.sqlite")), "words")]
    assert (agreement.arm, agreement.live) == ("other", "live")
    # `tiny` reads no instruction, so that the two agree.
    assert (agreement.tau, agreement.same_first) == (1.0, True)


async def test_a_shadow_gives_way_to_a_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rerankd.service.shadows._QUIET_SECONDS", 1.0)
    arms = {"live": ArmSettings(), "other": ArmSettings(instruction="Find the opposite", shadow=True)}
    async with experimenting(tmp_path, arms=arms) as server:
        await ask(server)
        server.engine.hold()
        await until(lambda: server.model.engine.waiting == 1, 30)
        call = asyncio.create_task(ask(server, query="another"))
        labels = {"experiment": "words", "arm": "other"}
        await until(lambda: server.metric("reranker_shadow_requests_total", outcome="dropped", **labels) == 1, 30)
        server.engine.release()
        assert (await call).status_code == 200


async def test_an_arm_may_have_a_template_of_its_own(tmp_path: Path) -> None:
    arms = {"live": ArmSettings(), "other": ArmSettings(template="qwen3-reranker", shadow=True)}
    async with experimenting(tmp_path, arms=arms) as server:
        assert server.service.models is not None
        assert len(server.service.models.loaded) == 2
        await ask(server)
        labels = {"experiment": "words", "arm": "other"}
        await until(lambda: server.metric("reranker_shadow_requests_total", outcome="scored", **labels) == 1, 30)
    ((agreement,),) = [stored_agreements(open_database(str(tmp_path / "feedback.sqlite")), "words")]
    assert agreement.tau < 1


def result(*logits: float) -> RerankResult:
    scores = tuple(document_score(index, logit, 1.0, 0.0) for index, logit in enumerate(logits))
    return RerankResult("id", "m", scores, rank(scores, None), 10)


def test_interleaved_scores_fall_and_a_document_keeps_its_own_beside_them() -> None:
    first, second = result(9.0, 1.0, -3.0), result(-800.0, 5.0, 6.0)
    for seed in range(8):
        whole = interleaved((first, second), ("a", "b"), random.Random(seed), None)
        assert sorted(place.index for place in whole.ranked) == [0, 1, 2]
        assert [place.logit for place in whole.ranked] == sorted((p.logit for p in whole.ranked), reverse=True)  # type: ignore[type-var]
        assert all(0 <= (place.score or 0) <= 1 for place in whole.ranked)
        assert all(whole.scores[place.index] == place for place in whole.ranked)
        assert whole.prompt_tokens == 20


def test_experiments_that_make_no_sense_are_refused() -> None:
    def wrong(**experiments: ExperimentSettings) -> str:
        with pytest.raises(ConfigurationError) as caught:
            experiments_of(Settings(experiments=experiments), ["tiny", "other"])
        return caught.value.message

    assert "arm has to answer" in wrong(x=ExperimentSettings())
    assert "arm has to answer" in wrong(x=ExperimentSettings(arms={"a": ArmSettings(shadow=True)}))
    assert "two arms" in wrong(x=ExperimentSettings(method="interleave", arms={"a": ArmSettings()}))
    assert "one of tiny, other" in wrong(x=ExperimentSettings(model="gone", arms=SPLIT))
    assert "both have the requests" in wrong(x=ExperimentSettings(arms=SPLIT), y=ExperimentSettings(arms=SPLIT))
    assert "letters" in wrong(x=ExperimentSettings(arms={"a b": ArmSettings()}))
    fine = {"x": ExperimentSettings(arms=SPLIT), "y": ExperimentSettings(model="other", arms=SPLIT)}
    assert list(experiments_of(Settings(experiments=fine), ["tiny", "other"])) == ["tiny", "other"]


async def test_an_arm_may_be_another_served_name(tmp_path: Path) -> None:
    models = {"second": ModelSettings(max_documents=4)}
    arms = {"a": ArmSettings(), "b": ArmSettings(model="second", weight=0)}
    rules = {"x": ExperimentSettings(arms=arms)}
    file = str(tmp_path / "feedback.sqlite")
    async with served(experiments=rules, models=models, feedback_store=file, admin_keys="root:secret") as server:
        assert (await ask(server)).json()["model"] == "tiny"
        pins = {"pins": {"me": "b"}}
        await server.client.post("/admin/experiments/x", json=pins, headers={"Authorization": "Bearer secret"})
        assert (await ask(server)).status_code == 413
        assert (await ask(server, documents=DOCUMENTS[:4])).json()["model"] == "second"
