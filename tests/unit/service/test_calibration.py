"""Probabilities in the place of raw scores: never another order, never a file for another model."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from tests.served import served

from rerankd.errors import ConfigurationError
from rerankd.service.calibration import Calibration, open_calibration
from rerankd.service.ranking import document_score
from rerankd.settings import ModelSettings

DOCUMENTS = [f"document {number}" for number in range(8)]
STEPS = Calibration("isotonic", points=((-4.0, 0.01), (-1.0, 0.2), (2.0, 0.2), (3.0, 0.9)))


def test_a_temperature_of_1_is_the_sigmoid() -> None:
    for logit in (-800.0, -3.0, 0.0, 2.5, 800.0):
        own = document_score(0, logit, 1.0, 0.0).score
        assert Calibration("temperature").probability(logit) == pytest.approx(own)


@pytest.mark.parametrize("calibration", [Calibration("temperature", 0.3), Calibration("platt", 2.0, -3.0), STEPS])
def test_a_higher_raw_score_is_never_less_probable(calibration: Calibration) -> None:
    source = random.Random(1)
    logits = sorted([source.gauss(0, 4) for _ in range(2_000)] + [-4.0, -1.0, 2.0, 3.0, -1e308, 1e308])
    found = [calibration.probability(logit) for logit in logits]
    assert found == sorted(found)
    assert 0 <= found[0] <= found[-1] <= 1


def test_isotonic_goes_straight_between_its_points() -> None:
    assert [STEPS.probability(x) for x in (-9, -4, -1, 0.5, 2.5, 3, 9)] == pytest.approx(
        [0.01, 0.01, 0.2, 0.2, 0.55, 0.9, 0.9]
    )


def written(folder: Path, **row: Any) -> str:
    file = folder / "calibration.json"
    file.write_text(json.dumps(row))
    return str(file)


FINE = {"format": "rerankd-calibration", "method": "platt", "fingerprint": "f", "template": "t"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"format": "other"}, "no calibration"),
        ({**FINE, "method": "magic"}, "method"),
        ({**FINE, "scale": -1}, "scale"),
        ({**FINE, "scale": "x"}, "cannot be used"),
        ({**FINE, "bias": 1e999}, "bias"),
        ({**FINE, "method": "isotonic"}, "points"),
        ({**FINE, "method": "isotonic", "points": [[0, 0.5], [1, 0.4]]}, "points"),
        ({**FINE, "method": "isotonic", "points": [[0, 0.5], [0, 0.6]]}, "points"),
        ({**FINE, "method": "isotonic", "points": [[0, 1.5]]}, "points"),
        ({**FINE, "method": "isotonic", "points": 5}, "cannot be used"),
        ({**FINE, "fingerprint": "other"}, "another model"),
        ({**FINE, "template": "other"}, "another template"),
    ],
)
def test_a_file_that_would_mislead_is_refused(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        open_calibration(written(tmp_path, **row), "f", "t", "name")
    assert open_calibration("", "f", "t", "name") is None


@pytest.mark.parametrize("calibration", [Calibration("platt", 0.5, -2.0), STEPS])
async def test_an_answer_is_calibrated_and_says_so(tmp_path: Path, calibration: Calibration) -> None:
    async with served() as server:
        loaded = server.model
        row = calibration.as_json() | {"fingerprint": loaded.fingerprint, "template": loaded.template.revision}
    file = written(tmp_path, **row)
    models = {"sure": ModelSettings(calibration=file)}
    async with served(models=models, cache="memory") as server:
        raw = (await server.rerank("q", DOCUMENTS, raw_scores=True)).json()
        sure = (await server.rerank("q", DOCUMENTS, model="sure")).json()
        assert sure["meta"]["cached_documents"] == 8  # the cache knows raw scores
        assert sure["scores"] == pytest.approx([calibration.probability(logit) for logit in raw["scores"]])
        assert [place["index"] for place in sure["results"]] == [place["index"] for place in raw["results"]]
        assert (await server.rerank("q", DOCUMENTS, model="sure", raw_scores=True)).json()["scores"] == raw["scores"]
        assert sure["meta"]["calibration"] == calibration.method
        assert "calibration" not in raw["meta"]
        cards = (await server.client.get("/v1/models")).json()["data"]
        assert [card["calibration"] for card in cards] == [None, calibration.method]
        cut = (await server.rerank("q", DOCUMENTS, model="sure", score_threshold=0.15)).json()
        assert {row["index"] for row in cut["results"]} == {
            index for index, score in enumerate(sure["scores"]) if score >= 0.15
        }
        # A fused score is no probability of the model's.
        fused = await server.rerank("q", DOCUMENTS, model="sure", first_stage_scores=[0] * 8, fusion="zscore")
        assert "calibration" not in fused.json()["meta"]
