"""What is kept, for how long, and what never is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rerankd.engine.native.kept import LONGEST, Asked, Kept

LAYERS = 2


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def ids(rng: np.random.Generator, length: int) -> np.ndarray:
    return rng.integers(0, 1000, length).astype(np.int32)


def a_pass(kept: Kept, *begins: np.ndarray, value: float = 1.0) -> Asked:
    """One pass over prompts that begin like this; ``value`` is that of all its keys."""
    asked = kept.ask(begins)
    rows = torch.full((2, asked.tokens, 1, 4), value)
    kept.learn(asked, [rows] * LAYERS if asked.tokens else [])
    return asked


def known(asked: Asked) -> list[int]:
    return [one.tokens if one else 0 for one in asked.known]


def lengths(kept: Kept) -> list[int]:
    return [len(beginning.ids) for beginning in kept._beginnings]


def test_what_two_passes_begin_with_is_kept_by_the_second_and_known_to_the_third(rng: np.random.Generator) -> None:
    kept, template = Kept(512), ids(rng, 58)
    prompts = [np.concatenate([template, ids(rng, 30)]) for _ in range(3)]
    passes = [a_pass(kept, prompt) for prompt in prompts]
    assert [asked.tokens for asked in passes] == [0, 58, 0]
    assert [known(asked) for asked in passes] == [[0], [0], [58]]
    assert known(kept.ask([template[:40], template[:31], prompts[0]])) == [40, 0, 58]


def test_prompts_of_one_pass_alone_tell_nothing(rng: np.random.Generator) -> None:
    kept, template = Kept(512), ids(rng, 58)
    assert a_pass(kept, template, template).tokens == 0


def test_ends_of_prompts_are_not_alike(rng: np.random.Generator) -> None:
    kept, template = Kept(512), ids(rng, 40)
    assert [a_pass(kept, template).tokens for _ in range(3)] == [0, 40, 0]
    assert known(kept.ask([np.append(template, ids(rng, 5)), template])) == [40, 40]


def test_a_word_more_in_common_is_not_worth_a_copy(rng: np.random.Generator) -> None:
    kept, template = Kept(512), ids(rng, 58)
    for _ in range(3):
        a_pass(kept, np.append(template, ids(rng, 20)))
    longer = np.append(template, ids(rng, 15))
    for _ in range(4):
        a_pass(kept, np.append(longer, ids(rng, 9)))
    assert lengths(kept) == [58]
    longest = np.append(template, ids(rng, 16))
    for _ in range(4):
        a_pass(kept, np.append(longest, ids(rng, 9)))
    assert lengths(kept) == [58, 74]


def test_the_least_recently_used_goes_first(rng: np.random.Generator) -> None:
    kept = Kept(150)
    first, second, third = (ids(rng, 50) for _ in range(3))
    for template in (first, second):
        for _ in range(3):
            a_pass(kept, template)
    a_pass(kept, first)
    for _ in range(3):
        a_pass(kept, third)
    assert known(kept.ask([first, second, third])) == [50, 50, 50]
    a_pass(kept, first, third)
    fourth = ids(rng, 60)
    for _ in range(3):
        a_pass(kept, fourth)
    assert known(kept.ask([first, second, third, fourth])) == [0, 0, 50, 60]


def test_prompts_that_come_twice_and_never_again_cost_hardly_a_copy(rng: np.random.Generator) -> None:
    kept, copies = Kept(512), 0
    for _ in range(400):
        prompt = ids(rng, 100)
        copies += sum(a_pass(kept, prompt).tokens > 0 for _ in range(2))
        assert sum(lengths(kept)) <= 512
    assert copies <= 800 / 32 + 1


def test_more_templates_than_fit_do_not_push_one_another_out_in_turn(rng: np.random.Generator) -> None:
    kept, templates = Kept(256), [ids(rng, 50) for _ in range(8)]
    hits = copies = 0
    for turn in range(200):
        asked = a_pass(kept, templates[turn % 8])
        hits, copies = hits + (known(asked) != [0]), copies + (asked.tokens > 0)
    assert copies <= 30
    assert hits >= 80


def test_prompts_that_are_always_new_leave_nothing_behind(rng: np.random.Generator) -> None:
    kept = Kept(512)
    for _ in range(50):
        assert a_pass(kept, *(ids(rng, 400) for _ in range(40))).tokens == 0
    assert kept._recent.shape == (32, LONGEST)
    assert kept._beginnings == []


@pytest.mark.parametrize("most", [0, 31])
def test_nothing_is_kept_where_nothing_may_be(most: int, rng: np.random.Generator) -> None:
    kept, template = Kept(most), ids(rng, 58)
    for _ in range(4):
        assert (a_pass(kept, template).tokens, len(kept._recent)) == (0, 0)


def test_no_beginning_is_longer_than_all_may_be_together(rng: np.random.Generator) -> None:
    template = ids(rng, 1000)
    for most, longest in ((100, 100), (2000, LONGEST)):
        kept = Kept(most)
        for _ in range(3):
            a_pass(kept, template)
        assert lengths(kept) == [longest]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_keys_that_are_not_numbers_are_not_kept(value: float, rng: np.random.Generator) -> None:
    kept, template = Kept(512), ids(rng, 58)
    a_pass(kept, template)
    assert a_pass(kept, template, value=value).tokens == 58
    assert kept._beginnings == []
    a_pass(kept, template)
    assert known(kept.ask([template])) == [58]
