from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerankd.cache.base import CachedScore
from rerankd.cache.codec import Codec, CorruptValue

KEY = bytes(32)
CHECKSUM, MAC = Codec(), Codec("one secret")
SCORE = CachedScore(logit=float(np.float32(-1.7)), tokens=8192, truncated=True)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.integers(0, 2**32 - 1), st.booleans())
def test_a_score_comes_back_to_the_bit(logit: float, tokens: int, truncated: bool) -> None:
    score = CachedScore(logit, tokens, truncated)
    value = CHECKSUM.encode(KEY, score)
    assert len(value) == CHECKSUM.value_bytes == 18
    again = CHECKSUM.decode(KEY, value)
    assert struct.pack("<d", again.logit) == struct.pack("<d", logit)
    assert again == score


def test_the_bytes_are_those_that_other_versions_of_the_server_wrote() -> None:
    """A Redis outlives its servers: the first byte tells the two forms apart, and nothing behind it moves."""
    score = CachedScore(logit=-1.5, tokens=8192, truncated=True)
    body = "000000000000f8bf" + "00200000" + "01"
    assert CHECKSUM.encode(KEY, score).hex() == "01" + body + "2ba348f5"
    assert MAC.encode(KEY, score).hex() == "02" + body + "7f9bcfc25689209f7875ab6a8d1a8abe"


def test_every_single_flipped_bit_is_found() -> None:
    value = CHECKSUM.encode(KEY, SCORE)
    for bit in range(len(value) * 8):
        broken = bytearray(value)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptValue):
            CHECKSUM.decode(KEY, bytes(broken))


@pytest.mark.parametrize(
    "value", [b"", b"x", CHECKSUM.encode(KEY, SCORE)[:-1], CHECKSUM.encode(KEY, SCORE) + b"x", b"\x80pickle" * 3]
)
def test_anything_else_is_corrupt(value: bytes) -> None:
    with pytest.raises(CorruptValue):
        CHECKSUM.decode(KEY, value)


@pytest.mark.parametrize("logit", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_no_finite_score_is_corrupt(logit: float) -> None:
    with pytest.raises(CorruptValue, match="finite"):
        CHECKSUM.decode(KEY, CHECKSUM.encode(KEY, CachedScore(logit, 1, False)))


def test_a_value_under_another_key_is_corrupt() -> None:
    with pytest.raises(CorruptValue, match="checksum"):
        CHECKSUM.decode(bytes([1] * 32), CHECKSUM.encode(KEY, SCORE))


def test_with_a_secret_a_score_comes_back_and_every_flipped_bit_is_found() -> None:
    value = MAC.encode(KEY, SCORE)
    assert len(value) == MAC.value_bytes == 30
    assert MAC.decode(KEY, value) == SCORE
    for bit in range(len(value) * 8):
        broken = bytearray(value)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptValue):
            MAC.decode(KEY, bytes(broken))


def test_a_score_that_somebody_made_up_is_corrupt_under_a_secret() -> None:
    forged = CachedScore(99.0, 1, False)
    assert CHECKSUM.decode(KEY, Codec().encode(KEY, forged)) == forged
    for other in (CHECKSUM, Codec("another secret"), Codec("one secret ")):
        with pytest.raises(CorruptValue):
            MAC.decode(KEY, other.encode(KEY, forged))
    with pytest.raises(CorruptValue):
        MAC.decode(bytes([1] * 32), MAC.encode(KEY, forged))
