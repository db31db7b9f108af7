from __future__ import annotations

import numpy as np
import pytest
from tests.training.sources import prepared_pairs
from tokenizers import Tokenizer
from training.batches import Lengths, Sampler, labelled
from training.data import Source, held_out, normalised
from training.searches import (
    ASKS_FOR_CODE,
    DEFINED_IN_CHINESE,
    Definitions,
    function_words,
    keywords,
    search_source,
    searches,
)

FILMS = [
    "The Blue Gate is a 1961 drama film about two brothers, directed by Ida Moreno.",
    "Ida Moreno (1920 - 1988) was a Spanish film director and writer who also taught in Lisbon.",
    "It is raining in the north of the country, and nobody expected so much of it in May.",
]


def random() -> np.random.Generator:
    return np.random.default_rng(1)


@pytest.mark.parametrize(
    ("question", "wanted"),
    [
        ("What is the capital city of Mongolia?", {"capital", "city", "mongolia"}),
        ("Who was the first woman that climbed Mount Everest?", {"first", "woman", "climbed", "mount", "everest"}),
    ],
)
def test_keywords_are_what_a_question_is_about(question: str, wanted: set[str]) -> None:
    found = set((keywords(question, False, random()) or "").split())
    assert wanted <= found
    assert not found & {"what", "is", "the", "was", "that"}


def test_keywords_are_never_the_question_itself_and_never_one_word() -> None:
    assert keywords("mongolian horses", False, random()) is None
    assert keywords("What is it?", False, random()) is None
    assert keywords("蒙古马", True, random()) is None


def test_chinese_keywords_lie_between_what_a_question_is_asked_with() -> None:
    assert keywords("北京奥运会是什么时候举行的？", True, random()) == "北京奥运会 举行"


def test_a_search_is_made_of_the_first_sentence_of_a_definition() -> None:
    found = Definitions(Source("films", "en", documents=FILMS))
    assert sorted(found.found) == [0, 1]
    assert {found.what(1, np.random.default_rng(seed)) for seed in range(20)} == {
        "who was Ida Moreno",
        "Ida Moreno",
        "Ida Moreno biography",
    }
    assert "what is Blue Gate" in {found.what(0, np.random.default_rng(seed)) for seed in range(20)}
    assert DEFINED_IN_CHINESE.match("这是一种很常见的植物，生长在南方。") is None


def test_a_bridge_says_what_another_document_says_of_a_name() -> None:
    found = Definitions(Source("films", "en", documents=FILMS))
    assert found.bridged(0) == (
        "The Blue Gate is a 1961 drama film about two brothers, directed by "
        "the Spanish film director and writer who also taught in Lisbon.",
        1,
    )
    assert found.bridged(1) is None


def test_functions_are_asked_for_by_their_names() -> None:
    assert function_words("def read_hidden_file(path):\n    return path") == "read hidden file"
    assert function_words("def parseHTTPHeader(text):\n    return text") == "parse http header"
    assert function_words("def run(): pass") is None
    assert function_words("df.ix[:-1]") is None
    assert function_words("def broken(") is None
    source = Source("code_en", "en", ["sort a list in python with a key"], ["def sort_by_key(a): ..."], [[0]], [[]])
    made = [query for query, _ in searches(source, random())]
    assert made
    assert {form.format(words="sort by key") for form in ASKS_FOR_CODE} & set(made)
    assert all(query.count("python") <= 1 for query in made)


def test_nothing_is_made_of_a_question_that_is_held_out() -> None:
    questions = [f"Which of the {place} rivers is the longest one?" for place in range(120)]
    documents = [f"River {place} flows to the sea." for place in range(120)]
    source = Source("rivers", "en", questions, documents, [[place] for place in range(120)], [[] for _ in questions])
    made = search_source(source, 1, set())
    assert {place for [place] in made.positives} == {place for place in range(120) if not held_out(place)}
    assert made.documents == documents


def test_a_query_of_an_evaluation_set_is_never_made() -> None:
    source = Source("films", "en", documents=FILMS)
    everything = {normalised(query) for query in search_source(source, 1, set()).queries}
    assert everything
    assert search_source(source, 1, everything).queries == []


def test_searches_are_drawn_only_where_a_stage_asks_for_them(tokenizer: Tokenizer) -> None:
    queries, documents = [f"river {n}" for n in range(60)], [f"river {n} is long" for n in range(60)]
    sources = [prepared_pairs(tokenizer, name, "en", queries, documents) for name in ("rivers", "rivers.searches")]
    assert Sampler(sources, 1, Lengths()).shares.tolist() == [1.0, 0.0]
    assert Sampler(sources, 1, Lengths(), factors={".searches": 1.0}).shares.tolist() == [0.5, 0.5]
    assert Sampler(sources, 1, Lengths(), factors={".searches": 1.0, "rivers.searches": 3.0}).shares[1] == 0.75
    assert labelled(sources) == sources[:1]
