from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tests.training.sources import DOCUMENTS, QUERIES, prepared_pairs
from tokenizers import Tokenizer
from training.calibrate import THRESHOLD_PAIRS
from training.data import NEAR_MISSES, evaluation_texts, normalised, read_json_lines
from training.export import export
from training.initialise import Shape, State
from training.near_miss_eval import judge, table
from training.near_misses import NearMisses, denied, other_number, replaced, shared_han, shared_names
from training.prepare import Prepared


@pytest.fixture(scope="module")
def prepared(tokenizer: Tokenizer) -> Prepared:
    return prepared_pairs(tokenizer, "capitals", "en", QUERIES, DOCUMENTS)


def test_a_word_gives_way_to_one_of_its_kind_on_both_sides(prepared: Prepared) -> None:
    makers = NearMisses(prepared, "en")
    made = [makers.make(0, 0, np.random.default_rng(seed)) for seed in range(20)]
    kinds = {found.kind for found in made if found is not None}
    assert kinds == {"alternative", "entity", "negation"}
    for found in made:
        assert found is not None
        assert found.document != DOCUMENTS[0]
        if found.query is None:
            assert re.search(r"\b(not|never|no longer|isn't)\b", found.document)
        else:
            assert found.query != QUERIES[0]
            assert "France" not in found.query + found.document or found.kind == "entity"


@pytest.mark.parametrize(
    ("text", "old", "new", "wanted"),
    [
        ("France and french fries in France", "france", "spain", "Spain and french fries in Spain"),
        ("Python 3.12 is not 3.1", "3.1", "3.4", "Python 3.12 is not 3.4"),
        ("巴黎是法国的首都", "法国", "德国", "巴黎是德国的首都"),
    ],
)
def test_a_term_is_replaced_as_a_whole(text: str, old: str, new: str, wanted: str) -> None:
    assert replaced(text, old, new) == wanted


@pytest.mark.parametrize(
    ("kind", "text", "wanted"),
    [
        ("en", "Dogs cannot see red.", {"Dogs can see red."}),
        (
            "en",
            "It has a battery.",
            {"It has not a battery.", "It has no battery.", "It hasn't a battery.", "It has never a battery."},
        ),
        ("zh", "孕妇不可以喝酒。", {"孕妇可以喝酒。"}),
        ("zh", "海豚是哺乳动物。", {"海豚不是哺乳动物。", "海豚并非哺乳动物。"}),
        ("code", "x = items if True else None", {"x = items if not True else None", "x = items if False else None"}),
    ],
)
def test_a_statement_is_denied_or_a_denial_taken_back(kind: str, text: str, wanted: set[str]) -> None:
    made = {denied(text, kind, np.random.default_rng(seed)) for seed in range(60)}
    assert made == wanted


@pytest.mark.parametrize("number", ["7", "42", "1998", "3.12", "10.0.4", "5000", "14.6"])
def test_another_number_has_the_same_form(number: str) -> None:
    random = np.random.default_rng(3)
    made = {other_number(number, random) for _ in range(50)}
    assert number not in made
    assert all(len(other) == len(number) and other.count(".") == number.count(".") for other in made)


def test_names_and_runs_that_both_sides_share() -> None:
    assert shared_names("where was marie curie born", "Marie Curie was born in Warsaw.") == ["Marie Curie"]
    assert shared_han("曹雪芹写了什么？", "红楼梦的作者是曹雪芹。") == ["曹雪芹"]


def test_the_hand_written_pairs_are_three_hundred_and_differ() -> None:
    rows = list(read_json_lines(NEAR_MISSES))
    assert Counter(row["language"] for row in rows) == {"en": 100, "zh": 100, "code": 100}
    assert {row["kind"] for row in rows} == {"entity", "date", "unit", "negation", "version"}
    assert len({normalised(row["query"]) for row in rows}) == 300
    assert all(normalised(row["right"]) != normalised(row["wrong"]) for row in rows)


def test_the_pairs_that_the_threshold_is_taken_from_are_others() -> None:
    judged, own = (
        {normalised(str(row[name])) for row in read_json_lines(path) for name in ("query", "right", "wrong")}
        for path in (NEAR_MISSES, THRESHOLD_PAIRS)
    )
    assert not judged & own


def test_the_hand_written_pairs_count_as_evaluation_texts(tmp_path: Path) -> None:
    queries, passages = evaluation_texts(tmp_path)
    row = next(read_json_lines(NEAR_MISSES))
    assert normalised(row["query"]) in queries
    assert {normalised(row["right"]), normalised(row["wrong"])} <= passages


def test_a_folder_is_judged_with_its_own_scale_and_bias(
    tmp_path: Path, shape: Shape, state: State, tokenizer_path: Path
) -> None:
    export(tmp_path / "model", shape, state, tokenizer_path, scale=0.0, bias=1.0)
    rows = tmp_path / "rows.jsonl"
    row = {"language": "en", "kind": "entity", "query": QUERIES[0], "right": DOCUMENTS[0], "wrong": DOCUMENTS[1]}
    rows.write_text(json.dumps(row) + "\n", encoding="utf-8")
    (found,) = judge(tmp_path / "model", rows)
    assert found.right == found.wrong == pytest.approx(1 / (1 + np.exp(-1)))
    export(tmp_path / "model", shape, state, tokenizer_path, scale=1.0, bias=0.0)
    (found,) = judge(tmp_path / "model", rows)
    assert found.in_order
    assert table([found]).endswith(
        "| all | 1 | 100.0% | " + f"{found.on_both_sides:.1%} | {found.right:.2f} | {found.wrong:.2f} |"
    )
