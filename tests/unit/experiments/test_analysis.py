"""What stored answers say, and how it is shown."""

from __future__ import annotations

import json
import random
import re
import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner
from tests.unit.experiments.answers import answer

from rerankd.cli.main import cli
from rerankd.experiments.analysis import Liked, Measure, analyse, value_of
from rerankd.experiments.report import as_json, comparison_rows, notes, plot, verdict
from rerankd.experiments.store import Agreement, Answer, Feedback, FeedbackStore

DAY = 86_400.0
EVEN = {"control": 1.0, "candidate": 1.0}


def clicks(rates: dict[str, float], units: int, days: int = 5) -> list[tuple[Answer, Liked]]:
    """Units that ask twice each, over some days, and click at the rates of their arms."""
    source = random.Random(7)
    rows: list[tuple[Answer, Liked]] = []
    arms = list(rates)
    for number in range(units):
        arm = arms[number % len(arms)]
        for turn in range(2):
            at = 1_000 * DAY + (number / units * days) * DAY + turn
            liked = {"clicked": frozenset({1})} if source.random() < rates[arm] else {}
            rows.append((answer(number, arm=arm, at=at, unit=f"u{number}"), liked))
    return sorted(rows, key=lambda row: row[0].at)


def test_a_better_arm_is_found_day_by_day() -> None:
    report = analyse("x", clicks({"control": 0.2, "candidate": 0.35}, 4_000), [], EVEN)
    (comparison,) = report.comparisons
    assert [arm.units for arm in report.arms] == [2_000, 2_000]
    assert comparison.effect.is_settled
    assert comparison.effect.low < 0.15 < comparison.effect.high
    assert len(comparison.days) == 5
    widths = [effect.high - effect.low for _, effect in comparison.days]
    assert widths == sorted(widths, reverse=True)
    assert report.sample_ratio_p == 1
    assert "better" in verdict(report, comparison)
    assert comparison_rows(report)[1][0][-1] == "candidate"


def test_a_unit_counts_once_however_often_it_asks() -> None:
    keen = [(answer(n, arm="control", unit="keen", at=n), {"clicked": frozenset({1})}) for n in range(500)]
    report = analyse("x", keen, [], EVEN)
    assert (report.arms[0].units, report.arms[0].answers, report.arms[0].mean) == (1, 500, 1.0)
    assert "nothing can be said" in verdict(report, report.comparisons[0])


def test_a_wrong_split_is_said_first() -> None:
    rows = [row for row in clicks({"control": 0.2, "candidate": 0.5}, 4_000) if row[0].arm == "control" or
            int(row[0].unit[1:]) % 4 == 1]  # fmt: skip
    report = analyse("x", rows, [], EVEN)
    assert report.sample_ratio_p is not None
    assert report.sample_ratio_p < 1e-6
    assert "split is not" in verdict(report, report.comparisons[0])
    assert "MISMATCH" in notes(report)[0]


def test_pinned_and_crossed_units_are_left_out() -> None:
    rows = clicks({"control": 0.2, "candidate": 0.2}, 400)
    rows += [(answer(9_000, arm="candidate", pinned=True), {}), (answer(9_001, arm="candidate", unit="u0"), {})]
    report = analyse("x", rows, [], EVEN)
    assert (report.pinned, report.crossed) == (1, 1)
    assert sum(arm.units for arm in report.arms) == 399


@pytest.mark.parametrize(("measure", "value"), [("clicked", 1.0), ("used", 0.0), ("reciprocal_rank", 1 / 3)])
def test_the_measures(measure: Measure, value: float) -> None:
    assert value_of(answer(ranked=[2, 0, 1]), {"clicked": frozenset({1})}, measure) == value
    assert value_of(answer(ranked=[2, 0, 1]), {}, measure) == 0


def test_interleaved_answers_are_won_or_lost() -> None:
    rows = []
    for number in range(300):
        liked = {"clicked": frozenset({0 if number % 3 else 2})}
        row = answer(number, arm="control+candidate", ranked=[2, 0, 1], teams=["control", "candidate", "control"])
        rows.append((row, liked))
    report = analyse("x", rows, [], EVEN)
    effect = report.comparisons[0].effect
    assert report.is_interleaved
    assert effect.mean == pytest.approx(1 / 3)
    assert effect.is_settled
    assert report.sample_ratio_p is None


def test_shadows_are_averaged() -> None:
    rows = [Agreement("x", "new", "control", tau, tau > 0) for tau in (1.0, 0.5, -0.5)]
    (shadow,) = analyse("x", [], rows, {"control": 1}).shadows
    assert (shadow.answers, shadow.mean_tau, shadow.same_first) == (3, pytest.approx(1 / 3), pytest.approx(2 / 3))


def test_an_experiment_without_answers_has_a_report() -> None:
    report = analyse("x", [], [], EVEN)
    assert "nothing can be said" in verdict(report, report.comparisons[0])
    json.dumps(as_json(report), allow_nan=False)
    ElementTree.fromstring(plot(report, report.comparisons[0]))


def test_the_plot_shows_the_band_and_0() -> None:
    report = analyse("<x & y>", clicks({"control": 0.2, "candidate": 0.35}, 3_000), [], EVEN)
    drawn = ElementTree.fromstring(plot(report, report.comparisons[0]))
    space = "{http://www.w3.org/2000/svg}"
    (band,) = drawn.findall(f"{space}polygon")
    assert len(str(band.get("points")).split()) == 10
    assert "0" in [text.text for text in drawn.findall(f"{space}text")]
    # One day alone is a bar, and no line of no length.
    single = analyse("x", clicks({"control": 0.2, "candidate": 0.35}, 900, days=1), [], EVEN)
    assert 'stroke-width="6"' in plot(single, single.comparisons[0])


async def test_the_command_reports_what_the_store_has(tmp_path: Path) -> None:
    source, now = np.random.default_rng(1), time.time()
    store = FeedbackStore(str(tmp_path / "feedback.sqlite"))
    for number in range(600):
        arm = ("control", "candidate")[number % 2]
        store.add(answer(number, arm=arm, at=now - number))
        if source.random() < (0.2, 0.6)[number % 2]:
            await store.give(Feedback(f"a{number}", "", clicked=[0]))
    await store.close()
    (tmp_path / "rerankd.toml").write_text("[experiments.x.arms.control]\n[experiments.x.arms.candidate]\n")
    arguments = ["experiments", "report", "--config", str(tmp_path / "rerankd.toml")]
    arguments += ["--feedback-store", str(tmp_path / "feedback.sqlite")]
    done = CliRunner().invoke(
        cli, [*arguments, "x", "--json", str(tmp_path / "x.json"), "--plots", str(tmp_path / "plots")]
    )
    assert done.exit_code == 0, done.output
    assert "candidate against control: better" in done.output
    assert "sample ratio: as it should be" in done.output
    assert json.loads((tmp_path / "x.json").read_text())[0]["arms"][0]["units"] == 300
    assert re.search("<svg", (tmp_path / "plots" / "x-candidate.svg").read_text())
    missing = CliRunner().invoke(cli, [*arguments, "y"])
    assert missing.exit_code == 2
    assert "there is x" in missing.output
