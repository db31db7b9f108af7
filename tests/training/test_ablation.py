from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.training.sources import TEXTS, prepared_pairs
from tokenizers import Tokenizer
from training.ablation import ALL, MIXTURE, NONE, SHORT, START, ablate, rows_of, variants, without
from training.prepare import Prepared
from training.train import Speed

from training import ablation


@pytest.fixture(scope="module")
def prepared(tokenizer: Tokenizer) -> Prepared:
    return prepared_pairs(tokenizer, "toy", "en", [f"what is {text}" for text in TEXTS], TEXTS)


def test_a_teacher_that_is_left_out_leaves_the_others_their_weights() -> None:
    left = without(MIXTURE, "minilm")
    assert left["zh"] == MIXTURE["zh"]
    assert left["en"] == {"e5.cosine": 20.0, "e5.maxsim": 30.0, "bm25": 0.3}
    assert set(without(MIXTURE, "maxsim")["en"]) == {"minilm.cosine", "e5.cosine", "bm25"}


def test_runs_differ_in_their_teachers_alone() -> None:
    found = variants(SHORT)
    assert len({json.dumps([run.teachers, run.distil]) for run in found.values()}) == len(found)
    assert all(replace(run, teachers=SHORT.teachers, distil=SHORT.distil) == SHORT for run in found.values())
    assert [name for name, run in found.items() if not run.distil] == [NONE]


def test_what_was_judged_before_is_not_trained_again(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablation, "DEPTH", 5)
    recipe = replace(SHORT, steps=2, distinct=2, queries=3, documents=5, teachers={"en": {"bm25": 0.3}})
    monkeypatch.setattr(ablation, "variants", lambda run: {ALL: run, NONE: replace(run, distil=0.0)})
    out = tmp_path / "ablation.json"
    ablate(work, out, recipe, Speed(), seeds=(1, 2))
    saved = json.loads(out.read_text())
    assert list(saved["runs"]) == [START, ALL, NONE]
    assert all(list(by_seed) == ["1", "2"] for by_seed in saved["runs"].values())
    saved["runs"][ALL]["2"]["en"] = [0.25] * len(saved["runs"][ALL]["2"]["en"])
    del saved["runs"][NONE]["1"]
    out.write_text(json.dumps(saved))
    ablate(work, out, recipe, Speed(), seeds=(1, 2))
    again = json.loads(out.read_text())["runs"]
    assert again[ALL] == saved["runs"][ALL]
    assert "1" in again[NONE]


def test_the_table_has_the_difference_from_all_teachers_by_seed() -> None:
    runs = {
        ALL: {"1": {"en": [0.5, 0.7], "zh": [0.4]}, "2": {"en": [0.6, 0.6], "zh": [0.4]}},
        NONE: {"1": {"en": [0.4, 0.6], "zh": [0.4]}, "2": {"en": [0.3, 0.3], "zh": [0.4]}},
    }
    rows = list(rows_of(runs))
    assert rows[2] == "| all | 0.600 | 0.400 | 0.500 |"
    assert rows[3].startswith("| none | -0.200 [-0.200, -0.200] (-0.100, -0.300) | +0.000 ")
    assert rows[3].endswith("| -0.100 [-0.100, -0.100] (-0.050, -0.150) |")
