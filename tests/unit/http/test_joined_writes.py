"""An answer leaves in one write; what is kept for the next write is never kept beyond a turn of the event loop."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rerankd.http.http_protocol import JoinedWrites


class Sink:
    """A transport that remembers what each system call would have had."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closing = False

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def writelines(self, parts: tuple[bytes, ...]) -> None:
        self.writes.append(b"".join(parts))

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.writes.append(b"closed")
        self.closing = True

    def abort(self) -> None:
        self.closing = True

    def get_write_buffer_size(self) -> int:
        return 0


async def joined() -> tuple[Any, Sink]:
    sink = Sink()
    return JoinedWrites(sink, asyncio.get_running_loop()), sink  # type: ignore[arg-type]


async def test_a_head_goes_out_with_its_body() -> None:
    writer, sink = await joined()
    writer.write(b"head")
    assert (sink.writes, writer.get_write_buffer_size()) == ([], 4)
    writer.write(b"body" * 10_000)
    assert sink.writes == [b"head" + b"body" * 10_000]
    await asyncio.sleep(0)
    assert len(sink.writes) == 1


async def test_a_head_alone_waits_for_no_more_than_a_turn() -> None:
    """``100 Continue``, or an answer whose body is not there yet."""
    writer, sink = await joined()
    writer.write(b"head")
    await asyncio.sleep(0)
    assert sink.writes == [b"head"]


async def test_what_is_large_does_not_wait() -> None:
    writer, sink = await joined()
    writer.write(b"x" * 5_000)
    assert sink.writes == [b"x" * 5_000]


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_what_is_kept_goes_out_before_the_end_and_never_after_it(end: str) -> None:
    writer, sink = await joined()
    writer.write(b"head")
    getattr(writer, end)()
    await asyncio.sleep(0)
    assert sink.writes == ([b"head", b"closed"] if end == "close" else [])
