from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from training.batches import Lengths, Sampler, held_out
from training.calibrate import fit
from training.data import Source
from training.initialise import Shape, State
from training.prepare import Prepared, load_prepared, prepare_source, save_prepared
from training.quick_eval import ndcg
from training.train import Recipe, Trainer

WORDS = [
    "capital",
    "france",
    "yellow",
    "banana",
    "machine",
    "learning",
    "artificial",
    "warm",
    "countries",
    "open",
    "file",
    "path",
]


@pytest.fixture(scope="module")
def prepared(tokenizer: Tokenizer) -> Prepared:
    texts = [f"{a} {b} {c}" for a in WORDS[:4] for b in WORDS[4:8] for c in WORDS[8:]]
    source = Source("toy", "en", queries=[f"what is {text}" for text in texts], documents=texts)
    source.positives = [[place] for place in range(len(texts))]
    source.negatives = [[] for _ in texts]
    return prepare_source(source, tokenizer)


def test_a_cluster_holds_the_answers_of_all_its_queries(prepared: Prepared) -> None:
    draw = Sampler([prepared], 3, Lengths(), queries=6, documents=10).draw()
    assert draw.relevant.shape == (6, 10)
    assert draw.relevant.any(axis=1).all()
    assert not any(held_out(int(query)) for query in draw.queries)


def test_prepared_sources_survive_the_disk(prepared: Prepared, tmp_path: Path) -> None:
    save_prepared(prepared, tmp_path)
    again = load_prepared(tmp_path / "toy.npz")
    assert again.document_texts == prepared.document_texts
    assert np.array_equal(again.negatives.values, prepared.negatives.values)
    some = np.arange(3)
    assert np.allclose(again.pool.scores(some, some), prepared.pool.scores(some, some))


def small_trainer(recipe: Recipe, shape: Shape, state: State, prepared: Prepared) -> Trainer:
    trainer = Trainer(recipe, shape, state, [prepared])
    trainer.sampler.queries, trainer.sampler.documents = 3, 4
    return trainer


def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(
    prepared: Prepared, shape: Shape, state: State, tmp_path: Path
) -> None:
    recipe = Recipe(steps=3, clusters=1, distil=0.0, warm_up=1)
    whole, first = small_trainer(recipe, shape, state, prepared), small_trainer(recipe, shape, state, prepared)
    losses = [whole.train_step()["loss"] for _ in range(3)]
    first.train_step()
    first.save(tmp_path / "checkpoint.pt")
    second = small_trainer(recipe, shape, state, prepared)
    second.restore(tmp_path / "checkpoint.pt")
    assert [second.train_step()["loss"] for _ in range(2)] == pytest.approx(losses[1:], rel=1e-3)


def test_calibration_puts_one_half_between_the_classes() -> None:
    random = np.random.default_rng(1)
    right, wrong = random.normal(6, 1, 400).astype(np.float32), random.normal(0, 1, 900).astype(np.float32)
    scale, bias = fit(right, wrong)
    assert -bias / scale == pytest.approx(3.0, abs=0.3)


def test_ndcg_by_hand() -> None:
    assert ndcg(["a", "b", "c"], {"a": 0, "b": 2, "c": 1}) == pytest.approx(
        (2 / np.log2(3) + 1 / 2) / (2 + 1 / np.log2(3)), abs=1e-9
    )
    assert torch.isfinite(torch.tensor(ndcg(["x"], {"y": 1})))
