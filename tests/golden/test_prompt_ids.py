"""The ids of a prompt are those of the model card's own code, on every benign pair."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.figures import Measured
from tests.golden.pieces import text_of
from tests.tokenizer_fixtures import prompt_tokenizer, prompts, whole_tokenizer

from rerankd.prompt.build import PromptBuilder, PromptLimits
from rerankd.prompt.tokenizer import PromptTokenizer
from rerankd.types import PairPrompt

PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
TASK = "Given a web search query, retrieve relevant passages that answer the query"
# Written out, so that a changed tokenizer or template cannot agree with itself.
FIRST_PAIR = [
    151644, 8948, 198, 60256, 3425, 279, 11789, 20027, 279, 8502, 3118, 389, 279, 11361, 323,
    279, 758, 1235, 3897, 13, 7036, 429, 279, 4226, 646, 1172, 387, 330, 9693, 1,
    476, 330, 2152, 3263, 151645, 198, 151644, 872, 198, 27, 641, 1235, 26818, 16246, 264,
    3482, 2711, 3239, 11, 17179, 9760, 46769, 429, 4226, 279, 3239, 198, 27, 2859, 26818,
    3555, 374, 279, 6722, 315, 5616, 5267, 75692, 26818, 576, 6722, 315, 5616, 374, 26549,
    13, 151645, 198, 151644, 77091, 198, 151667, 271, 151668, 271,
]  # fmt: skip

CardIds = Callable[[str, str, str], list[int]]


@pytest.fixture(scope="module")
def encode(qwen3_file: Path) -> Callable[[str], list[int]]:
    """The released tokenizer, added tokens and all."""
    tokenizer = whole_tokenizer(qwen3_file)
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


@pytest.fixture(scope="module")
def card_ids(encode: Callable[[str], list[int]]) -> CardIds:
    """The model card's code: the body as one string through the released tokenizer, between prefix and suffix."""
    prefix, suffix = encode(PREFIX), encode(SUFFIX)
    assert (len(prefix), len(suffix)) == (39, 9)
    return lambda task, query, doc: (
        prefix + encode(f"<Instruct>: {task}\n<Query>: {query}\n<Document>: {doc}") + suffix
    )


@pytest.mark.promise("H-03")
def test_the_card_s_examples_have_exactly_the_card_s_ids(
    qwen3: PromptTokenizer, card_ids: CardIds, measured: Measured
) -> None:
    queries = ["What is the capital of China?", "Explain gravity"]
    documents = [
        "The capital of China is Beijing.",
        "Gravity is a force that attracts two bodies towards each other. It gives weight to physical objects and is "
        "responsible for the movement of planets around the sun.",
    ]
    for query in queries:
        pairs = PromptBuilder(qwen3).pairs(query, documents, TASK, PromptLimits())
        for pair, document in zip(pairs, documents, strict=True):
            assert isinstance(pair, PairPrompt)
            expected = card_ids(TASK, query, document)
            assert pair.ids.tolist() == expected
            assert pair.tokens == len(expected)
    assert prompts(qwen3, TASK, queries[0], documents[:1])[0].tolist() == FIRST_PAIR
    measured("H-03", "the card's examples", "ids and token counts exact", "4 of 4")


@pytest.mark.promise("H-02")
@pytest.mark.parametrize("count", [2_000, pytest.param(20_000, marks=pytest.mark.thorough)])
def test_random_pairs_have_the_card_s_ids(
    qwen3: PromptTokenizer, card_ids: CardIds, measured: Measured, count: int
) -> None:
    rng = random.Random(20_000)
    wrong = 0
    for _ in range(count // 4):
        task, query = text_of(rng, 6) or TASK, text_of(rng, 15)
        documents = [text_of(rng, 25) for _ in range(4)]
        found = prompts(qwen3, task, query, documents)
        expected = [card_ids(task, query, document) for document in documents]
        wrong += sum(ids.tolist() != card for ids, card in zip(found, expected, strict=True))
    measured("H-02", f"{count} random pairs", "all ids equal the card's", f"{wrong} differ")
    assert wrong == 0


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30), st.text(max_size=80), st.text(max_size=200))
def test_any_unicode_has_the_card_s_ids(
    qwen3: PromptTokenizer, card_ids: CardIds, task: str, query: str, document: str
) -> None:
    assert prompts(qwen3, task, query, [document])[0].tolist() == card_ids(task, query, document)


def test_the_chat_form_has_blank_lines_between_its_fields(
    qwen3_file: Path, encode: Callable[[str], list[int]]
) -> None:
    chat = prompt_tokenizer(qwen3_file, "qwen3-reranker-chat")
    body = f"{PREFIX}<Instruct>: {TASK}\n\n<Query>: q\n\n<Document>: d{SUFFIX}"
    assert prompts(chat, TASK, "q", ["d"])[0].tolist() == encode(body)
