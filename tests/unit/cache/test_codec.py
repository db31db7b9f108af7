from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerankd.cache.base import CachedScore
from rerankd.cache.codec import VALUE_BYTES, CorruptValue, decode, encode

KEY = bytes(32)
SCORE = CachedScore(logit=float(np.float32(-1.7)), tokens=8192, truncated=True)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.integers(0, 2**32 - 1), st.booleans())
def test_a_score_comes_back_to_the_bit(logit: float, tokens: int, truncated: bool) -> None:
    score = CachedScore(logit, tokens, truncated)
    value = encode(KEY, score)
    assert len(value) == VALUE_BYTES == 18
    again = decode(KEY, value)
    assert struct.pack("<d", again.logit) == struct.pack("<d", logit)
    assert again == score


def test_every_single_flipped_bit_is_found() -> None:
    value = encode(KEY, SCORE)
    for bit in range(len(value) * 8):
        broken = bytearray(value)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptValue):
            decode(KEY, bytes(broken))


@pytest.mark.parametrize("value", [b"", b"x", encode(KEY, SCORE)[:-1], encode(KEY, SCORE) + b"x", b"\x80pickle" * 3])
def test_anything_else_is_corrupt(value: bytes) -> None:
    with pytest.raises(CorruptValue):
        decode(KEY, value)


@pytest.mark.parametrize("logit", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_no_finite_score_is_corrupt(logit: float) -> None:
    with pytest.raises(CorruptValue, match="finite"):
        decode(KEY, encode(KEY, CachedScore(logit, 1, False)))


def test_a_value_under_another_key_is_corrupt() -> None:
    with pytest.raises(CorruptValue, match="checksum"):
        decode(bytes([1] * 32), encode(KEY, SCORE))
