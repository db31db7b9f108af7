"""Micro-batches: every prompt once, little padding, segments told apart."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rerankd.engine.onnx.padding import MAX_TOKENS, MicroBatch, micro_batches


def prompts_of(lengths: list[int]) -> list[np.ndarray]:
    return [np.full(length, index + 1, dtype=np.int32) for index, length in enumerate(lengths)]


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=60))
@settings(max_examples=50, deadline=None)
def test_every_prompt_is_in_one_micro_batch_and_none_is_too_large(lengths: list[int]) -> None:
    prompts = prompts_of(lengths)
    seen: list[int] = []
    for part in micro_batches(prompts, pad_id=0):
        seen.extend(part.pairs.tolist())
        assert part.input_ids.size <= MAX_TOKENS or len(part.pairs) == 1
        for row, pair in enumerate(part.pairs):
            tokens = part.input_ids[row][part.attention_mask[row] == 1]
            assert np.array_equal(tokens, prompts[pair])
    assert sorted(seen) == list(range(len(lengths)))


def test_similar_lengths_leave_little_padding() -> None:
    lengths = [int(length) for length in np.random.default_rng(0).integers(20, 500, 200)]
    padded = sum(part.input_ids.size for part in micro_batches(prompts_of(lengths), pad_id=0))
    assert padded <= 1.1 * sum(lengths)


def test_a_few_short_prompts_go_together_whatever_their_lengths() -> None:
    assert len(list(micro_batches(prompts_of([100, 30, 5]), pad_id=0))) == 1


def test_segments_begin_behind_the_first_separator() -> None:
    prompts = [np.array([2, 7, 3, 8, 3, 9, 3], dtype=np.int32), np.array([2, 3, 8, 3], dtype=np.int32)]
    part = MicroBatch.of(np.array([0, 1]), prompts, pad_id=0)
    assert part.token_type_ids(separator=3).tolist() == [[0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 0, 0, 0]]
