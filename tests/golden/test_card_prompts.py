"""Prompts of other decoders: ids of random pairs, made by the recipe of each model's card or released code.

The recipes are written out here from their texts. Only Qwen3's tokenizer is at hand: mxbai-rerank-v2 has Qwen2's,
which differs in added tokens alone, and for Gemma one is made with its kinds of tokens.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.golden.pieces import text_of
from tests.tokenizer_fixtures import prompt_tokenizer, whole_tokenizer
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers

from rerankd.engine.base import HeadSpec
from rerankd.errors import ConfigurationError
from rerankd.prompt.build import PromptBuilder, PromptLimits
from rerankd.prompt.template_choice import load_template
from rerankd.prompt.templates import TEMPLATES
from rerankd.prompt.tokenizer import PromptTokenizer
from rerankd.types import PairPrompt

Encode = Callable[[str], list[int]]

MXBAI_TASK = (
    "You are a search relevance expert who evaluates how well documents match search queries. For each "
    "query-document pair, carefully analyze the semantic relationship between them, then provide your binary "
    "relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:"
)
GEMMA_TASK = (
    "Given a query A and a passage B, determine whether the passage contains an answer to the query by providing a "
    "prediction of either 'Yes' or 'No'."
)


def mxbai(encode: Encode, instruction: str, query: str, document: str) -> list[int]:
    """Pieces encoded one by one; an instruction stands in the query's piece."""
    first = f"query: {query}"
    if instruction:
        first = f"instruction: {instruction}\n{first}"
    system = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    prefix = f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n"
    pieces = [prefix, first, "\n", f"document: {document}", "\n", MXBAI_TASK, "<|im_end|>\n<|im_start|>assistant\n"]
    return [token for piece in pieces for token in encode(piece)]


def zerank(encode: Encode, instruction: str, query: str, document: str) -> list[int]:
    """Qwen3's chat template, the query as the system's turn, with the texts stripped."""
    turns = [("system", query.strip()), ("user", document.strip())]
    chat = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns)
    return encode(f"{chat}<|im_start|>assistant\n")


def ctxl(encode: Encode, instruction: str, query: str, document: str) -> list[int]:
    """One string; an instruction follows the query behind a space."""
    if instruction:
        instruction = f" {instruction}"
    task = "Check whether a given document contains information helpful to answer the query."
    return encode(f"{task}\n<Document> {document}\n<Query> {query}{instruction} ??")


def bge_gemma(encode: Encode, instruction: str, query: str, document: str) -> list[int]:
    """``<bos>``, then pieces encoded one by one."""
    pieces = ["<bos>", f"A: {query}", "\n", f"B: {document}", "\n", GEMMA_TASK]
    return [token for piece in pieces for token in encode(piece)]


CARDS = {"mxbai-rerank-v2": mxbai, "zerank": zerank, "ctxl-rerank-v2": ctxl}


@pytest.fixture(scope="module")
def gemma_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BPE with byte fallback, spaces as U+2581, and runs of line ends as added tokens."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=800, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([GEMMA_TASK, "A: a query\nB: Yes, a passage"] * 4, trainer)
    tokenizer.add_tokens([AddedToken("\n" * count, normalized=False) for count in (2, 3, 4)])
    rows = json.loads(tokenizer.to_str())
    rows["added_tokens"] = [token for token in rows["added_tokens"] if not token["content"].startswith("<0x")]
    file = tmp_path_factory.mktemp("gemma") / "tokenizer.json"
    file.write_text(json.dumps(rows))
    return file


def differing(file: Path, name: str, card: Callable[..., list[int]], count: int) -> int:
    """How many random pairs have other ids than the card's."""
    tokenizer, rng = whole_tokenizer(file), random.Random(name)
    builder = PromptBuilder(prompt_tokenizer(file, name))

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False).ids)

    wrong = 0
    for number in range(count // 2):
        instruction = text_of(rng, 6) if number % 2 else ""
        query, documents = text_of(rng, 15), [text_of(rng, 25) for _ in range(2)]
        pairs = builder.pairs(query, documents, instruction, PromptLimits())
        for pair, document in zip(pairs, documents, strict=True):
            assert isinstance(pair, PairPrompt)
            wrong += pair.ids.tolist() != card(encode, instruction, query, document)
    return wrong


counts = pytest.mark.parametrize("count", [200, pytest.param(1_000, marks=pytest.mark.thorough)])


@counts
@pytest.mark.parametrize("name", CARDS)
def test_random_pairs_have_the_ids_of_the_card_s_recipe(name: str, qwen3_file: Path, count: int) -> None:
    assert differing(qwen3_file, name, CARDS[name], count) == 0


@counts
def test_random_pairs_have_the_ids_of_the_recipe_of_gemma(gemma_file: Path, count: int) -> None:
    assert differing(gemma_file, "bge-reranker-v2-gemma", bge_gemma, count) == 0


def test_runs_of_line_ends_are_text_and_control_tokens_are_not(gemma_file: Path) -> None:
    whole = Tokenizer.from_file(str(gemma_file))
    tokenizer = PromptTokenizer(gemma_file, TEMPLATES["bge-reranker-v2-gemma"])
    ids = next(tokenizer.encode(["a\n\n\nb<bos>"])).tolist()
    assert whole.token_to_id("\n\n\n") in ids
    assert whole.token_to_id("<bos>") not in ids


HEADS = {
    "mxbai-rerank-v2": HeadSpec("words", 16, 15),
    "zerank": HeadSpec("words", 9454),
    "ctxl-rerank-v2": HeadSpec("words", 0),
    "qwen3-reranker": HeadSpec("words", 9693, 2152),
}


@pytest.mark.parametrize("name", HEADS)
def test_scores_are_read_from_the_card_s_tokens(name: str, qwen3_file: Path) -> None:
    assert prompt_tokenizer(qwen3_file, name).head_spec() == HEADS[name]


@pytest.mark.parametrize("name", HEADS)
def test_a_checkpoint_is_recognised_by_the_tokens_that_are_scored(name: str, tmp_path: Path) -> None:
    family = "Qwen2" if name == "mxbai-rerank-v2" else "Qwen3"
    (tmp_path / "config.json").write_text(json.dumps({"architectures": [f"{family}ForCausalLM"]}))
    words = {
        word: token
        for known, head in HEADS.items()
        for word, token in (
            (TEMPLATES[known].head.positive, head.positive),
            (TEMPLATES[known].head.negative, head.negative),
        )
        if word
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": words}}))
    (tmp_path / "1_LogitScore").mkdir()
    scored = {"true_token_id": HEADS[name].positive, "false_token_id": HEADS[name].negative}
    (tmp_path / "1_LogitScore" / "config.json").write_text(json.dumps(scored))
    assert load_template(tmp_path) == TEMPLATES[name]
    (tmp_path / "1_LogitScore" / "config.json").write_text(json.dumps({**scored, "true_token_id": 7}))
    with pytest.raises(ConfigurationError, match="scored by the logits of the tokens 7 and"):
        load_template(tmp_path)


@pytest.mark.parametrize(
    ("folder", "config", "name"),
    [
        ("plain", {"architectures": ["Qwen3ForCausalLM"]}, "qwen3-reranker"),
        ("plain", {"architectures": ["Qwen2ForCausalLM"]}, "mxbai-rerank-v2"),
        ("plain", {"architectures": ["GemmaForCausalLM"]}, "bge-reranker-v2-gemma"),
        ("models--zeroentropy--zerank-1/snapshots/abc", {"architectures": ["Qwen3ForCausalLM"]}, "zerank"),
        ("ctxl-rerank-v2-instruct-multilingual-1b", {"architectures": ["Qwen3ForCausalLM"]}, "ctxl-rerank-v2"),
        (
            "plain",
            {"architectures": ["Qwen3ForCausalLM"], "auto_map": {"AutoConfig": "modeling_zeranker.ZEConfig"}},
            "zerank",
        ),
        (
            "plain",
            {"architectures": ["Qwen3ForCausalLM"], "_name_or_path": "ContextualAI/ctxl-rerank-v2-x"},
            "ctxl-rerank-v2",
        ),
    ],
)
def test_a_checkpoint_is_recognised_by_its_names(
    folder: str, config: dict[str, object], name: str, tmp_path: Path
) -> None:
    place = tmp_path / "a" / "b" / "c" / folder
    place.mkdir(parents=True)
    (place / "config.json").write_text(json.dumps(config))
    assert load_template(place) == TEMPLATES[name]


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "Gemma2ForCausalLM", "Qwen3MoeForCausalLM"])
def test_a_decoder_without_a_known_prompt_is_refused_by_name(architecture: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    with pytest.raises(ConfigurationError, match=architecture):
        load_template(tmp_path)
