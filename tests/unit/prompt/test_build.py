from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.figures import Measured
from tests.tokenizer_fixtures import prompts
from tokenizers import Tokenizer

from rerankd.errors import InvalidDocument, InvalidRequest, TooLong
from rerankd.prompt.build import PromptBuilder, PromptLimits
from rerankd.prompt.template import Control, Head, Template, Text
from rerankd.prompt.templates import TEMPLATES
from rerankd.prompt.tokenizer import PromptTokenizer, Side
from rerankd.types import IdArray, PairPrompt

INSTRUCTION = "relevance"
LIMIT = 400


@pytest.fixture(scope="module")
def builder(small: PromptTokenizer) -> PromptBuilder:
    return PromptBuilder(small)


@dataclass
class Built:
    """The pairs of a request, all of which can be tokenised."""

    pairs: list[PairPrompt]

    @property
    def truncated(self) -> tuple[bool, ...]:
        return tuple(pair.truncated for pair in self.pairs)

    @property
    def pair_tokens(self) -> tuple[int, ...]:
        return tuple(pair.tokens for pair in self.pairs)


def build(
    builder: PromptBuilder,
    query: str,
    documents: Sequence[str],
    instruction: str,
    limits: PromptLimits,
    positions: Sequence[int] | None = None,
) -> Built:
    found = builder.begin(query, instruction, limits).pairs(documents, positions or range(len(documents)))
    assert all(isinstance(pair, PairPrompt) for pair in found)
    return Built([pair for pair in found if isinstance(pair, PairPrompt)])


def whole(built: Built) -> list[list[int]]:
    return [pair.ids.tolist() for pair in built.pairs]


def words(count: int, seed: int = 0) -> str:
    rng = random.Random(seed)
    return " ".join(rng.choice(["query", "Paris", "document", "zebra", "文字", "x9"]) for _ in range(count))


def alone(builder: PromptBuilder, query: str, document: str, instruction: str = INSTRUCTION) -> list[int]:
    ids: list[int] = prompts(builder.tokenizer, instruction, query, [document])[0].tolist()
    return ids


def test_what_stands_before_the_document_is_one_prefix_of_all_pairs(builder: PromptBuilder) -> None:
    built = build(builder, "query", ["Paris", "Parisian", "London"], INSTRUCTION, PromptLimits())
    assert whole(built) == [alone(builder, "query", document) for document in ("Paris", "Parisian", "London")]
    assert len({id(pair.prefix) for pair in built.pairs}) == 1
    before, after = alone(builder, "query", "Paris"), alone(builder, "query", "London")
    common = next(n for n, (one, other) in enumerate(zip(before, after, strict=False)) if one != other)
    assert common - 2 <= len(built.pairs[0].prefix) <= common
    assert built.truncated == (False, False, False)


def test_no_tail_is_empty_even_where_the_prompt_ends_with_an_empty_document(small_tokenizer_file: Path) -> None:
    parts = (Text("{query}"), Text("{document}"))
    ending = PromptBuilder(PromptTokenizer(small_tokenizer_file, Template("ending", parts, Head("linear"))))
    empty, other = build(ending, "query", ["", "Paris"], "", PromptLimits()).pairs
    assert (len(empty.tail), len(empty.prefix)) == (1, len(other.prefix) - 1)
    assert empty.ids.tolist() == other.prefix.tolist()
    (nothing,) = ending.pairs("\u0301"[:0], [""], "", PromptLimits())
    assert isinstance(nothing, InvalidDocument)


@pytest.mark.promise("U12")
def test_a_document_that_is_no_text_fails_alone(builder: PromptBuilder) -> None:
    found = builder.pairs("query", ["fine", "bad \udbff tail", "fine too"], INSTRUCTION, PromptLimits())
    assert [type(pair) for pair in found] == [PairPrompt, InvalidDocument, PairPrompt]
    with pytest.raises(InvalidRequest):
        builder.pairs("bad \udbff query", ["fine"], INSTRUCTION, PromptLimits())


@pytest.mark.promise("S16")
@pytest.mark.parametrize("document", [0, 3, 40, 90, 900])
def test_a_query_loses_only_what_has_to_go(builder: PromptBuilder, document: int) -> None:
    """Once the document is at its floor; the query is cut in steps of 1/64 of the budget."""
    for count in (250, 300, 400):
        (pair,) = build(builder, words(count), [words(document)], INSTRUCTION, PromptLimits(LIMIT)).pairs
        if pair.truncated:
            assert LIMIT - 12 <= pair.tokens <= LIMIT


@pytest.mark.promise("S19")
def test_no_pair_is_over_the_limit_where_no_seam_parts_query_and_document(small_tokenizer_file: Path) -> None:
    parts = (Control("<think>"), Text("{document}{query}"), Control("</think>"))
    builder = PromptBuilder(PromptTokenizer(small_tokenizer_file, Template("seamless", parts, Head("linear"))))
    rng = random.Random(5)
    alphabet = "ab is the capital of France文字😀é"
    for _ in range(1500):
        query, document = ("".join(rng.choices(alphabet, k=rng.randint(0, 40))) for _ in range(2))
        limit = rng.randint(8, 40)
        for pair in builder.pairs(query, [document], "", PromptLimits(limit)):
            assert isinstance(pair, InvalidDocument) or pair.tokens <= limit


@pytest.mark.promise("A6")
def test_what_does_not_depend_on_a_document_is_encoded_once(
    small: PromptTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long query and many documents, all of which are cut: characters tokenised stay linear in the request's."""
    characters = 0
    guarded, cut = PromptTokenizer.encode, PromptTokenizer.cut

    def count(self: PromptTokenizer, texts: Sequence[str]) -> Iterator[IdArray]:
        nonlocal characters
        characters += sum(map(len, texts))
        return guarded(self, texts)

    def count_cut(self: PromptTokenizer, text: str, tokens: int, side: Side = "right") -> str:
        nonlocal characters
        characters += len(text)
        return cut(self, text, tokens, side)

    monkeypatch.setattr(PromptTokenizer, "encode", count)
    monkeypatch.setattr(PromptTokenizer, "cut", count_cut)
    query, documents = words(2000), [f"a{number} bc" for number in range(500)]
    for limits in (PromptLimits(8192, max_tokens_per_document=1), PromptLimits(1000), PromptLimits(200)):
        characters = 0
        build(PromptBuilder(small), query, documents, INSTRUCTION, limits)
        assert characters < 60 * len(query) + 10 * sum(map(len, documents))


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_long_document_is_cut_at_the_side_asked_for(builder: PromptBuilder, side: Side) -> None:
    document = words(500)
    prompt = build(builder, "query", [document, "short"], INSTRUCTION, PromptLimits(LIMIT, side=side))
    assert LIMIT - 4 <= prompt.pair_tokens[0] <= LIMIT
    assert prompt.truncated == (True, False)
    kept = [document[:end] if side == "right" else document[-end:] for end in range(200, 800)]
    assert whole(prompt)[0] in [alone(builder, "query", text) for text in kept]


def tokens_of(builder: PromptBuilder, text: str) -> int:
    return len(next(iter(builder.tokenizer.encode([text]))))


FRAME, ANSWER = TEMPLATES["qwen3-reranker"].parts[0].text, TEMPLATES["qwen3-reranker"].parts[-1].text


@pytest.mark.promise("H-06")
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
    prompt = build(builder, query, [document], instruction, PromptLimits(LIMIT, side=side))
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
        spare = budget - tokens_of(builder, kept_query) - tokens_of(builder, kept_document)
        assert spare - tokens_of(builder, kept_instruction) <= budget // 64 + 4


@pytest.mark.promise("G-12")
def test_a_pair_that_fits_to_the_token_is_not_touched_and_one_token_more_is_cut(builder: PromptBuilder) -> None:
    """G-12: one token over."""
    document = words(40)
    tokens = len(alone(builder, "query", document))
    for limit, truncated in ((tokens, False), (tokens - 1, True)):
        prompt = build(builder, "query", [document], INSTRUCTION, PromptLimits(limit))
        assert prompt.truncated == (truncated,)
        assert prompt.pair_tokens[0] <= limit


def test_what_becomes_of_a_pair_does_not_depend_on_the_other_documents(builder: PromptBuilder) -> None:
    query, documents = words(300), [words(count, count) for count in (1, 30, 900, 60)]
    together = build(builder, query, documents, INSTRUCTION, PromptLimits(LIMIT))
    apart = [build(builder, query, [document], INSTRUCTION, PromptLimits(LIMIT)) for document in documents]
    assert whole(together) == [whole(prompt)[0] for prompt in apart]
    assert together.truncated == tuple(prompt.truncated[0] for prompt in apart)


def test_a_client_s_own_limits_come_first(builder: PromptBuilder) -> None:
    limits = PromptLimits(LIMIT, max_tokens_per_document=20, max_tokens_per_query=10)
    prompt = build(builder, words(50), [words(100), "short"], INSTRUCTION, limits)
    empty = len(alone(builder, "", ""))
    assert empty + 20 < prompt.pair_tokens[0] <= empty + 30
    assert prompt.truncated == (True, True)
    kept = build(builder, "query", [words(100)], INSTRUCTION, PromptLimits(max_tokens_per_document=20)).pair_tokens[0]
    assert len(alone(builder, "query", "")) + 15 <= kept <= len(alone(builder, "query", "")) + 20


def test_a_document_within_its_own_limit_is_not_cut_because_of_a_long_instruction(builder: PromptBuilder) -> None:
    limits = PromptLimits(LIMIT, max_tokens_per_document=5)
    assert build(builder, "query", [words(20)], words(40), limits).truncated == (True,)


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
        build(builder, "query", ["ok", words(500), words(600)], INSTRUCTION, limits, positions=[2, 7, 9])
    assert refused.value.param == f"documents[{param}]"
    assert refused.value.setting == ("max_pair_tokens" if setting else None)
    assert build(builder, "query", ["ok"], INSTRUCTION, limits).truncated == (False,)


def test_without_truncation_a_long_query_is_named(builder: PromptBuilder) -> None:
    with pytest.raises(TooLong, match=r"the query has \d+ tokens; max_tokens_per_query allows 9") as refused:
        build(builder, words(99), ["d"], INSTRUCTION, PromptLimits(truncate=False, max_tokens_per_query=9))
    assert refused.value.param == "query"


def test_an_instruction_that_leaves_no_room_is_refused_and_never_cut(builder: PromptBuilder) -> None:
    with pytest.raises(TooLong, match=r"the instruction has \d+ tokens, too many for a limit of 400") as refused:
        build(builder, "query", [words(900)], words(300), PromptLimits(LIMIT))
    assert (refused.value.param, refused.value.setting) == ("instruction", "max_pair_tokens")


def test_a_query_that_stands_twice_is_cut_so_that_both_fit(small_tokenizer_file: Path) -> None:
    parts = (Control("<think>"), Text("{query}\n"), Text("{document}"), Text("\n{query}"))
    builder = PromptBuilder(PromptTokenizer(small_tokenizer_file, Template("twice", parts, Head("linear"))))
    prompt = build(builder, words(300), [words(300, 1)], "", PromptLimits(200))
    assert 190 <= prompt.pair_tokens[0] <= 200
    assert prompt.truncated == (True,)


def test_a_body_of_one_string_works_too(small_tokenizer_file: Path) -> None:
    parts = (Text("Q: {query} D: {document} I: {instruction} A:"),)
    builder = PromptBuilder(PromptTokenizer(small_tokenizer_file, Template("one", parts, Head("linear"))))
    document = words(300)
    prompt = build(builder, "query", [document, "short"], "why", PromptLimits(100, max_tokens_per_document=50))
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
        prompt = build(builder, query, [document], instruction, limits)
    except TooLong:
        assert len(untouched) > limit
        return
    assert prompt.pair_tokens[0] <= limit
    assert prompt.truncated[0] or whole(prompt) == [untouched]
