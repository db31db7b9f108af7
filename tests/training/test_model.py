from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from training.export import export
from training.initialise import Shape, State
from training.model import PackedModel, pack, pack_lists
from training.tokenizer import BOS, END, QUERY

DOCUMENTS = [
    "Paris is the capital of France.",
    "Bananas are yellow and grow in warm countries.",
    "法国的首都是巴黎。",
    "香蕉是黄色的水果。",
]
QUERIES = ["What is the capital of France?", "法国的首都是哪里？"]


def ids(tokenizer: Tokenizer, texts: list[str]) -> list[NDArray[np.int32]]:
    return [np.array(tokenizer.encode(text).ids, dtype=np.int32) for text in texts]


@pytest.fixture(scope="module")
def exact(shape: Shape, state: State) -> PackedModel:
    return PackedModel(shape, state, torch.float32)


@torch.no_grad()
def test_an_equal_token_document_beats_others_before_training(exact: PackedModel, tokenizer: Tokenizer) -> None:
    logits = exact(pack(ids(tokenizer, DOCUMENTS), ids(tokenizer, QUERIES), 64))
    assert logits.argmax(dim=1).tolist() == [0, 2]


@torch.no_grad()
def test_packing_does_not_change_scores(exact: PackedModel, tokenizer: Tokenizer) -> None:
    documents, queries = ids(tokenizer, DOCUMENTS), ids(tokenizer, QUERIES)
    together = exact(pack(documents, queries, 64))
    alone = torch.stack([torch.cat([exact(pack([d], [q], 64))[0] for d in documents]) for q in queries])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    ragged = exact(pack_lists(documents[:2], [queries, queries[1:]], 64))
    torch.testing.assert_close(ragged[:, 0], together[:, 0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ragged[0, 1], together[1, 1], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_exported_folder_scores_alike_in_transformers(
    tmp_path: Path, shape: Shape, state: State, tokenizer: Tokenizer, tokenizer_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    export(tmp_path, shape, state, tokenizer_path, scale=0.5, bias=-1.0)
    assert json.loads((tmp_path / "template.json").read_text())["scale"] == 0.5
    loaded = transformers.Qwen3ForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float32).eval()
    rounded = {name: tensor.half().float() for name, tensor in state.items()}
    document, query = ids(tokenizer, DOCUMENTS)[0], ids(tokenizer, QUERIES)[0]
    tokens = torch.tensor([[BOS, *document, QUERY, *query, END]])
    ours = PackedModel(shape, rounded, torch.float32)(pack([document], [query], 64))
    torch.testing.assert_close(loaded(input_ids=tokens).logits, ours, rtol=1e-3, atol=1e-3)


def test_underscores_and_han_characters_stand_alone(tokenizer: Tokenizer) -> None:
    def pieces(text: str) -> list[str]:
        return [tokenizer.decode([token]).strip() for token in tokenizer.encode(text).ids]

    assert pieces("read_file")[:3:2] == pieces("read file")[:1] + pieces(" file")[:1]
    assert len(pieces("法国的首都")) == 5


def test_control_tokens_are_the_first_four(tokenizer: Tokenizer) -> None:
    assert [tokenizer.token_to_id(text) for text in ("<bos>", "<q>", "<end>")] == [BOS, QUERY, END]
