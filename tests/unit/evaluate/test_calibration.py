"""Calibrations and thresholds on simulated labels whose truth is known."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner

from rerankd.cli.main import cli
from rerankd.errors import RerankdError
from rerankd.evaluate.calibration import (
    LabelledPairs,
    calibrate,
    choose,
    fit,
    labelled_pairs,
    measured,
    probabilities_of,
    reliability,
    suggest,
)
from rerankd.evaluate.reliability import reliability_plot
from rerankd.service.calibration import METHODS, Calibration, Method

OWN = Calibration("platt")


def pairs_of(queries: int = 200, scale: float = 0.5, bias: float = -2.0, seed: int = 1) -> LabelledPairs:
    """Labels that come true with the probability sigmoid(scale * logit + bias); 20 pairs a query."""
    source = np.random.default_rng(seed)
    logits = source.normal(0, 3, queries * 20)
    truth = 1 / (1 + np.exp(-(scale * logits + bias)))
    labels = (source.random(len(logits)) < truth).astype(float)
    return LabelledPairs(logits, labels, np.repeat(np.arange(queries), 20))


def own(logits: np.ndarray) -> np.ndarray:
    return probabilities_of(OWN, logits)


@pytest.mark.parametrize("method", METHODS)
def test_a_fit_lowers_the_error_on_queries_that_it_has_not_seen(method: Method) -> None:
    pytest.importorskip("sklearn", reason="the extra eval has it")
    # A temperature cannot know that relevance is rare.
    bias = 0.0 if method == "temperature" else -2.0
    found = calibrate(pairs_of(bias=bias), method, "f", "t", own)
    assert found.after.ece < 0.3 * found.before.ece
    fresh = pairs_of(bias=bias, seed=2)
    there = reliability(probabilities_of(found.calibration, fresh.logits), fresh.labels)
    assert there.ece == pytest.approx(found.after.ece, abs=0.03)
    assert (found.calibration.fingerprint, found.calibration.template) == ("f", "t")


def test_the_truth_is_found() -> None:
    pytest.importorskip("sklearn", reason="the extra eval has it")
    found = fit(pairs_of(1_000), "platt")
    assert (found.scale, found.bias) == pytest.approx((0.5, -2.0), abs=0.06)


def test_the_best_method_is_chosen_on_held_back_queries() -> None:
    pytest.importorskip("sklearn", reason="the extra eval has it")
    found = calibrate(pairs_of(), None, "f", "t", own)
    assert set(found.held_back) == set(METHODS)
    assert found.calibration.method == "platt"
    ElementTree.fromstring(reliability_plot(found))


def test_scores_that_go_the_wrong_way_are_refused() -> None:
    pytest.importorskip("sklearn", reason="the extra eval has it")
    with pytest.raises(RerankdError, match="lower scores"):
        fit(pairs_of(scale=-0.5), "platt")


def test_the_expected_calibration_error_by_hand() -> None:
    found = reliability(np.array([0.1, 0.1, 0.9, 0.9]), np.array([0.0, 1.0, 1.0, 1.0]))
    assert found.ece == pytest.approx(0.5 * 0.4 + 0.5 * 0.1)
    assert found.bins == [(pytest.approx(0.1), 0.5, 2), (pytest.approx(0.9), 1.0, 2)]


def test_a_threshold_for_a_precision_holds_it_on_held_back_halves_within_its_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rerankd.evaluate.calibration.HALVES", 100)
    source, inside, runs = np.random.default_rng(9), 0, 12
    for run in range(runs):
        pairs = pairs_of(300, scale=1.5, seed=100 + run)
        half = source.permutation(300)[:150]
        chosen = np.isin(pairs.queries, half)
        found = suggest(pairs.of(chosen), precision=0.9)
        low, high = found.precision_interval
        assert found.precision >= 0.9
        inside += low <= measured(pairs.of(~chosen), found.logit)[0] <= high
    assert inside >= 0.75 * runs


def test_a_threshold_by_recall_is_the_highest_that_has_it() -> None:
    pairs = LabelledPairs(np.array([4.0, 3.0, 2.0, 1.0]), np.array([1.0, 0.0, 1.0, 1.0]), np.arange(4))
    assert choose(pairs, None, 0.6) == 2.0
    assert choose(pairs, None, 1.0) == 1.0
    assert measured(pairs, 2.0) == (pytest.approx(2 / 3), pytest.approx(2 / 3))


def test_equal_scores_pass_together() -> None:
    pairs = LabelledPairs(np.array([1.0] * 20), np.array([1.0] * 15 + [0.0] * 5), np.arange(20))
    assert choose(pairs, 0.9, None) is None
    assert choose(pairs, 0.75, None) == 1.0


def test_too_little_to_learn_from() -> None:
    with pytest.raises(RerankdError, match="too few"):
        labelled_pairs([])


def folder_of(base: Path) -> Path:
    """Twelve queries with one document each that has their words, and one that has not."""
    (base / "qrels").mkdir(parents=True)
    words = ["apple", "bridge", "candle", "desert", "engine", "forest"]
    words += ["garden", "harbour", "island", "jungle", "kettle", "lantern"]
    documents = [{"_id": f"d{n}", "text": f"All about the {word} and its history."} for n, word in enumerate(words)]
    queries = [{"_id": f"q{n}", "text": f"what is a {word}"} for n, word in enumerate(words)]
    (base / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in documents))
    (base / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    rows = "".join(f"q{n}\td{n}\t1\n" for n in range(12))
    (base / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + rows)
    lists = "".join(
        f"q{n}\td{other}\t{12 - turn}\n" for n in range(12) for turn, other in enumerate((n, (n + 1) % 12))
    )
    (base / "candidates.tsv").write_text("query-id\tcorpus-id\tscore\n" + lists)
    return base


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn", reason="the extra eval has it")
    monkeypatch.chdir(tmp_path)
    data, out, plot = folder_of(tmp_path / "words"), tmp_path / "c.json", tmp_path / "c.svg"
    shared = [str(data), "--model", "tiny", "--fresh"]
    done = CliRunner().invoke(cli, ["calibrate", *shared, "--out", str(out), "--plot", str(plot)])
    assert done.exit_code == 0, done.output
    assert "12 queries, 24 pairs, 50.0% relevant" in done.output
    assert json.loads(out.read_text())["fitted_on"]["queries"] == 12
    ElementTree.fromstring(plot.read_text())
    done = CliRunner().invoke(cli, ["suggest-threshold", *shared, "--recall", "0.9", "--calibration", str(out)])
    assert done.exit_code == 0, done.output
    assert "score_threshold" in done.output
    for wrong in ([], ["--recall", "0.9", "--precision", "0.9"]):
        assert CliRunner().invoke(cli, ["suggest-threshold", *shared, *wrong]).exit_code == 2
