from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.training.sources import prepared_pairs
from tokenizers import Tokenizer
from training.batches import Lengths, Sampler
from training.calibrate import fit_scale, low_threshold
from training.data import held_out
from training.initialise import Shape, State
from training.losses import order_loss
from training.model import PackedModel, pack
from training.prepare import Prepared, load_prepared, save_prepared
from training.quick_eval import ndcg
from training.start import deepened, load_start
from training.teacher import Mixture, key_of
from training.train import Recipe, Speed, Trainer, begun, read_stages, sampler_of, teach, train_stages, trained

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


def test_a_new_layer_changes_nothing_before_it_is_trained(shape: Shape, state: State, prepared: Prepared) -> None:
    cluster = pack([prepared.documents[place] for place in range(4)], [prepared.queries[1]], 64)
    deep, weights = deepened(shape, state, place=3, seed=1)
    assert deep.layers == shape.layers + 1
    assert torch.allclose(PackedModel(deep, weights)(cluster), PackedModel(shape, state)(cluster), atol=1e-5)
    assert float(weights["model.layers.3.self_attn.q_proj.weight"].std()) > 0.01


def test_new_clusters_are_taught_by_what_the_stage_starts_from(
    prepared: Prepared, shape: Shape, state: State, work: Path
) -> None:
    teachers: Mixture = {"en": {"bm25": 0.3}}
    recipe = Recipe(clusters=1, queries=4, documents=6, warm_up=1, fresh=True, hold=1.0, deepens=2, teachers=teachers)
    trainer = Trainer(recipe, shape, state, [prepared], work)
    draw = trainer.sampler.draw(0)
    with torch.inference_mode():
        expected = PackedModel(shape, state)(trainer.packed(draw))
    trainer.train_step()
    assert torch.allclose(trainer.taught(draw, fresh=True), expected, atol=1e-5)
    assert not torch.allclose(trainer.model(trainer.packed(draw)), expected, atol=1e-3)


def test_the_order_of_a_cluster_is_held_whatever_is_added_to_a_query() -> None:
    wanted = torch.tensor([[3.0, 1.0, -2.0], [0.0, 4.0, 1.0]])
    assert float(order_loss(wanted + torch.tensor([[5.0], [-1.0]]), wanted)) == pytest.approx(0, abs=1e-6)
    assert float(order_loss(wanted.flip(1), wanted)) > 0.5


def test_a_stage_hands_on_its_share_and_the_rest_of_what_it_started_from(
    shape: Shape, work: Path, tmp_path: Path
) -> None:
    stage = Recipe(
        steps=1, clusters=1, queries=3, documents=4, distil=0.0, warm_up=1, deepens=3, share=0.75, average=0.0, seed=7
    )
    train_stages(work, tmp_path, [stage], Speed())
    first = begun(stage, *load_start(work, 7, None))[1]
    last = torch.load(tmp_path / "stage1" / "checkpoint.pt", weights_only=True)["averaged"]
    found_shape, found = trained(work, tmp_path, [stage])
    assert found_shape.layers == shape.layers + 1
    assert any(not torch.equal(first[name], last[name]) for name in last)
    for name, tensor in found.items():
        assert torch.allclose(tensor, 0.25 * first[name] + 0.75 * last[name], atol=1e-6)


def test_what_a_stage_hands_on_can_be_mixed_with_an_earlier_stage(work: Path, tmp_path: Path) -> None:
    short = Recipe(steps=2, clusters=1, queries=3, documents=4, distil=0.0, warm_up=1, average=0.0)
    stages = [short, replace(short, share=0.25, back=1)]
    assert train_stages(work, tmp_path, stages, Speed())
    _, began = load_start(work, short.seed, None)
    _, found = trained(work, tmp_path, stages)
    averaged = torch.load(tmp_path / "stage2" / "checkpoint.pt", weights_only=True)["averaged"]
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, began[name] + 0.25 * (averaged[name] - began[name]))
    _, one_before = trained(work, tmp_path, stages[:1])
    name = "model.layers.0.mlp.down_proj.weight"
    assert not torch.allclose(one_before[name], began[name])


def test_the_clusters_that_come_again_are_the_ones_that_were_scored(work: Path, prepared: Prepared) -> None:
    recipe = Recipe(queries=3, documents=4, distinct=3, fresh=True, teachers={"en": {"bm25": 1.0}})
    teach(work, recipe, Speed())
    scored = {path.stem for path in (work / "teachers").rglob("*.npz")}
    sampler = sampler_of([prepared], recipe, Lengths())
    again = [sampler.draw(index) for index in range(6) if not sampler.is_fresh(index)]
    assert scored == {key_of(draw.queries, draw.documents) for draw in again}


def test_finished_stages_are_not_trained_again(work: Path, tmp_path: Path) -> None:
    stages = [Recipe(steps=1, clusters=1, queries=3, documents=4, distil=0.0)]
    train_stages(work, tmp_path / "run", stages, Speed())
    curve = (tmp_path / "run" / "stage1" / "curve.jsonl").read_text()
    train_stages(work, tmp_path / "run", stages, Speed())
    assert (tmp_path / "run" / "stage1" / "curve.jsonl").read_text() == curve


def test_the_threshold_is_the_lowest_that_parts_nearly_as_many_pairs_as_can_be() -> None:
    random = np.random.default_rng(1)
    right, wrong = random.normal(9, 0.1, 100), random.normal(0, 0.1, 100)
    # Of some pairs both documents are far above: no threshold parts them, and they move it nowhere.
    right[:20], wrong[:20] = 18.0, 17.0
    # The best is halfway, at 4.5; by degrees, 1 % fewer of all are parted at 3.5.
    assert low_threshold(np.stack([right, wrong], axis=1).astype(np.float32)) == pytest.approx(3.5, abs=0.3)


def test_the_scale_is_that_of_the_odds_on_both_sides_of_the_threshold() -> None:
    random = np.random.default_rng(1)
    right, wrong = random.normal(5, 1, 4_000).astype(np.float32), random.normal(1, 1, 9_000).astype(np.float32)
    # The log odds of two normal distributions of variance 1 grow by the distance of their means.
    scale = fit_scale(right, wrong, np.full(9_000, 1 / 9_000, dtype=np.float32), threshold=3.0)
    assert scale == pytest.approx(4.0, rel=0.1)


def test_ndcg_by_hand() -> None:
    assert ndcg(["a", "b", "c"], {"a": 0, "b": 2, "c": 1}) == pytest.approx(
        (2 / np.log2(3) + 1 / 2) / (2 + 1 / np.log2(3)), abs=1e-9
    )
    assert torch.isfinite(torch.tensor(ndcg(["x"], {"y": 1})))
