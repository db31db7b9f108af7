from __future__ import annotations

import pytest

from rerankd.http.json_response import json_bytes


def test_json_is_compact_and_utf8() -> None:
    assert json_bytes({"a": [1, "é"]}) == '{"a":[1,"é"]}'.encode()


def test_a_number_that_is_none_is_a_fault_of_ours_and_never_sent() -> None:
    with pytest.raises(ValueError, match="JSON"):
        json_bytes({"score": float("nan")})
