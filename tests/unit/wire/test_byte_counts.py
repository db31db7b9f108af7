from __future__ import annotations

import mmap

import numpy as np
import pytest

from rerankd.wire.byte_counts import ByteCounts, count_objects

BLOCK = 64 * 1024
ALPHABET = '[]{}"\\ua \u00e9\u5eb5\U0001f600'


def mapped(data: bytes) -> mmap.mmap:
    """As bodies of known length are read."""
    pages = mmap.mmap(-1, len(data), access=mmap.ACCESS_COPY)
    pages.write(data)
    return pages


@pytest.mark.parametrize("length", [0, 1, 40, BLOCK - 1, BLOCK, 3 * BLOCK + 7])
@pytest.mark.parametrize("seed", range(3))
def test_counts_are_those_of_the_text(length: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    text = "".join(random.choice(list(ALPHABET), length))
    data = text.encode()
    lists, objects, quotes, escaped = (text.count(shown) for shown in ("[", "{", '"', '\\"'))
    wanted = ByteCounts(lists, objects, quotes, escaped, "\\u" in text, "\\\\" in text)
    for body in (data, bytearray(data), *([mapped(data)] if data else [])):
        assert ByteCounts.of(body) == wanted
        assert count_objects(body) == wanted.objects


@pytest.mark.parametrize("place", [0, 1, BLOCK - 2, BLOCK - 1, BLOCK, 2 * BLOCK - 1, 3 * BLOCK - 2])
def test_an_escape_is_found_wherever_it_lies(place: int) -> None:
    data = bytearray(b" " * 3 * BLOCK)
    assert not ByteCounts.of(data).has_unicode_escape
    data[place : place + 2] = b"\\u"
    assert ByteCounts.of(data).has_unicode_escape


def test_a_backslash_before_another_letter_is_no_escape_of_a_code_point() -> None:
    assert not ByteCounts.of(b"\\n u" * BLOCK).has_unicode_escape


@pytest.mark.parametrize("place", [0, BLOCK - 1, BLOCK, 2 * BLOCK - 1])
def test_an_escaped_quotation_mark_ends_no_string(place: int) -> None:
    data = bytearray(b" " * 3 * BLOCK)
    data[place : place + 2] = b'\\"'
    counts = ByteCounts.of(data)
    assert (counts.quotes, counts.string_quotes) == (1, 0)
    # Two backslashes are one, and the quotation mark behind them may be an end: nobody looks that closely here.
    data[place : place + 3] = b'\\\\"'
    assert ByteCounts.of(data).string_quotes == 1
