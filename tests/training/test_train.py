from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.training.sources import prepared_pairs
from tokenizers import Tokenizer
from training.batches import Lengths, Sampler, held_out
from training.calibrate import fit
from training.content import CONTENT_DIMS, unit_rows
from training.initialise import Shape, State
from training.losses import order_loss
from training.model import PackedModel
from training.prepare import Prepared, load_prepared, save_evaluated, save_prepared
from training.quick_eval import ndcg
from training.train import Recipe, Speed, Trainer, mean_state, read_stages, train_stages

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
    return prepared_pairs(tokenizer, "toy", "en", [f"what is {text}" for text in texts], texts)


def test_a_cluster_holds_the_answers_of_all_its_queries(prepared: Prepared) -> None:
    draw = Sampler([prepared], 3, Lengths(), queries=6, documents=10).draw(0)
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


@pytest.fixture
def work(prepared: Prepared, shape: Shape, tokenizer_path: Path, tmp_path: Path) -> Path:
    """What ``prepare`` leaves behind, of the toy source."""
    folder = tmp_path / "work"
    save_prepared(prepared, folder / "prepared")
    save_evaluated(set(), folder)
    shutil.copyfile(tokenizer_path, folder / "tokenizer.json")
    content = np.random.default_rng(0).standard_normal((shape.vocabulary, CONTENT_DIMS)).astype(np.float32)
    rarity = np.full(shape.vocabulary, 4.0, dtype=np.float32)
    np.savez(folder / "content.npz", content=unit_rows(content), rarity=rarity)
    return folder


def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(
    prepared: Prepared, shape: Shape, state: State, work: Path, tmp_path: Path
) -> None:
    recipe = Recipe(
        steps=3,
        clusters=1,
        queries=3,
        documents=4,
        warm_up=1,
        distinct=2,
        fresh=True,
        pairs=2,
        statements=2,
        probability=1.0,
        teachers={"en": {"bm25": 0.3}},
    )
    whole, first = (Trainer(recipe, shape, state, [prepared], work) for _ in range(2))
    losses = [whole.train_step()["loss"] for _ in range(3)]
    first.train_step()
    first.save(tmp_path / "checkpoint.pt")
    second = Trainer(recipe, shape, state, [prepared], work)
    second.restore(tmp_path / "checkpoint.pt")
    assert [second.train_step()["loss"] for _ in range(2)] == pytest.approx(losses[1:], rel=1e-3)


def test_a_stage_starts_from_the_averaged_weights_of_the_one_before(work: Path, tmp_path: Path) -> None:
    few = {"clusters": 1, "queries": 3, "documents": 4, "distil": 0.0}
    still = {**few, "rate": 0.0, "embedding_rate": 0.0}
    path, run = tmp_path / "recipe.json", tmp_path / "run"
    path.write_text(json.dumps([{"steps": 2, **few, "warm_up": 1}, {"steps": 1, **still}]))
    stages = read_stages(path, seed=7)
    assert [recipe.seed for recipe in stages] == [7, 8]
    train_stages(work, run, stages, Speed())
    first, second = (torch.load(run / name / "checkpoint.pt", weights_only=True) for name in ("stage1", "stage2"))
    assert (first["step"], second["step"]) == (2, 1)
    for name, tensor in first["averaged"].items():
        assert torch.equal(second["model"][name], tensor)
    assert any(not torch.equal(first["model"][name], tensor) for name, tensor in first["averaged"].items())


def test_a_stage_may_start_from_a_mean_of_earlier_ones(work: Path, tmp_path: Path) -> None:
    few = {"steps": 1, "clusters": 1, "queries": 3, "documents": 4, "distil": 0.0, "warm_up": 1}
    path, run = tmp_path / "recipe.json", tmp_path / "run"
    still = {**few, "rate": 0.0, "embedding_rate": 0.0, "begins": {"1": 0.25, "2": 0.75}}
    path.write_text(json.dumps([few, few, still]))
    train_stages(work, run, read_stages(path, seed=7), Speed())
    first, second, third = (
        torch.load(run / name / "checkpoint.pt", weights_only=True) for name in ("stage1", "stage2", "stage3")
    )
    for name, tensor in third["model"].items():
        assert torch.allclose(tensor, 0.25 * first["averaged"][name] + 0.75 * second["averaged"][name], atol=1e-6)


def test_new_clusters_are_taught_by_the_weights_that_the_recipe_names(
    prepared: Prepared, shape: Shape, state: State, work: Path
) -> None:
    recipe = Recipe(clusters=1, queries=4, documents=6, fresh=True, hold=1.0, teachers={"en": {"bm25": 0.3}})
    other = {name: tensor * 1.1 for name, tensor in state.items()}
    trainer = Trainer(recipe, shape, state, [prepared], work, teacher=other)
    draw = trainer.sampler.draw(0)
    with torch.inference_mode():
        expected = PackedModel(shape, other)(trainer.packed(draw))
    assert torch.allclose(trainer.taught(draw, fresh=True), expected, atol=1e-5)
    alike = Trainer(recipe, shape, state, [prepared], work)
    assert trainer.cluster_loss(draw, fresh=True)[0] > alike.cluster_loss(draw, fresh=True)[0]


def test_the_order_of_a_cluster_is_held_whatever_is_added_to_a_query() -> None:
    wanted = torch.tensor([[3.0, 1.0, -2.0], [0.0, 4.0, 1.0]])
    assert float(order_loss(wanted + torch.tensor([[5.0], [-1.0]]), wanted)) == pytest.approx(0, abs=1e-6)
    assert float(order_loss(wanted.flip(1), wanted)) > 0.5


def test_the_released_weights_are_the_mean_of_the_stages_by_their_shares() -> None:
    states = [{"a": torch.full((2,), value)} for value in (1.0, 3.0, 100.0)]
    found = mean_state([(0.25, states[0]), (0.75, states[1]), (0.0, states[2])])
    assert torch.allclose(found["a"], torch.full((2,), 2.5))
    with pytest.raises(ValueError, match="sum to 1"):
        mean_state([(0.5, states[0]), (0.4, states[1])])


def test_finished_stages_are_not_trained_again(work: Path, tmp_path: Path) -> None:
    stages = [Recipe(steps=1, clusters=1, queries=3, documents=4, distil=0.0)]
    train_stages(work, tmp_path / "run", stages, Speed())
    curve = (tmp_path / "run" / "stage1" / "curve.jsonl").read_text()
    train_stages(work, tmp_path / "run", stages, Speed())
    assert (tmp_path / "run" / "stage1" / "curve.jsonl").read_text() == curve


def test_calibration_puts_one_half_between_the_classes() -> None:
    random = np.random.default_rng(1)
    right, wrong = random.normal(6, 1, 400).astype(np.float32), random.normal(0, 1, 900).astype(np.float32)
    scale, bias = fit(right, wrong, np.full(900, 1 / 900, dtype=np.float32))
    assert -bias / scale == pytest.approx(3.0, abs=0.3)


def test_ndcg_by_hand() -> None:
    assert ndcg(["a", "b", "c"], {"a": 0, "b": 2, "c": 1}) == pytest.approx(
        (2 / np.log2(3) + 1 / 2) / (2 + 1 / np.log2(3)), abs=1e-9
    )
    assert torch.isfinite(torch.tensor(ndcg(["x"], {"y": 1})))
