from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from rerankd.errors import InvalidJSON
from rerankd.wire.json_guard import MAX_KEYS, MAX_NUMBER_LENGTH, MAX_STRINGS, decode_json

HOSTILE = {
    "nan": b'{"top_n": NaN}',
    "infinity": b'{"top_n": -Infinity}',
    "a float beyond range": b'{"top_n": 1e400}',
    "half a surrogate pair": b'{"query": "\\ud800"}',
    "the other half": b'{"query": "a\\uDC00"}',
    "half a surrogate pair in a key": b'{"\\ud800": 1}',
    "bad utf-8": b'{"query": "\xff"}',
    "an encoded surrogate": b'{"query": "\xed\xa0\x80"}',
    "a byte order mark": b'\xef\xbb\xbf{"query": "a"}',
    "utf-16": '{"query": "a"}'.encode("utf-16"),
    "a raw NUL": b'{"query": "\x00"}',
    "a key twice": b'{"query": "a", "query": "b"}',
    "a key twice, once escaped": b'{"query": "a", "quer\\u0079": "b"}',
    "five thousand digits": b'{"top_n": ' + b"9" * 5000 + b"}",
    "five thousand decimals": b'{"top_n": 0.' + b"9" * 5000 + b"}",
    "nothing": b"",
    "blanks": b"  \n",
    "two values": b"{} {}",
    "a trailing comma": b'{"a": 1,}',
    "depth of a million arrays": b"[" * 1_000_000,
    "depth of a million closed arrays": b"[" * 1_000_000 + b"]" * 1_000_000,
    "depth of a million objects": b'{"a":' * 1_000_000 + b"1" + b"}" * 1_000_000,
    "too many keys": json.dumps({str(key): 0 for key in range(MAX_KEYS + 1)}).encode(),
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=list(HOSTILE))
def test_what_is_not_strict_json_is_refused_without_an_echo(body: bytes) -> None:
    with pytest.raises(InvalidJSON) as caught:
        decode_json(body, max_depth=32)
    assert len(caught.value.message) < 200
    assert "99999" not in caught.value.message


@pytest.mark.parametrize("depth", [1, 31, 32])
def test_nesting_is_counted_exactly(depth: int) -> None:
    assert decode_json(b"[" * depth + b"]" * depth, max_depth=32).value is not None
    with pytest.raises(InvalidJSON, match="deeper than"):
        decode_json(b"[" * depth + b"]" * depth, max_depth=depth - 1)


@pytest.mark.parametrize("text", ["\x00", "😀", "法国", "\\ud800", "a\u2028b", ""])
def test_any_whole_character_comes_through(text: str) -> None:
    for ascii_only in (True, False):
        body = json.dumps({"query": text}, ensure_ascii=ascii_only).encode()
        assert decode_json(body, max_depth=2).value == {"query": text}


def test_plain_values_keep_their_types() -> None:
    body = b'{"a": [1, -2, 0.5, 1e3, true, false, null, "x", {}]}'
    assert decode_json(body, max_depth=3).value == {"a": [1, -2, 0.5, 1000.0, True, False, None, "x", {}]}


@pytest.mark.parametrize(
    "value",
    [
        *(pytest.param(value, marks=pytest.mark.thorough) for value in (b"{}", b"1.5", b'{"a":{"b":[]}}')),
        b'{"a":1}',
        b"[]",
        b"1",
    ],
)
def test_megabytes_of_small_values_are_refused_before_they_hold_the_loop(value: bytes) -> None:
    body = b'{"query": "q", "documents": [' + b",".join([value] * (4_000_000 // (len(value) + 1))) + b"]}"

    def refuse() -> None:
        with pytest.raises(InvalidJSON, match=r"holds more than (50000 objects|400000 strings)"):
            decode_json(body, max_depth=32)

    # Beside the same body read to its end, as seconds are another thing on every machine.
    assert min(seconds(refuse) for _ in range(2)) < seconds(lambda: json.loads(body)) / 2


def test_strings_are_counted_and_their_own_quotation_marks_are_not() -> None:
    for strings in (MAX_STRINGS, MAX_STRINGS + 1):
        body = json.dumps(["a"] * strings).encode()
        if strings > MAX_STRINGS:
            with pytest.raises(InvalidJSON, match=f"more than {MAX_STRINGS} strings"):
                decode_json(body, max_depth=1)
        else:
            assert len(decode_json(body, max_depth=1).value) == MAX_STRINGS
    text = '"\\' * MAX_STRINGS
    assert decode_json(json.dumps([text]).encode(), max_depth=1).value == [text]


def seconds(call: Callable[[], object]) -> float:
    """Of processor time."""
    started = time.thread_time()
    call()
    return time.thread_time() - started


@pytest.mark.promise("U12")
def test_half_a_pair_in_an_item_of_a_list_becomes_the_replacement_character() -> None:
    documents = [["fine", "a\ud83d"], *(["\udc00"] for _ in range(6))]
    decoded = decode_json(json.dumps({"documents": documents}).encode(), max_depth=32)
    assert decoded.value == {"documents": [["fine", "a\ufffd"], *(["\ufffd"] for _ in range(6))]}
    (warning,) = decoded.warnings
    assert "documents[0][1]" in warning
    assert "and 2 more" in warning


def test_a_key_that_is_no_name_is_not_repeated() -> None:
    decoded = decode_json(json.dumps({"a secret": ["\ud83d"]}).encode(), max_depth=32)
    assert "secret" not in decoded.warnings[0]


@pytest.mark.promise("A10")
def test_the_size_is_what_the_value_takes_and_not_what_was_sent() -> None:
    plain = decode_json(json.dumps({"documents": ["word " * 1000] * 100}).encode(), max_depth=32)
    small = decode_json(json.dumps({"documents": ["é!"] * 50_000}).encode(), max_depth=32)
    assert 500_000 < plain.size < 510_000
    assert small.size > 50_000 * 50


@pytest.mark.promise("A1")
@pytest.mark.parametrize("text", ['"' + '\\"' * 9_999, '"' * 9_999, "\\" * 9_999, '"' + "\\\\" * 9_999, '"a' * 9_999])
def test_brackets_before_whatever_string_take_as_long_as_they_are(text: str) -> None:
    def cost(times: int) -> float:
        body = ("[" * 50_001 + text * times).encode()
        return min(seconds(lambda: refused(body)) for _ in range(3))

    # A quadratic reader takes 64 times as long here.
    assert cost(8) < 24 * max(cost(1), 0.002)


def refused(body: bytes) -> None:
    with pytest.raises(InvalidJSON):
        decode_json(body, max_depth=32)


def test_lists_are_counted_whether_or_not_strings_lie_between() -> None:
    for item, many in (("[]", True), ('"[["', False), ('"\\"["', False), ('"\\\\",[]', True)):
        body = ("[" + ",".join([item] * 50_001) + "]").encode()
        if many:
            with pytest.raises(InvalidJSON, match="more than 50000"):
                decode_json(body, max_depth=32)
        else:
            decode_json(body, max_depth=32)


def test_brackets_in_a_text_are_text() -> None:
    text = '[1, {"a": "\\"]}' * 60_000
    assert decode_json(json.dumps({"query": text}).encode(), max_depth=2).value == {"query": text}


def test_four_megabytes_of_documents_are_read_at_once() -> None:
    body = json.dumps({"query": "q", "documents": ["word 😀 " * 500] * 500}).encode()
    started = time.perf_counter()
    decode_json(body, max_depth=32)
    assert time.perf_counter() - started < 1.0


@pytest.mark.parametrize("end", ["", ".0", "e1"])
def test_a_number_may_have_as_many_characters_as_the_limit_says(end: str) -> None:
    longest = "1" * (MAX_NUMBER_LENGTH - len(end)) + end
    assert decode_json(longest.encode(), max_depth=1).value > 0
    with pytest.raises(InvalidJSON, match=f"{MAX_NUMBER_LENGTH + 1} characters"):
        decode_json(b"1" + longest.encode(), max_depth=1)
