"""What ``LimitedHttpProtocol`` takes from uvicorn beyond its public names; another version fails here first."""

from __future__ import annotations

import inspect
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from rerankd.http.http_protocol import LimitedHttpProtocol

ATTRIBUTES = ("flow", "pipeline", "cycle", "headers", "url", "parser", "transport", "loop")
METHODS = (
    *("connection_made", "connection_lost", "data_received", "pause_writing", "on_message_begin", "on_header"),
    *("on_headers_complete", "on_body", "on_message_complete", "on_response_complete", "shutdown"),
    "_unset_keepalive_if_required",
)
CYCLE = ("keep_alive", "disconnected", "message_event", "response_started", "response_complete")


@pytest.mark.promise("F16")
def test_the_names_that_are_extended_are_there() -> None:
    assert [name for name in METHODS if name not in vars(HttpToolsProtocol)] == []
    source = inspect.getsource(HttpToolsProtocol)
    assert [name for name in ATTRIBUTES if f"self.{name}" not in source] == []
    source = inspect.getsource(RequestResponseCycle)
    assert [name for name in CYCLE if f"self.{name}" not in source] == []
    assert httptools_impl.STATUS_LINE[200].startswith(b"HTTP/1.1 200 ")


@pytest.mark.promise("F16")
def test_every_method_that_is_replaced_exists_to_be_replaced() -> None:
    own = {name for name in vars(LimitedHttpProtocol) if name.startswith("on_") or name.endswith("_received")}
    assert own <= set(METHODS)


@pytest.mark.promise("F16")
def test_a_version_that_nobody_has_tried_is_not_installed() -> None:
    rows = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]["dependencies"]
    for package in ("uvicorn", "httptools"):
        (row,) = [row for row in rows if row.startswith(package)]
        assert "<" in row
        most = row.partition("<")[2].split(".")
        assert [int(part) for part in version(package).split(".")[:2]] < [int(part) for part in most[:2]]
