from __future__ import annotations

import numpy as np
import pytest
from tests.training.sources import TEXTS, prepared_pairs
from tokenizers import Tokenizer
from training.calibrate import parted
from training.data import held_out
from training.held_lists import fused_table, held_lists, judged, table_head, table_row
from training.initialise import Shape, State
from training.model import PackedModel
from training.prepare import Prepared


@pytest.fixture(scope="module")
def sources(tokenizer: Tokenizer) -> list[Prepared]:
    queries = [f"what is {text}" for text in TEXTS]
    return [prepared_pairs(tokenizer, name, "en", queries, TEXTS) for name in ("toy", "toy.cloze", "toy.searches")]


def test_lists_are_of_real_queries_that_are_never_trained_on(sources: list[Prepared]) -> None:
    rows = held_lists(sources, 2, 5, seed=1)["en"]
    assert len(rows) == 2
    assert all(held_out(row.query) and row.relevant.sum() == 1 for row in rows)
    assert {row.source.name for row in rows} == {"toy"}


def test_a_right_document_counts_less_the_later_it_comes() -> None:
    relevant = np.array([False, True, False])
    assert judged(np.array([0.1, 0.9, 0.3], dtype=np.float32), relevant) == 1
    assert judged(np.array([0.1, 0.2, 0.3], dtype=np.float32), relevant) == pytest.approx(1 / np.log2(3))


def test_a_threshold_parts_pairs_whose_documents_lie_on_both_sides_of_it() -> None:
    assert parted(np.array([[1.0, -1.0], [3.0, 2.0], [-1.0, 1.0]], dtype=np.float32)) == pytest.approx(1 / 3)
    assert parted(np.array([[1.0, -1.0], [0.5, -3.0]], dtype=np.float32)) == 1


def test_a_row_of_the_table_has_every_column(
    sources: list[Prepared], tokenizer: Tokenizer, shape: Shape, state: State
) -> None:
    lists = held_lists(sources, 2, 5, seed=1)
    row = table_row("the start", PackedModel(shape, state), lists, tokenizer)
    head = table_head(lists).split("\n")[0]
    assert row.count("|") == head.count("|")
    # Equal tokens match in the start: every right document of these comes first.
    assert row.startswith("| the start | 1.000 | 1.000 | ")


def test_fused_scores_go_from_bm25s_order_to_the_models(sources: list[Prepared], shape: Shape, state: State) -> None:
    lists = held_lists(sources, 2, 5, seed=1)
    head, _, first, *_, last = fused_table(PackedModel(shape, state), lists).split("\n")
    alone = [
        judged(row.source.pool.scores(np.array([row.query]), row.documents)[0], row.relevant) for row in lists["en"]
    ]
    assert head == "| weight | en | mean |"
    assert first == f"| 0 | {np.mean(alone):.3f} | {np.mean(alone):.3f} |"
    # Equal tokens match in the start.
    assert last == "| 1 | 1.000 | 1.000 |"
