from __future__ import annotations

import json
import random
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.figures import Measured
from tests.tokenizer_fixtures import prompts
from tokenizers import Tokenizer, models, normalizers

from rerankd.engine.base import HeadSpec
from rerankd.errors import ConfigurationError, InvalidRequest, TooLarge
from rerankd.prompt.template import Control, Head, Template, Text
from rerankd.prompt.templates import TEMPLATES
from rerankd.prompt.tokenizer import SLICE_CHARACTERS, PromptTokenizer, slices

LINEAR = Head("linear")


def ids(tokenizer: PromptTokenizer, text: str) -> list[int]:
    return next(iter(tokenizer.encode([text]))).tolist()


def test_control_parts_are_encoded_with_added_tokens_and_texts_without(small_tokenizer_file: Path) -> None:
    template = Template("t", (Control("<think>"), Text("{query}"), Text("{document}")), LINEAR)
    whole = Tokenizer.from_file(str(small_tokenizer_file))
    think = whole.token_to_id("<think>")
    (prompt,) = prompts(PromptTokenizer(small_tokenizer_file, template), "", "<think>", ["</think>"])
    assert prompt[0] == think
    assert not {think, whole.token_to_id("</think>")} & set(prompt[1:].tolist())
    assert whole.decode(prompt.tolist(), skip_special_tokens=False) == "<think><think></think>"


def test_a_field_may_stand_twice(small_tokenizer_file: Path) -> None:
    template = Template("t", (Text("{query}"), Text("{document}"), Text("{query}")), LINEAR)
    tokenizer = PromptTokenizer(small_tokenizer_file, template)
    (prompt,) = prompts(tokenizer, "", "query", ["document"])
    assert prompt.tolist() == ids(tokenizer, "query") + ids(tokenizer, "document") + ids(tokenizer, "query")


def test_the_words_of_the_head_are_looked_up_by_name(small_tokenizer_file: Path, qwen3: PromptTokenizer) -> None:
    assert qwen3.head_spec() == HeadSpec("words", 9693, 2152)
    parts = (Text("{query}{document}"),)
    assert PromptTokenizer(small_tokenizer_file, Template("t", parts, LINEAR)).head_spec() == HeadSpec("linear")
    one_word = PromptTokenizer(small_tokenizer_file, Template("t", parts, Head("words", "yes"))).head_spec()
    assert one_word.positive is not None
    assert one_word.negative is None
    with pytest.raises(ConfigurationError, match="'certainly' is not one token"):
        PromptTokenizer(small_tokenizer_file, Template("t", parts, Head("words", "certainly", "no")))


def test_a_vocabulary_that_hands_out_its_control_tokens_as_words_is_refused(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "<sep>": 1, "yes": 2}, unk_token="<unk>"))
    tokenizer.add_special_tokens(["<unk>", "<sep>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ConfigurationError, match="plain text becomes the control token '<sep>'"):
        PromptTokenizer(tmp_path / "tokenizer.json", Template("t", (Text("{query}{document}"),), LINEAR))


def test_a_tokenizer_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        PromptTokenizer(tmp_path / "tokenizer.json", TEMPLATES["qwen3-reranker"])


def test_truncation_and_padding_of_the_file_are_switched_off(small_tokenizer_file: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(small_tokenizer_file))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=64)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert json.loads((tmp_path / "tokenizer.json").read_text())["truncation"]
    strict = PromptTokenizer(tmp_path / "tokenizer.json", TEMPLATES["qwen3-reranker"])
    free = PromptTokenizer(small_tokenizer_file, TEMPLATES["qwen3-reranker"])
    assert prompts(strict, "i", "q", ["d"])[0].tolist() == prompts(free, "i", "q", ["d"])[0].tolist()


def test_half_a_surrogate_pair_is_an_invalid_request(small: PromptTokenizer) -> None:
    with pytest.raises(InvalidRequest, match="half a surrogate pair"):
        prompts(small, "i", "q", ["fine", "\ud800"])
    with pytest.raises(InvalidRequest):
        prompts(small, "i", "\udfff", ["fine"])


def test_a_text_that_explodes_when_it_is_normalised_is_refused(small_tokenizer_file: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(small_tokenizer_file))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    nfkc = PromptTokenizer(tmp_path / "tokenizer.json", TEMPLATES["qwen3-reranker"])
    with pytest.raises(TooLarge, match="a text of 100010 characters grows more than 3-fold"):
        prompts(nfkc, "i", "q", ["\ufdfa" * 100_009])
    with pytest.raises(InvalidRequest, match="half a surrogate pair"):
        prompts(nfkc, "i", "q", ["é\ud800"])
    assert len(prompts(nfkc, "i", "q", ["㎢ \ufdfa", "é" * 5_000])) == 2


@pytest.mark.parametrize("text", ["plain words and more of them", "日本語の文章です。", "a😀b🤷‍♂️c", "e\u0301 \n x"])
@pytest.mark.parametrize("tokens", [0, 1, 2, 3, 5, 8, 1000])
def test_a_cut_keeps_whole_characters_and_no_more_tokens_than_asked(
    small: PromptTokenizer, text: str, tokens: int
) -> None:
    right, left = small.cut(text, tokens), small.cut(text, tokens, "left")
    assert text.startswith(right)
    assert text.endswith(left)
    if tokens >= len(ids(small, text)):
        assert right == left == text
    elif tokens == 0:
        assert right == left == ""
    else:
        assert len(right) < len(text) > len(left)


@pytest.mark.promise("A10")
def test_what_is_kept_of_instructions_is_bounded_in_bytes(small: PromptTokenizer) -> None:
    """Each of them ten times as long as a person writes one: 40 are 3 MB of ids and text, which stayed for good."""
    short = small.encode_kept("an instruction that comes with each request")
    assert small.encode_kept("an instruction that comes with each request") is short
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(40):
            assert len(small.encode_kept(f"{number} " + "文字 w " * 2_000)) > 10_000
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 500_000


def test_slices_are_bounded_by_characters_and_lose_nothing() -> None:
    sizes = [10, SLICE_CHARACTERS, 1, SLICE_CHARACTERS * 2, *([SLICE_CHARACTERS // 4] * 9), 0]
    texts = ["x" * size for size in sizes]
    parts = list(slices(texts))
    assert [text for part in parts for text in part] == texts
    assert all(sum(map(len, part)) <= SLICE_CHARACTERS or len(part) == 1 for part in parts)
    assert len(parts) == 7
    assert list(slices([])) == []


def random_text(rng: random.Random) -> str:
    pieces = ["word", " ", "\n", "文字", "😀", "1234", "<|im_end|>", "<think>", "é", "e\u0301", "def f(x):", "\t"]
    return "".join(rng.choice(pieces) for _ in range(rng.randint(1, 12)))


@pytest.mark.promise("H-07")
def test_eight_threads_get_the_ids_that_one_gets(qwen3: PromptTokenizer, measured: Measured) -> None:
    """H-07: one tokenizer, shared by all threads."""
    rng = random.Random(7)
    texts = [random_text(rng) for _ in range(2_000)]
    alone = [array.tolist() for array in qwen3.encode(texts)]
    starts = range(0, len(texts), 20)
    orders = [rng.sample(starts, len(starts)) for _ in range(8)]

    def wrong_in(order: list[int]) -> int:
        runs = {start: qwen3.encode(texts[start : start + 20]) for start in order}
        return sum(
            array.tolist() != alone[start + index] for start, run in runs.items() for index, array in enumerate(run)
        )

    with ThreadPoolExecutor(8) as pool:
        wrong = sum(pool.map(wrong_in, orders))
    measured("H-07", "8 threads, one tokenizer, 2,000 texts each", "ids of one thread", f"{wrong} of 16,000 differ")
    assert wrong == 0
