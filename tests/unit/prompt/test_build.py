from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.figures import Measured
from tokenizers import Tokenizer

from rerankd.errors import TooLong
from rerankd.prompt.build import Prompt, PromptBuilder, PromptLimits
from rerankd.prompt.fit import Pair
from rerankd.prompt.template import TEMPLATES, Control, Head, Template, Text
from rerankd.prompt.tokenizer import PromptTokenizer, Side

INSTRUCTION = "relevance"
LIMIT = 400


@pytest.fixture(scope="module")
def builder(small: PromptTokenizer) -> PromptBuilder:
    return PromptBuilder(small)


def whole(prompt: Prompt) -> list[list[int]]:
    return [[*prompt.prefix.tolist(), *tail.tolist()] for tail in prompt.tails]


def words(count: int, seed: int = 0) -> str:
    rng = random.Random(seed)
    return " ".join(rng.choice(["query", "Paris", "document", "zebra", "文字", "x9"]) for _ in range(count))


def alone(builder: PromptBuilder, query: str, document: str, instruction: str = INSTRUCTION) -> list[int]:
    ids: list[int] = builder.tokenizer.prompts(instruction, query, [document])[0].tolist()
    return ids


def test_the_prefix_is_all_that_the_pairs_have_in_common(builder: PromptBuilder) -> None:
    prompt = builder.build("query", ["Paris", "Parisian", "London"], INSTRUCTION, PromptLimits())
    assert whole(prompt) == [alone(builder, "query", document) for document in ("Paris", "Parisian", "London")]
    assert len({tail[0] for tail in prompt.tails}) > 1
    assert prompt.pair_tokens == tuple(map(len, whole(prompt)))
    assert prompt.truncated == (False, False, False)


def test_no_tail_is_empty_even_when_documents_are_equal(builder: PromptBuilder) -> None:
    prompt = builder.build("query", ["same", "same"], INSTRUCTION, PromptLimits())
    assert [len(tail) for tail in prompt.tails] == [1, 1]
    assert whole(prompt) == [alone(builder, "query", "same")] * 2


def test_a_pair_that_is_the_beginning_of_another_keeps_a_tail_of_its_own() -> None:
    short, long = np.array([1, 2, 3], dtype=np.int32), np.array([1, 2, 3, 4], dtype=np.int32)
    prompt = Prompt.of([Pair(short), Pair(long)])
    assert whole(prompt) == [[1, 2, 3], [1, 2, 3, 4]]
    assert [len(tail) for tail in prompt.tails] == [1, 2]


def test_a_pair_by_itself_shares_nothing(builder: PromptBuilder) -> None:
    prompt = builder.build("query", ["document"], INSTRUCTION, PromptLimits())
    assert prompt.prefix.size == 0
    assert whole(prompt) == [alone(builder, "query", "document")]


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_long_document_is_cut_at_the_side_asked_for(builder: PromptBuilder, side: Side) -> None:
    document = words(500)
    prompt = builder.build("query", [document, "short"], INSTRUCTION, PromptLimits(LIMIT, side=side))
    assert LIMIT - 4 <= prompt.pair_tokens[0] <= LIMIT
    assert prompt.truncated == (True, False)
    kept = [document[:end] if side == "right" else document[-end:] for end in range(200, 800)]
    assert whole(prompt)[0] in [alone(builder, "query", text) for text in kept]


def tokens_of(builder: PromptBuilder, text: str) -> int:
    return len(next(iter(builder.tokenizer.encode([text]))))


FRAME, ANSWER = TEMPLATES["qwen3-reranker"].parts[0].text, TEMPLATES["qwen3-reranker"].parts[-1].text


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(
    "texts", [(2, 2, 900), (2, 900, 2), (2, 900, 900), (2, 250, 900), (25, 900, 900), (25, 2, 900)]
)
def test_truncation_never_takes_the_frame_nor_the_document(
    builder: PromptBuilder,
    small_tokenizer_file: Path,
    measured: Measured,
    texts: tuple[int, int, int],
    side: Side,
) -> None:
    """H-06: whatever is too long, the frame survives whole and the document keeps a quarter of the budget."""
    instruction, query, document = (words(count, seed) for seed, count in enumerate(texts))
    prompt = builder.build(query, [document], instruction, PromptLimits(LIMIT, side=side))
    (ids,) = whole(prompt)
    decoded = Tokenizer.from_file(str(small_tokenizer_file)).decode(ids, skip_special_tokens=False)
    found = re.fullmatch(
        r"(.*)<Instruct>: (.*)\n<Query>: (.*)\n<Document>: (.*?)(<\|im_end\|>.*)", decoded, re.DOTALL
    )
    assert found is not None
    frame, kept_instruction, kept_query, kept_document, answer = found.groups()
    assert (frame, kept_instruction, answer) == (FRAME, instruction, ANSWER)
    assert query.startswith(kept_query)
    assert document.startswith(kept_document) if side == "right" else document.endswith(kept_document)
    assert len(ids) <= LIMIT
    assert prompt.truncated == (kept_query != query or kept_document != document,)
    budget = LIMIT - len(alone(builder, "", "", ""))
    assert kept_document == document or tokens_of(builder, kept_document) >= budget // 4 - 1
    share = tokens_of(builder, kept_document) / budget
    measured(
        "H-06",
        f"words of instruction, query, document: {texts}, side {side}",
        "frame whole, document >= 25 % or whole",
        f"frame whole, document {'whole' if kept_document == document else f'{share:.0%}'}",
    )
    if kept_query != query:
        assert budget // 4 - 2 <= tokens_of(builder, kept_query) <= budget // 4 + 1


def test_a_pair_that_fits_to_the_token_is_not_touched_and_one_token_more_is_cut(builder: PromptBuilder) -> None:
    """G-12: one token over."""
    document = words(40)
    tokens = len(alone(builder, "query", document))
    for limit, truncated in ((tokens, False), (tokens - 1, True)):
        prompt = builder.build("query", [document], INSTRUCTION, PromptLimits(limit))
        assert prompt.truncated == (truncated,)
        assert prompt.pair_tokens[0] <= limit


def test_what_becomes_of_a_pair_does_not_depend_on_the_other_documents(builder: PromptBuilder) -> None:
    query, documents = words(300), [words(count, count) for count in (1, 30, 900, 60)]
    together = builder.build(query, documents, INSTRUCTION, PromptLimits(LIMIT))
    apart = [builder.build(query, [document], INSTRUCTION, PromptLimits(LIMIT)) for document in documents]
    assert whole(together) == [whole(prompt)[0] for prompt in apart]
    assert together.truncated == tuple(prompt.truncated[0] for prompt in apart)


def test_a_client_s_own_limits_come_first(builder: PromptBuilder) -> None:
    limits = PromptLimits(LIMIT, max_tokens_per_document=20, max_tokens_per_query=10)
    prompt = builder.build(words(50), [words(100), "short"], INSTRUCTION, limits)
    empty = len(alone(builder, "", ""))
    assert empty + 20 < prompt.pair_tokens[0] <= empty + 30
    assert prompt.truncated == (True, True)
    kept = builder.build("query", [words(100)], INSTRUCTION, PromptLimits(max_tokens_per_document=20)).pair_tokens[0]
    assert len(alone(builder, "query", "")) + 15 <= kept <= len(alone(builder, "query", "")) + 20


def test_a_document_within_its_own_limit_is_not_cut_because_of_a_long_instruction(builder: PromptBuilder) -> None:
    limits = PromptLimits(LIMIT, max_tokens_per_document=5)
    assert builder.build("query", [words(20)], words(40), limits).truncated == (True,)


@pytest.mark.parametrize(
    ("limits", "message", "param", "setting"),
    [
        (PromptLimits(LIMIT, truncate=False), r"document 7 makes a pair of \d+ tokens; the limit is 400", 7, True),
        (
            PromptLimits(truncate=False, max_tokens_per_document=9),
            r"document 7 has \d+ tokens; .* allows 9",
            7,
            False,
        ),
    ],
)
def test_without_truncation_the_first_document_too_long_is_named(
    builder: PromptBuilder, limits: PromptLimits, message: str, param: int, setting: bool
) -> None:
    with pytest.raises(TooLong, match=message) as refused:
        builder.build("query", ["ok", words(500), words(600)], INSTRUCTION, limits, positions=[2, 7, 9])
    assert refused.value.param == f"documents[{param}]"
    assert refused.value.setting == ("max_pair_tokens" if setting else None)
    assert builder.build("query", ["ok"], INSTRUCTION, limits).truncated == (False,)


def test_without_truncation_a_long_query_is_named(builder: PromptBuilder) -> None:
    with pytest.raises(TooLong, match=r"the query has \d+ tokens; max_tokens_per_query allows 9") as refused:
        builder.build(words(99), ["d"], INSTRUCTION, PromptLimits(truncate=False, max_tokens_per_query=9))
    assert refused.value.param == "query"


def test_an_instruction_that_leaves_no_room_is_refused_and_never_cut(builder: PromptBuilder) -> None:
    with pytest.raises(TooLong, match=r"the instruction has \d+ tokens, too many for a limit of 400") as refused:
        builder.build("query", [words(900)], words(300), PromptLimits(LIMIT))
    assert (refused.value.param, refused.value.setting) == ("instruction", "max_pair_tokens")


def test_a_query_that_stands_twice_is_cut_so_that_both_fit(small_tokenizer_file: Path) -> None:
    parts = (Control("<think>"), Text("{query}\n"), Text("{document}"), Text("\n{query}"))
    builder = PromptBuilder(PromptTokenizer(small_tokenizer_file, Template("twice", parts, Head("linear"))))
    prompt = builder.build(words(300), [words(300, 1)], "", PromptLimits(200))
    assert 190 <= prompt.pair_tokens[0] <= 200
    assert prompt.truncated == (True,)


def test_a_body_of_one_string_works_too(small_tokenizer_file: Path) -> None:
    parts = (Text("Q: {query} D: {document} I: {instruction} A:"),)
    builder = PromptBuilder(PromptTokenizer(small_tokenizer_file, Template("one", parts, Head("linear"))))
    document = words(300)
    prompt = builder.build("query", [document, "short"], "why", PromptLimits(100, max_tokens_per_document=50))
    (long, short) = whole(prompt)
    assert short == alone(builder, "query", "short", "why")
    assert long[-3:] == short[-3:]
    assert len(long) <= 100


TEXT = st.text(alphabet="ab e\u0301é文😀\n", max_size=120)


@settings(max_examples=300, deadline=None)
@given(TEXT, TEXT, TEXT, st.integers(150, 300), st.sampled_from(["left", "right"]), st.none() | st.integers(1, 40))
def test_no_pair_is_longer_than_its_limit_whatever_the_texts(
    builder: PromptBuilder, instruction: str, query: str, document: str, limit: int, side: Side, own: int | None
) -> None:
    limits = PromptLimits(limit, side=side, max_tokens_per_document=own, max_tokens_per_query=own)
    untouched = alone(builder, query, document, instruction)
    try:
        prompt = builder.build(query, [document], instruction, limits)
    except TooLong:
        assert len(untouched) > limit
        return
    assert prompt.pair_tokens[0] <= limit
    assert prompt.truncated[0] or whole(prompt) == [untouched]
