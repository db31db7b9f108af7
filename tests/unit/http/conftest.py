"""The application over a stand-in service, without a socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tests.standin import StandInService

from rerankd.http.app import create_app
from rerankd.settings import Settings

Connect = Callable[..., httpx.AsyncClient]


@pytest.fixture
def service() -> StandInService:
    return StandInService()


@pytest.fixture
def app(service: StandInService) -> FastAPI:
    return create_app(Settings(), service)


@pytest.fixture
def connect(service: StandInService) -> Connect:
    """``connect(max_body_bytes=10)`` is a client of an application with these settings."""

    def make(**settings: Any) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(create_app(Settings(**settings), service))
        return httpx.AsyncClient(transport=transport, base_url="http://localhost")

    return make


@pytest.fixture
def client(connect: Connect) -> httpx.AsyncClient:
    return connect()
