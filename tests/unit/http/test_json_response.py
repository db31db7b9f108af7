from __future__ import annotations

import pytest
from starlette.types import Message

from rerankd.http.json_response import encode, json_bytes, parts, send_body
from rerankd.wire.base import Json, WireResponse


def test_json_is_compact_and_utf8() -> None:
    assert json_bytes({"a": [1, "é"]}) == '{"a":[1,"é"]}'.encode()


def test_a_number_that_is_none_is_a_fault_of_ours_and_never_sent() -> None:
    with pytest.raises(ValueError, match="JSON"):
        json_bytes({"score": float("nan")})


@pytest.mark.promise("K-03")
@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"scores": [place / 7 for place in range(1000)], "id": "ä", "none": None},
        {"results": [{"index": place, "document": {"text": f"„{place}“"}} for place in range(300)]},
        {"results": [{"query": "q", "scores": [0.5] * place} for place in (1, 500, 70, 0)], "meta": {"a": {}}},
        [[0.25] * 100, [], "text", {"deep": [[1] * 65] * 2}],
    ],
)
def test_an_answer_about_many_documents_is_encoded_inparts_and_is_the_same(body: Json) -> None:
    assert encode(WireResponse(body), 1000)[1] == json_bytes(body)


@pytest.mark.promise("K-03")
def test_no_part_of_a_large_answer_holds_many_values() -> None:
    body = {"results": [{"query": "q", "scores": [0.123456] * 1000, "texts": ["a" * 10] * 1000}] * 64}
    assert max(map(len, parts(body))) < 1024


@pytest.mark.parametrize("size", [1, 2**18 - 1, 2**18, 2**18 + 1, 2**19, 700_000])
async def test_a_body_is_given_to_the_connection_in_parts_and_is_whole(size: int) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    body = bytes(range(256)) * (size // 256 + 1)
    await send_body(send, WireResponse(None), body[:size])
    start, *given = sent
    assert dict(start["headers"])[b"content-length"] == b"%d" % size
    assert b"".join(message["body"] for message in given) == body[:size]
    assert [message.get("more_body", False) for message in given] == [True] * (len(given) - 1) + [False]
    assert max(len(message["body"]) for message in given) <= 2**18
