"""Which replica a call is for, how many there should be, and what a replica does without Ray around it."""

from __future__ import annotations

import asyncio
import dataclasses
import pickle
from collections import Counter

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.served import POISON_WORD, poison_script, until

from rerankd.cluster.autoscaling import QueuedTokens, replicas_for
from rerankd.cluster.ingress import ClusterService, ReplicaLost
from rerankd.cluster.messages import Call, ModelCard, Reply, Status
from rerankd.cluster.replica import EngineReplica
from rerankd.cluster.routing import Candidate, order_of_choice, prefix_key
from rerankd.errors import DeadlineExceeded, EngineDead, NotFound, Overloaded, RateLimited, ServiceError
from rerankd.http.app import create_app
from rerankd.settings import ModelSettings, Settings
from rerankd.types import CallContext, RerankRequest, RerankResult

DONE = ServiceError("stands for a result")
SETTINGS = Settings(engine="fake", models={"other": ModelSettings(dtype="bfloat16", instruction="Other.")})


def call(query: str = "q", *documents: str, seconds: float = 10.0, name: str = "tiny") -> Call:
    request = RerankRequest(query, documents or ("a", "b"))
    return Call((request,), "id", seconds, "tenant", True, name, prefix_key(name, None, query))


def first_choices(candidates: list[Candidate], keys: int = 300) -> list[str]:
    return [
        order_of_choice(candidates, key=prefix_key("m", None, str(number)), model="m", busy_tokens=100)[0].replica
        for number in range(keys)
    ]


def test_keys_spread_and_move_only_where_a_replica_went() -> None:
    three = [Candidate(name, frozenset({"m"})) for name in "abc"]
    before, after = first_choices(three), first_choices(three[:2])
    assert min(Counter(before).values()) > 60
    assert all(old == new for old, new in zip(before, after, strict=True) if old != "c")


def test_a_busy_replica_is_passed_over_and_one_to_avoid_comes_last() -> None:
    idle = [Candidate(name, frozenset({"m"})) for name in "ab"]
    key = prefix_key("m", None, "query")
    home, other = order_of_choice(idle, key=key, model="m", busy_tokens=100)
    for tokens, expected in ((100, home.replica), (101, other.replica)):
        found = order_of_choice(
            [dataclasses.replace(home, tokens=tokens), other], key=key, model="m", busy_tokens=100
        )
        assert found[0].replica == expected
    found = order_of_choice(idle, key=key, model="m", busy_tokens=100, avoid={home.replica})
    assert [candidate.replica for candidate in found] == [other.replica, home.replica]


def test_replicas_that_hold_the_model_come_first_and_else_all_keys_agree_on_one() -> None:
    nobody = [Candidate(name) for name in "abc"]
    assert len(set(first_choices(nobody))) == 1
    one = [*nobody[:2], Candidate("c", frozenset({"m"}))]
    assert set(first_choices(one)) == {"c"}


def test_fields_of_a_key_do_not_run_together() -> None:
    assert prefix_key("ab", "c", "d") != prefix_key("a", "bc", "d") != prefix_key("a", "b", "cd")


@pytest.mark.parametrize(
    ("tokens", "current", "replicas"),
    [(0, 1, 1), (1000, 1, 1), (1001, 1, 2), (9500, 1, 10), (1900, 3, 3), (900, 2, 2), (500, 2, 1), (0, 10, 1)],
)
def test_replicas_for_the_tokens_that_wait(tokens: float, current: int, replicas: int) -> None:
    assert replicas_for(tokens, 1000, current) == replicas


def test_a_load_in_between_makes_no_replica_come_and_go() -> None:
    current = 1
    seen = []
    for tokens in [1500, 900, 1500, 900, 1500, 900]:
        current = replicas_for(tokens, 1000, current)
        seen.append(current)
    assert set(seen) == {2}


def test_the_policy_reads_what_replicas_record() -> None:
    @dataclasses.dataclass
    class Context:
        aggregated_metrics: dict[str, dict[str, float]]
        target_num_replicas: int = 1

    policy = QueuedTokens(1000)
    assert policy(Context({"queued_tokens": {"a": 900.0, "b": 1200.0}}))[0] == 3
    assert policy(Context({}))[0] == 1


async def test_a_replica_answers_as_a_server_does_and_loads_models_when_asked() -> None:
    replica = EngineReplica(SETTINGS, "one", idle_seconds=0.3)
    await replica.start()
    try:
        assert replica.loaded_names() == ["tiny"]
        reply = pickle.loads(pickle.dumps(await replica.rerank(call())))
        assert (reply.replica, reply.error, len(reply.results[0].scores)) == ("one", None, 2)
        assert [card.info.details for card in await replica.cards()] == [
            "no model: scores mean nothing",
            "not loaded",
        ]
        other = await replica.rerank(call(name="other"))
        assert isinstance(other.results[0], RerankResult)
        assert other.results[0].model == "other"
        assert replica.loaded_names() == ["tiny", "other"]
        await until(lambda: replica.loaded_names() == ["tiny"])
        again = await replica.rerank(call(name="other"))
        assert isinstance(again.results[0], RerankResult)
        assert again.results[0].scores == other.results[0].scores
    finally:
        await replica.stop()


async def test_errors_are_values_and_travel() -> None:
    replica = EngineReplica(
        dataclasses.replace(SETTINGS, max_documents=3, fake_script=poison_script("fail_on")), "one", 60
    )
    await replica.start()
    try:
        reply = pickle.loads(pickle.dumps(await replica.rerank(call("q", "a", "b", "c", "d"))))
        assert isinstance(reply.results[0], ServiceError)
        assert (reply.results[0].status, reply.results[0].setting) == (413, "max_documents")
        poisoned = pickle.loads(pickle.dumps(await replica.rerank(call("q", "a", "b" + POISON_WORD, "c"))))
        assert [score.error is None for score in poisoned.results[0].scores] == [True, False, True]
    finally:
        await replica.stop()


class OneReplica:
    """The way to replicas that a test wrote down."""

    def __init__(self, *answers: Reply | Exception | float) -> None:
        self.answers = list(answers)
        self.calls: list[Call] = []
        self.cancelled = 0

    async def rerank(self, call: Call) -> Reply:
        self.calls.append(call)
        answer = self.answers.pop(0)
        if isinstance(answer, float):
            try:
                await asyncio.sleep(answer)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            return Reply("slow")
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def cards(self) -> list[ModelCard]:
        replica = EngineReplica(SETTINGS, "one", 60)
        return await replica.cards()

    async def flush(self) -> None:
        pass

    async def statuses(self) -> list[Status]:
        replica = EngineReplica(SETTINGS, "one", 60)
        await replica.start()
        await replica.rerank(call())
        rows = tuple(replica.metrics())
        await replica.stop()
        return [Status("one", ("tiny",), rows), Status("two", ("tiny",), rows)]


async def ask(service: ClusterService, query: str = "q", model: str | None = None, seconds: float = 5.0) -> object:
    context = CallContext("id", asyncio.get_running_loop().time() + seconds, "tenant")
    return await service.rerank([RerankRequest(query, ("a",), model=model)], context)


async def ingress(replicas: OneReplica, **settings: object) -> ClusterService:
    service = ClusterService(dataclasses.replace(SETTINGS, **settings), replicas)
    await service.start()
    return service


@pytest.mark.promise("L-02")
async def test_a_full_replica_spills_over_once_and_then_refuses() -> None:
    full = Reply("one", error=Overloaded("too many tokens are waiting", retry_after=3.0))
    replicas = OneReplica(full, Reply("two", (DONE,)), full, full)
    service = await ingress(replicas)
    assert await ask(service) == [DONE]
    assert [call.avoid for call in replicas.calls] == [frozenset(), {"one"}]
    with pytest.raises(Overloaded) as refused:
        await ask(service)
    assert refused.value.retry_after == 3.0


@pytest.mark.promise("L-01")
async def test_what_a_lost_replica_had_is_not_sent_to_the_next() -> None:
    replicas = OneReplica(ReplicaLost())
    with pytest.raises(EngineDead):
        await ask(await ingress(replicas))
    assert len(replicas.calls) == 1


@pytest.mark.promise("B-08")
async def test_a_deadline_goes_along_and_ends_the_call_by_the_ingresss_clock() -> None:
    replicas = OneReplica(60.0)
    with pytest.raises(DeadlineExceeded):
        await ask(await ingress(replicas), seconds=0.1)
    assert replicas.calls[0].seconds_left <= 0.1
    assert replicas.cancelled == 1


async def test_metrics_of_all_replicas_are_at_one_address() -> None:
    service = await ingress(OneReplica(Reply("one", (DONE,))))
    await ask(service)
    text = (await service.exposition()).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    pairs = [sample for sample in families["reranker_batch_pairs"].samples if sample.name.endswith("_sum")]
    assert {(sample.labels["replica"], sample.labels["model"], sample.value) for sample in pairs} == {
        ("one", "tiny", 2.0),
        ("two", "tiny", 2.0),
    }
    assert text.count("# TYPE reranker_batch_pairs histogram") == 1
    assert 'replica="ingress-' in text


async def test_rates_are_the_ingresss_business_and_foreign_names_the_settings() -> None:
    service = await ingress(OneReplica(Reply("one", (DONE,))), rate_limit="1/minute", strict_models=True)
    assert await ask(service) == [DONE]
    with pytest.raises(RateLimited):
        await ask(service)
    strict = await ingress(OneReplica(), strict_models=True)
    (answer,) = await ask(strict, model="nobody")  # type: ignore[misc]
    assert isinstance(answer, NotFound)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/rerank", 200),
        ("GET", "/livez", 200),
        ("GET", "/readyz", 200),
        ("GET", "/health", 200),
        ("GET", "/info", 200),
        ("GET", "/v1/models", 200),
        ("GET", "/metrics", 200),
        ("GET", "/v1/instructions", 200),
        ("POST", "/feedback", 404),
        ("GET", "/admin/experiments", 404),
        ("GET", "/admin/cache", 404),
        ("POST", "/admin/cache/flush", 200),
        ("POST", "/admin/reload", 400),
        ("POST", "/admin/reload/tiny", 400),
    ],
)
async def test_every_route_has_an_answer_on_a_cluster(method: str, path: str, status: int) -> None:
    engine = EngineReplica(SETTINGS, "one", 60)
    await engine.start()
    replicas = OneReplica(await engine.rerank(call()))
    service = await ingress(replicas, api_keys="app:other", admin_keys="root:secret")
    bodies = {"/rerank": {"query": "q", "documents": ["a", "b"]}, "/feedback": {"request_id": "r", "clicked": [0]}}
    transport = httpx.ASGITransport(create_app(service.settings, service))
    headers = {"Authorization": "Bearer secret"}
    async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:
        response = await client.request(method, path, json=bodies.get(path))
    await engine.stop()
    assert response.status_code == status, response.text
