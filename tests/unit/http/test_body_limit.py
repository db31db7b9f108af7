from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.traffic import rss_mb
from tests.unit.http.conftest import Connect

from rerankd.errors import (
    ClientClosed,
    InvalidRequest,
    Overloaded,
    ReceiveTimeout,
    ServiceError,
    TooLarge,
    UnsupportedMedia,
)
from rerankd.http.body_limit import BodyQuota, in_turns, read_body
from rerankd.http.request_state import RequestState, first_headers
from rerankd.wire.byte_counts import Bytes

JSON = [(b"content-type", b"application/json")]


def state_with(*headers: tuple[bytes, bytes]) -> RequestState:
    return RequestState("id", first_headers(headers))


def receiving(*chunks: bytes, leave: bool = False) -> Any:
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages[-1]["more_body"] = leave
    rest = iter([*messages, {"type": "http.disconnect"}])

    async def receive() -> dict[str, Any]:
        return next(rest)

    return receive


def waiting_after(chunk: bytes) -> Any:
    """A client that sends one part and then nothing."""
    sent = iter([{"type": "http.request", "body": chunk, "more_body": True}])

    async def receive() -> dict[str, Any]:
        return next(sent, None) or await asyncio.Event().wait()  # type: ignore[return-value]

    return receive


async def read(state: RequestState, receive: Any, max_bytes: int = 10) -> Bytes:
    return await read_body(state, receive, lambda size: None, max_bytes=max_bytes, seconds=0.2)


async def test_chunks_become_one_body() -> None:
    assert await read(state_with(*JSON), receiving(b"[1,", b"2", b"]")) == b"[1,2]"


async def test_a_part_that_says_nothing_of_more_is_the_last() -> None:
    parts = iter(
        [{"type": "http.request", "body": b"[1,", "more_body": True}, {"type": "http.request", "body": b"2]"}]
    )

    async def receive() -> dict[str, Any]:
        return next(parts)

    assert await read(state_with(*JSON), receive) == b"[1,2]"


async def test_a_declared_length_over_the_limit_is_refused_before_a_byte_is_read() -> None:
    state = state_with(*JSON, (b"content-length", b"11"))
    with pytest.raises(TooLarge) as caught:
        await read(state, receiving(b"never read"))
    assert caught.value.setting == "max_body_bytes"
    assert state.received_bytes == 0


async def test_an_undeclared_body_is_refused_as_soon_as_it_is_over_the_limit() -> None:
    state = state_with(*JSON)
    with pytest.raises(TooLarge):
        await read(state, receiving(b"12345678", b"9ab", b"never read"))
    assert state.received_bytes == 11


LARGE = b"[" + b"1234567," * 100_000 + b"1]"


async def test_a_large_body_of_known_length_is_read_whole() -> None:
    parts = [LARGE[start : start + 65_000] for start in range(0, len(LARGE), 65_000)]
    state = state_with(*JSON, (b"content-length", b"%d" % len(LARGE)))
    body = await read(state, receiving(*parts), max_bytes=len(LARGE))
    assert bytes(body[:]) == LARGE
    assert state.received_bytes == len(LARGE)


async def test_announcing_a_large_body_takes_no_memory() -> None:
    announced = 2**30
    state = state_with(*JSON, (b"content-length", b"%d" % announced))
    before = rss_mb(os.getpid())
    reading = asyncio.create_task(read(state, waiting_after(b"["), max_bytes=announced))
    await asyncio.sleep(0.05)
    assert state.received_bytes == 1
    assert rss_mb(os.getpid()) - before < 16
    reading.cancel()


async def test_a_body_for_which_the_system_has_no_memory_is_an_overload(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr("rerankd.http.body_limit.mmap.mmap", refuse)
    with pytest.raises(Overloaded, match="no memory"):
        await read(state_with(*JSON, (b"content-length", b"%d" % len(LARGE))), receiving(LARGE), max_bytes=len(LARGE))


async def test_a_large_body_longer_than_announced_is_refused() -> None:
    state = state_with(*JSON, (b"content-length", b"%d" % (len(LARGE) - 1)))
    with pytest.raises(InvalidRequest):
        await read(state, receiving(LARGE), max_bytes=len(LARGE))


async def test_bodies_that_are_all_ready_are_read_in_turns() -> None:
    """Small requests have their turns between them."""
    turns, turn, received = asyncio.Lock(), 0, Counter[int]()

    async def count_turns() -> None:
        nonlocal turn
        while True:
            await asyncio.sleep(0)
            turn += 1

    def ready(parts: int) -> Any:
        receive = receiving(*[b"12"] * parts)

        async def noted() -> dict[str, Any]:
            received[turn] += 1
            return await receive()  # type: ignore[no-any-return]

        return in_turns(noted, turns)

    counting = asyncio.create_task(count_turns())
    bodies = await asyncio.gather(*(read(state_with(*JSON), ready(parts=5)) for _ in range(8)))
    counting.cancel()
    assert bodies == [b"12" * 5] * 8
    first, *others = sorted(received.values(), reverse=True)
    assert first == 8
    assert set(others) == {1}


@pytest.mark.parametrize("encoding", [b"gzip", b"deflate", b"br", b"zstd", b"gzip, identity", b"GZIP"])
async def test_a_compressed_body_is_never_inflated(encoding: bytes) -> None:
    with pytest.raises(UnsupportedMedia):
        await read(state_with(*JSON, (b"content-encoding", encoding)), receiving(b"{}"))


@pytest.mark.parametrize("kind", [b"text/plain", b"application/x-www-form-urlencoded", b"multipart/form-data", b"x"])
async def test_a_body_that_says_it_is_not_json_is_refused(kind: bytes) -> None:
    with pytest.raises(UnsupportedMedia):
        await read(state_with((b"content-type", kind)), receiving(b"{}"))


@pytest.mark.parametrize(
    "kind", [b"application/json", b"Application/JSON; charset=utf-8", b"application/x+json", None]
)
async def test_json_by_any_of_its_names_is_read(kind: bytes | None) -> None:
    headers = [] if kind is None else [(b"content-type", kind)]
    assert await read(state_with(*headers), receiving(b"{}")) == b"{}"


async def test_a_body_that_does_not_arrive_in_time_is_given_up() -> None:
    async def receive() -> dict[str, Any]:
        await asyncio.sleep(5)
        return {}

    with pytest.raises(ReceiveTimeout):
        await read(state_with(*JSON), receive)


async def test_a_client_that_leaves_while_sending_is_not_an_error_of_ours() -> None:
    with pytest.raises(ClientClosed):
        await read(state_with(*JSON), receiving(b"[1", leave=True))


@pytest.mark.parametrize("length", [b"-1", b"ten", b"1" * 30, b"\xc2\xb2"])
async def test_a_declared_length_that_is_no_length_is_refused(length: bytes) -> None:
    with pytest.raises(ServiceError) as caught:
        await read(state_with(*JSON, (b"content-length", length)), receiving(b"{}"))
    assert caught.value.status in (400, 413)


async def test_the_answer_to_an_endless_body_says_the_limit_and_closes(connect: Connect) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 1000

    response = await connect(max_body_bytes=5_000).post(
        "/rerank", content=endless(), headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 413
    assert response.headers["connection"] == "close"
    assert "max_body_bytes" in response.json()["message"]


def test_bodies_together_have_a_limit_and_give_back_what_they_took() -> None:
    quota = BodyQuota(100, tenant_share=0.5)
    with quota.of("a") as take:
        take(60)
        with quota.of("a") as second:
            second(30)
            with pytest.raises(Overloaded, match="max_inflight_body_bytes"):
                second(20)
            with quota.of("b") as other:
                other(10)
                with pytest.raises(Overloaded, match="max_inflight_body_bytes"):
                    other(1)
        take(40)
    assert quota.held == 0


@pytest.mark.promise("S14")
@pytest.mark.parametrize("share", [0.05, 0.1, 0.5, 1.0])
def test_bodies_never_take_more_than_the_limit_however_many_callers_there_are(share: float) -> None:
    quota = BodyQuota(1000, share, reserve=100)
    with contextlib.ExitStack() as stack:
        for number in range(200):
            take = stack.enter_context(quota.of(f"caller {number % 40}"))
            for _ in range(5):
                with contextlib.suppress(Overloaded):
                    take(30)
        assert quota.held <= 1000


def test_a_caller_alone_leaves_room_for_the_first_body_of_another() -> None:
    quota = BodyQuota(1000, 0.5, reserve=100)
    with quota.of("a") as take, quota.of("b") as other:
        take(800)
        take(100)
        with pytest.raises(Overloaded, match="max_tenant_share"):
            take(1)
        other(100)


@pytest.mark.promise("P11")
@pytest.mark.parametrize("name", [b"origin", b"sec-fetch-site", b"referer"])
async def test_a_page_has_to_say_that_it_sends_json(name: bytes) -> None:
    with pytest.raises(UnsupportedMedia):
        await read(state_with((name, b"https://example.org")), receiving(b"{}"))
    assert await read(state_with((name, b"https://example.org"), *JSON), receiving(b"{}")) == b"{}"
