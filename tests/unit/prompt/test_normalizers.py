from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers

import rerankd
from rerankd.prompt.normalizers import ascii_normalizer
from rerankd.prompt.template import Head, Template, Text
from rerankd.prompt.tokenizer import PromptTokenizer

TINY = Path(rerankd.__file__).parent / "models" / "tiny" / "tokenizer.json"


def sequence(*kinds: str) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": [{"type": kind} for kind in kinds]}


@pytest.mark.parametrize(
    ("definition", "expected"),
    [
        (None, "A b"),
        ({"type": "NFC"}, "A b"),
        (sequence("NFKC", "Lowercase"), "a b"),
        (sequence("Lowercase", "NFD", "NFKD"), "a b"),
        (sequence("NFC", "Strip"), None),
        ({"type": "Replace", "pattern": {"String": " "}, "content": "_"}, None),
        ({"type": "BertNormalizer", "lowercase": True}, None),
        ({"type": "Sequence", "normalizers": [sequence("NFC"), {"type": "Prepend", "prepend": "_"}]}, None),
        ({}, None),
    ],
)
def test_what_a_normalizer_makes_of_ascii_text(definition: Any, expected: str | None) -> None:
    normalise = ascii_normalizer(definition)
    assert (normalise and normalise("A b")) == expected


@pytest.fixture(scope="module", params=["as shipped", "NFC", "Strip", "with a run of spaces"])
def both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, small_tokenizer_file: Path
) -> tuple[Tokenizer, PromptTokenizer]:
    """A tokenizer, the embedded model's or a small one of another normalizer, as the library reads it and as ours."""
    is_small = hasattr(normalizers, request.param)
    tokenizer = Tokenizer.from_file(str(small_tokenizer_file if is_small else TINY))
    if request.param == "with a run of spaces":
        tokenizer.add_tokens(["    "])
    elif is_small:
        tokenizer.normalizer = getattr(normalizers, request.param)()
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(file))
    return tokenizer, PromptTokenizer(file, Template("t", (Text("{query}{document}"),), Head("linear")))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.characters(max_codepoint=0x17F)), min_size=1, max_size=4))
@example(["", " A\tB\r\n", "x    Y", "a\x00B\x7f_C"])
@example(["ASCII", "\u0130 and \u212a"])
def test_ascii_texts_have_the_ids_that_normalising_gives_them(
    both: tuple[Tokenizer, PromptTokenizer], texts: list[str]
) -> None:
    library, ours = both
    expected = [encoding.ids for encoding in library.encode_batch(texts, add_special_tokens=False)]
    assert [ids.tolist() for ids in ours.encode(texts)] == expected
