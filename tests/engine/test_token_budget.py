"""The token budget that warm-up finds on a CUDA device, from what a device of known memory reports."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest
import torch

from rerankd.engine.base import Batch, EngineOutOfMemory
from rerankd.engine.native.token_budget import profile_max_batch_tokens

LENGTH = 8192
GIB = 2**30


@dataclass
class Card:
    """A device with so much memory free, an engine that takes so much a token, and both on one clock."""

    free: float
    bytes_a_token: float
    tokens_a_second: float
    surprise: float = 1.0
    """How much more long pairs take than what was measured."""
    clock: float = 0.0
    peak: float = 0.0
    largest: int = 0

    def score(self, batch: Batch) -> None:
        is_long = batch.tokens // batch.pairs > LENGTH // 2
        taken = batch.tokens * self.bytes_a_token * (self.surprise if is_long else 1)
        if taken > self.free:
            raise EngineOutOfMemory("this card is full")
        self.peak = max(self.peak, taken)
        self.largest = max(self.largest, batch.tokens)
        self.clock += batch.tokens / self.tokens_a_second


@pytest.fixture
def budget_of(monkeypatch: pytest.MonkeyPatch):
    def budget(card: Card) -> int:
        monkeypatch.setattr(time, "perf_counter", lambda: card.clock)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 3 * GIB)
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 4 * GIB)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * GIB + card.peak)
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (card.free - GIB, 80 * GIB))
        return profile_max_batch_tokens(card.score, torch.device("cuda"), LENGTH)

    return budget


def test_a_slow_card_gets_what_it_does_in_less_than_half_a_second(budget_of) -> None:
    card = Card(free=70 * GIB, bytes_a_token=40_000, tokens_a_second=100_000)
    assert budget_of(card) == 40_000
    assert card.largest == pytest.approx(40_000, rel=0.01), "the budget was not tried"


def test_a_fast_card_gets_what_fits_in_three_quarters_of_its_free_memory(budget_of) -> None:
    card = Card(free=4 * GIB, bytes_a_token=80_000, tokens_a_second=1e6)
    assert budget_of(card) == int(3 * GIB / 80_000)


def test_a_budget_that_does_not_fit_after_all_is_halved(budget_of) -> None:
    measured = int(3 * GIB / 80_000)
    assert budget_of(Card(free=4 * GIB, bytes_a_token=80_000, tokens_a_second=1e6, surprise=1.6)) == measured // 2


@pytest.mark.parametrize("free", [0.1 * GIB, 1.3 * GIB])
def test_the_longest_pair_is_always_allowed(free: float, budget_of) -> None:
    assert budget_of(Card(free=free, bytes_a_token=80_000, tokens_a_second=1e6, surprise=9)) == LENGTH
