from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.training.sources import DOCUMENTS, QUERIES, prepared_pairs
from tokenizers import Tokenizer
from training.contrasts import NEAR, NO_QUERY, OTHER, RIGHT, Contrasts, contrast_logits
from training.data import NEAR_MISSES, normalised, read_json_lines
from training.frames import (
    FRAMES,
    HELD_OUT_FRAMES,
    SHARES,
    SLOT,
    SWITCH,
    WITH_DIGITS,
    WORDS,
    Frame,
    Statements,
    names_of,
    switched,
)
from training.initialise import Shape, State
from training.losses import contrast_loss, on_both_sides, probability_loss
from training.model import PackedModel, pack
from training.near_misses import NearMisses
from training.prepare import Prepared

FREE = ("name", "identifier", "year", "number", "version")
NAMES = {
    "en": ["Marie Curie", "Lake Baikal", "Acme", "Orion", "Delta"],
    "zh": ["曹雪芹", "海河", "腾讯", "长城", "故宫"],
    "code": ["Redis", "Acme", "Orion", "Delta"],
    "identifier": ["read_all", "load_it", "get_value", "find_user"],
}


@pytest.fixture(scope="module")
def prepared(tokenizer: Tokenizer) -> Prepared:
    return prepared_pairs(tokenizer, "capitals", "en", QUERIES, DOCUMENTS)


def contrasts(prepared: Prepared, tokenizer: Tokenizer, evaluated: frozenset[str] = frozenset()) -> Contrasts:
    return Contrasts([prepared], [NearMisses(prepared, "en")], np.ones(1), tokenizer, evaluated, cut=40)


def texts(tokenizer: Tokenizer, found: list[NDArray[np.int32]]) -> list[str]:
    return [normalised(tokenizer.decode(ids.tolist())) for ids in found]


def all_frames(kind: str) -> list[Frame]:
    return FRAMES[kind] + HELD_OUT_FRAMES[kind]


@pytest.mark.parametrize("kind", FRAMES)
def test_every_place_of_a_frame_has_words_to_choose_from(kind: str) -> None:
    for frame in all_frames(kind):
        for text in (*frame.questions, *frame.statements):
            for slot in SLOT.findall(switched(text, False) + switched(text, True)):
                word = slot if slot in WITH_DIGITS else slot.rstrip("2")
                assert word in FREE or word.replace("_", " ") in WORDS[kind], f"{{{slot}}} in {text!r}"


seeds = pytest.mark.parametrize("seeds", [8, pytest.param(30, marks=pytest.mark.thorough)])


@seeds
@pytest.mark.parametrize("kind", FRAMES)
def test_every_frame_makes_sets_whose_sides_differ(kind: str, seeds: int) -> None:
    statements = Statements(NAMES)
    for frame in all_frames(kind):
        made = [statements.fill(kind, frame, np.random.default_rng(seed)) for seed in range(seeds)]
        found = [contrast for contrast in made if contrast is not None]
        assert found, frame
        for contrast in found:
            assert contrast.documents[0] != contrast.documents[1]
            assert len(set(contrast.queries)) == len(contrast.queries)
            assert not any(re.search(r"\{\w+\}", text) for text in (*contrast.queries, *contrast.documents))


def test_a_question_without_a_switch_is_answered_by_the_first_position() -> None:
    frame = next(frame for frame in FRAMES["en"] if frame.statements[0] == "{bread} [is|is not] safe for {dogs}.")
    assert not any(SWITCH.search(question) for question in frame.questions)
    for seed in range(40):
        found = Statements(NAMES).fill("en", frame, np.random.default_rng(seed))
        if found is not None:
            assert not re.search(r"\b(not|cannot|never)\b", found.documents[0])


def test_statements_are_of_all_languages_and_the_same_for_the_same_seed() -> None:
    statements = Statements(NAMES)
    made = [statements.make(np.random.default_rng(seed)) for seed in range(60)]
    assert made == [statements.make(np.random.default_rng(seed)) for seed in range(60)]
    chinese = Counter(bool(re.search(r"[\u4e00-\u9fff]", contrast.documents[0])) for contrast in made)
    assert chinese[True] > 10
    assert chinese[False] > 10
    assert sum(SHARES.values()) == pytest.approx(1)


@pytest.mark.parametrize("kind", FRAMES)
def test_scale_and_bias_are_fitted_with_frames_of_both_kinds_that_are_not_trained_on(kind: str) -> None:
    assert not set(FRAMES[kind]) & set(HELD_OUT_FRAMES[kind])
    assert {frame.is_switched for frame in HELD_OUT_FRAMES[kind]} == {True, False}


@seeds
def test_no_statement_and_no_question_of_the_fit_stands_among_the_near_misses(seeds: int) -> None:
    """Questions that stand there are left out when sets are drawn."""
    judged = {
        normalised(str(row[name])) for row in read_json_lines(NEAR_MISSES) for name in ("query", "right", "wrong")
    }
    statements = Statements(NAMES)
    for kind in FRAMES:
        for frame in all_frames(kind):
            for seed in range(seeds):
                found = statements.fill(kind, frame, np.random.default_rng(seed))
                if found is not None:
                    asked = found.queries if frame in HELD_OUT_FRAMES[kind] else ()
                    assert not judged & {normalised(text) for text in (*asked, *found.documents)}


def test_another_sentence_may_stand_beside_both_statements() -> None:
    frame = Frame(("who is the {mayor} of {name}",), ("{name2} is the {mayor} of {name}.",))
    made = [Statements(NAMES).fill("en", frame, np.random.default_rng(seed)) for seed in range(60)]
    sentences = Counter(text.count(".") for found in made if found is not None for text in found.documents)
    assert sentences[1] > sentences[2] > 0


def test_names_are_taken_from_queries_that_are_trained_on(prepared: Prepared) -> None:
    names = names_of([prepared], ["en"])
    assert {"Germany", "Italy"} <= set(names["en"])
    assert "France" not in names["en"], "the first query is held out"


def test_a_query_of_an_evaluation_set_is_not_made(prepared: Prepared, tokenizer: Tokenizer) -> None:
    sets = contrasts(prepared, tokenizer).draw(30, 0, np.random.default_rng(0))
    assert sets
    found = {text for queries, _ in sets for text in texts(tokenizer, queries)}
    clean = contrasts(prepared, tokenizer, frozenset(found)).draw(30, 0, np.random.default_rng(0))
    assert not found & {text for queries, _ in clean for text in texts(tokenizer, queries)}


def test_a_document_of_an_evaluation_set_is_not_made(prepared: Prepared, tokenizer: Tokenizer) -> None:
    def made(evaluated: frozenset[str]) -> set[str]:
        sets = contrasts(prepared, tokenizer, evaluated).draw(30, 0, np.random.default_rng(0))
        return {text for _, documents in sets for text in texts(tokenizer, documents)}

    own = {normalised(text) for text in prepared.document_texts}
    found = made(frozenset())
    banned = min(found - own)
    left = made(frozenset({banned}))
    assert banned not in left
    assert left < found
    assert left


def test_logits_of_a_set_are_those_of_its_pairs(
    prepared: Prepared, tokenizer: Tokenizer, shape: Shape, state: State
) -> None:
    model = PackedModel(shape, state)
    sets = contrasts(prepared, tokenizer).draw(12, 4, np.random.default_rng(1))
    assert {len(queries) for queries, _ in sets} == {1, 2}
    with torch.inference_mode():
        logits, labels = contrast_logits(model, sets)
        for place, (queries, documents) in enumerate(sets):
            asked = [*queries, sets[place - 1][0][0]]
            alone = model(pack(documents, asked, 64)).T
            assert torch.allclose(logits[place, :, : len(asked)], alone, atol=1e-4)
            wanted = (
                [[RIGHT, OTHER], [NEAR, OTHER]] if len(queries) == 1 else [[RIGHT, NEAR, OTHER], [NEAR, RIGHT, OTHER]]
            )
            assert labels[place].tolist() == [row + [NO_QUERY] * (3 - len(row)) for row in wanted]


def test_the_losses_are_lowest_where_right_is_probable_and_near_is_not() -> None:
    labels = torch.tensor(
        [[[RIGHT, NEAR, OTHER], [NEAR, RIGHT, OTHER]], [[RIGHT, OTHER, NO_QUERY], [NEAR, OTHER, NO_QUERY]]]
    )
    good = torch.where(labels == RIGHT, 4.0, -4.0)
    matched = torch.where(labels == OTHER, -4.0, 4.0)
    assert contrast_loss(good, labels, 1.0, 0.0) < contrast_loss(matched, labels, 1.0, 0.0)
    assert (on_both_sides(good, labels, 1.0, 0.0), on_both_sides(matched, labels, 1.0, 0.0)) == (1.0, 0.0)
    in_order = matched.clone()
    in_order[labels == RIGHT] = 6.0
    assert contrast_loss(in_order, labels, 1.0, 0.0) < contrast_loss(matched, labels, 1.0, 0.0)
    assert on_both_sides(in_order, labels, 1.0, 0.0) == 0.0
    relevant = torch.tensor([[True, False]])
    assert probability_loss(torch.tensor([[3.0, -3.0]]), relevant) < probability_loss(
        torch.tensor([[3.0, 3.0]]), relevant
    )
