"""Long documents become passages: at good places, within their tokens, and without a gap."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerankd.model_hub import resolve_checkpoint
from rerankd.prompt.build import PromptBuilder, PromptLimits
from rerankd.prompt.passages import ChunkRule, Span, Split, split
from rerankd.prompt.sentences import bounds
from rerankd.prompt.template_choice import load_template
from rerankd.prompt.tokenizer import PromptTokenizer
from rerankd.types import PairPrompt

FOLDER = resolve_checkpoint("tiny")
TOKENIZER = PromptTokenizer(FOLDER / "tokenizer.json", load_template(FOLDER))


def tokens(text: str) -> int:
    return len(next(TOKENIZER.encode([text])))


def sentences(text: str) -> list[str]:
    ends = [0, *bounds(text).sentences.tolist(), len(text)]
    return [part for start, end in itertools.pairwise(ends) if (part := text[start:end].strip())]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("It works. Does it? Yes!", ["It works.", "Does it?", "Yes!"]),
        ("About 3.5 percent, e.g. this one.", ["About 3.5 percent, e.g. this one."]),
        ('He said: "Go." She went.', ['He said: "Go."', "She went."]),
        ("看这里！foo?bar=1 。下一句", ["看这里！", "foo?bar=1 。", "下一句"]),
        ("你好。世界！(真的？)是", ["你好。", "世界！", "(真的？)", "是"]),
        ("a line\nanother line", ["a line", "another line"]),
        ("क्या यह ठीक है। हाँ।", ["क्या यह ठीक है।", "हाँ।"]),
        ("", []),
    ],
)
def test_sentences_end_where_a_reader_would_say(text: str, parts: list[str]) -> None:
    assert sentences(text) == parts


def test_a_paragraph_ends_at_a_blank_line() -> None:
    assert bounds("one\n\ntwo\n \nthree\nfour").paragraphs.tolist() == [3, 8]


def test_a_document_within_the_limit_is_its_only_passage() -> None:
    assert split(TOKENIZER, "a short text", ChunkRule()) == Split((Span(0, 12),))


def test_passages_end_with_sentences_and_begin_a_sentence_back() -> None:
    text = "The ninth sentence says the same as the others do. " * 60
    found = split(TOKENIZER, text, ChunkRule(tokens=64, overlap=16))
    parts = [text[start:end] for start, end in found.spans]
    assert len(parts) > 10
    assert all(part.startswith("The ninth") and part.endswith("do.") for part in parts)
    assert all(after.start < before.end for before, after in itertools.pairwise(found.spans))


def test_a_paragraph_is_a_better_place_than_a_sentence() -> None:
    text = ("One sentence here. " * 9 + "\n\n") * 8
    assert all(
        text[end : end + 2].strip() == "" and text[start:].startswith("One")
        for start, end in split(TOKENIZER, text, ChunkRule(tokens=64, overlap=0)).spans
    )


@pytest.mark.parametrize(
    "text", ["7" * 4000, "😀" * 2000, "word " * 2000, "今天天气很好" * 800, ". " * 2000, "\n" * 4000]
)
def test_texts_without_good_places_are_split_all_the_same(text: str) -> None:
    found = split(TOKENIZER, text, ChunkRule(tokens=64, overlap=8))
    assert not found.is_cut
    if text.strip():
        assert max(tokens(text[start:end]) for start, end in found.spans) <= 64 + 4
        assert found.spans[-1].end == len(text.rstrip())


@given(
    st.text(st.sampled_from("ab .!?。\n😀字é"), min_size=200, max_size=600),
    st.integers(16, 64),
    st.integers(0, 100),
)
@settings(deadline=None, max_examples=60)
def test_nothing_but_blanks_falls_between_two_passages(text: str, size: int, overlap: int) -> None:
    spans = split(TOKENIZER, text, ChunkRule(tokens=size, overlap=overlap)).spans
    starts = [start for start, _ in spans]
    assert starts == sorted(set(starts))
    gaps = [text[: spans[0].start], text[spans[-1].end :]]
    gaps += [text[before.end : after.start] for before, after in itertools.pairwise(spans)]
    assert not "".join(gaps).strip()
    assert sum(end - start for start, end in spans) <= 2 * len(text)


def test_the_cap_leaves_the_rest_out_and_says_so() -> None:
    text = "A sentence of some words. " * 200
    found = split(TOKENIZER, text, ChunkRule(tokens=32, overlap=0, most=3))
    assert (len(found.spans), found.is_cut) == (3, True)


def test_a_documents_own_limit_comes_before_its_passages() -> None:
    text = "A sentence of some words. " * 200
    found = split(TOKENIZER, text, ChunkRule(tokens=32, overlap=0), most_tokens=100)
    assert found.is_cut
    assert tokens(text[: found.spans[-1].end]) <= 100


def test_passages_fit_beside_a_long_query() -> None:
    prompts = PromptBuilder(TOKENIZER).begin("why is it so " * 100, "", PromptLimits(max_pair_tokens=128))
    document = "A sentence of some words. " * 200
    (found,) = prompts.split([document], ChunkRule())
    pairs = prompts.pairs([document[start:end] for start, end in found.spans], range(len(found.spans)))
    assert all(isinstance(pair, PairPrompt) and pair.tokens <= 128 for pair in pairs)


def test_a_text_that_cannot_be_tokenised_fails_with_its_pair_and_not_before() -> None:
    prompts = PromptBuilder(TOKENIZER).begin("query", "", PromptLimits())
    assert prompts.split(["\ud800" * 9_000, "fine"], ChunkRule())[0] == Split((Span(0, 9_000),))
