from __future__ import annotations

import numpy as np
import pytest
from tests.training.sources import prepared_pairs
from tokenizers import Tokenizer
from training.batches import Lengths, Sampler
from training.cloze import cloze_source, sentences
from training.data import Source, normalised
from training.prepare import Prepared

ENGLISH = [
    f"River number {place} rises in the northern hills of the country. It flows past {place} villages on its way to "
    f"the sea. The fish of river {place} are caught in the early spring. No bridge of stone crosses it below "
    f"the lake, and ferry {place} is the only way over. Its water is used by the mills of the valley."
    + " Small boats carry wood and salt from the hills to the towns below."
    + " They bring back iron and cloth from the harbour."
    for place in range(12)
]
CHINESE = "巴黎是法国的首都和最大的城市。" + "这座城市位于塞纳河畔,人口超过两百万。" * 8


@pytest.fixture(scope="module")
def prepared(tokenizer: Tokenizer) -> Prepared:
    return prepared_pairs(tokenizer, "rivers", "en", [f"what is river {place}" for place in range(12)], ENGLISH)


def contains(text: list[int], part: list[int]) -> bool:
    return any(text[start : start + len(part)] == part for start in range(len(text) - len(part) + 1))


def test_usual_documents_are_cut_and_long_ones_later(prepared: Prepared) -> None:
    usual = Sampler([prepared], 1, Lengths(usual=5, long=60, long_share=0.0)).draw(0)
    assert {len(text) for text in usual.texts} == {5}
    late = Sampler([prepared], 1, Lengths(usual=50, long=60, long_share=1.0, surrounded_share=0.0)).draw(0)
    assert all(50 <= len(text) <= 60 for text in late.texts)


def test_surrounded_documents_are_whole_inside_other_text(prepared: Prepared) -> None:
    whole = max(len(prepared.documents[place]) for place in range(12))
    lengths = Lengths(usual=whole + 100, long=whole + 200, long_share=1.0, surrounded_share=1.0)
    draw = Sampler([prepared], 1, lengths).draw(0)
    for place, text in zip(draw.documents, draw.texts, strict=True):
        assert contains(text.tolist(), prepared.documents[int(place)].tolist())
        assert len(text) <= lengths.long
    assert max(len(text) for text in draw.texts) > whole


def test_a_cloze_query_is_a_sentence_that_its_document_lacks() -> None:
    made = cloze_source(Source("rivers", "en", documents=ENGLISH), 1, set())
    assert len(made.queries) == len(ENGLISH)
    for query, document in zip(made.queries, made.documents, strict=True):
        assert query not in document
        assert sorted([query, *sentences(document)]) in [sorted(sentences(text)) for text in ENGLISH]


def test_a_sentence_of_an_evaluation_set_is_never_a_query() -> None:
    evaluated = {normalised(part) for text in ENGLISH for part in sentences(text) if not part.startswith("Its water")}
    made = cloze_source(Source("rivers", "en", documents=ENGLISH), 1, evaluated)
    assert set(made.queries) == {"Its water is used by the mills of the valley."}


def test_chinese_sentences_end_without_a_space() -> None:
    made = cloze_source(Source("城市", "zh", documents=[CHINESE]), 1, set())
    assert len(sentences(CHINESE)) == 9
    assert np.all([query.endswith("。") for query in made.queries])
    assert len(made.queries) == 1
