from __future__ import annotations

import asyncio
import socket

import httpx
import pytest
from tests.standin import StandInService

from rerankd.errors import ConfigurationError
from rerankd.http.app import create_app
from rerankd.http.listener import Listener, open_socket
from rerankd.settings import Settings


def listener_of(service: StandInService, **settings: float) -> Listener:
    made = Settings(**settings)  # type: ignore[arg-type]
    return Listener(create_app(made, service), made, service.metrics)


def test_a_port_in_use_is_said_in_one_line() -> None:
    with open_socket("127.0.0.1", 0) as bound:
        bound.listen()
        port = bound.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"port {port} of 127.0.0.1 cannot be used: .*--port"):
            open_socket("127.0.0.1", port)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "203.0.113.9"])
def test_an_address_that_is_not_ours_is_said_in_one_line(host: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be used"):
        open_socket(host, 0)


async def test_it_answers_until_it_is_closed(service: StandInService) -> None:
    listener = listener_of(service)
    bound = open_socket("127.0.0.1", 0)
    port = bound.getsockname()[1]
    await listener.open(bound)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        response = await client.get("/livez")
        assert response.status_code == 200
        assert response.headers["date"].endswith("GMT")
        assert "server" not in response.headers
        listener.close()
        await listener.wait_closed(1)
        with pytest.raises(httpx.TransportError):
            await client.get("/livez")


async def test_a_busy_connection_ends_with_its_answer(service: StandInService) -> None:
    asked_for = asyncio.Event()

    async def act(context: object) -> None:
        asked_for.set()
        await asyncio.sleep(0.2)

    service.act = act
    listener = listener_of(service)
    bound = open_socket("127.0.0.1", 0)
    url = f"http://127.0.0.1:{bound.getsockname()[1]}/rerank"
    await listener.open(bound)
    async with httpx.AsyncClient() as client:
        asked = asyncio.create_task(client.post(url, json={"query": "q", "documents": ["d"]}))
        await asked_for.wait()
        listener.close()
        response = await asked
    assert response.status_code == 200
    assert response.headers["connection"] == "close"
    await listener.wait_closed(1)


async def test_what_is_no_request_is_counted(service: StandInService) -> None:
    listener = listener_of(service)
    bound = open_socket("127.0.0.1", 0)
    await listener.open(bound)
    reader, writer = await asyncio.open_connection("127.0.0.1", bound.getsockname()[1])
    writer.write(b"hello\r\n\r\n")
    assert b"400 Bad Request" in await reader.read()
    writer.close()
    listener.close()
    await listener.wait_closed(1)
    sample = service.metrics.registry.get_sample_value("reranker_rejections_total", {"code": "invalid_request"})
    assert sample == 1


def test_a_socket_that_is_only_bound_accepts_nothing_yet() -> None:
    with open_socket("127.0.0.1", 0) as bound, socket.socket() as client:
        assert client.connect_ex(bound.getsockname()) != 0
