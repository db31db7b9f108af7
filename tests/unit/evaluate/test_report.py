from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from rerankd.evaluate.dataset import EvaluationSet
from rerankd.evaluate.markdown import markdown
from rerankd.evaluate.page import page
from rerankd.evaluate.run import SystemResult, evaluate_set
from rerankd.evaluate.score_store import ScoreStore
from rerankd.evaluate.summary import summary
from rerankd.settings import Settings

POINTS = {"red apples": 3.0, "green pears": -1.0, "blue plums": 2.0, "ripe figs": 0.5}


@pytest.fixture
def sets(small_set: EvaluationSet) -> list[EvaluationSet]:
    perfect = {"q1": [("d1", 2.0), ("d4", 1.0)], "q2": [("d3", 1.0)]}
    return [small_set, replace(small_set, name="easy", candidates=perfect)]


@pytest.fixture
def system(sets: list[EvaluationSet], scripted: Any) -> Any:
    def make(label: str, points: dict[str, float]) -> SystemResult:
        def one(data: EvaluationSet) -> Any:
            with ScoreStore(None, {}) as kept:
                return evaluate_set(
                    data, scripted(points), kept, instruction=None, top_k=100, advance=lambda pairs: None
                )

        return SystemResult(
            label, {"model": label, "dtype": "float32"}, None, {data.name: one(data) for data in sets}
        )

    return make


def test_the_json_has_the_promised_shape(system: Any) -> None:
    report = summary([system("a", POINTS)], command="rerankd evaluate x", top_k=100)
    found = json.loads(json.dumps(report))["sets"]["small"]
    assert found["candidates"]["ndcg@10"] == pytest.approx(0.6503, abs=5e-5)
    assert found["reranked"] == dict.fromkeys(("ndcg@10", "mrr@10", "map", "recall@10", "recall@100"), 1.0)
    assert found["fused"].keys() == found["reranked"].keys()
    assert found["difference"]["reranked"]["ndcg@10"].keys() == {"mean", "low", "high", "p", "wins", "losses", "ties"}
    assert found["difference"]["reranked"]["ndcg@10"]["wins"] == 2
    assert found["by_query"]["q2"]["reranked"] == 1.0
    assert (found["pairs"], found["tokens"]) == (5, 50)


def test_sets_without_room_have_no_say_in_the_second_mean(system: Any) -> None:
    mean = summary([system("a", POINTS)], command="", top_k=100)["mean"]
    assert mean["all"]["sets"] == ["small", "easy"]
    assert mean["below_0.95"]["sets"] == ["small"]
    assert mean["all"]["candidates"]["ndcg@10"] == pytest.approx((0.6503 + 1) / 2, abs=5e-5)
    assert mean["below_0.95"]["difference"]["reranked"]["ndcg@10"]["mean"] == pytest.approx(0.3497, abs=5e-5)


def test_several_systems_make_one_table_with_the_best_marked(system: Any) -> None:
    backwards = {text: -points for text, points in POINTS.items()}
    report = summary([system("good", POINTS), system("bad", backwards)], command="", top_k=100)
    table = markdown(report)
    assert "| ndcg@10 (fused) | candidates | good | bad |" in table
    assert re.search(r"\| small \| 0\.6503 \| \*\*1\.0000 \(\d\.\d{4}\)\*\* \| 0\.", table)
    assert len(report["systems"]) == 2
    assert report["sets"] == report["systems"][0]["sets"]


def test_the_report_says_how_the_fused_list_was_made(system: Any) -> None:
    report = summary([system("a", POINTS)], command="", top_k=100)
    assert report["fusion_weight"] == Settings().fusion_weight
    assert "Fused: 0.3 x the model's z-score + 0.7 x the candidates'." in markdown(report | {"fusion_weight": 0.3})


def test_the_markdown_shows_command_interval_and_means(system: Any) -> None:
    text = markdown(summary([system("a", POINTS)], command="rerankd evaluate x --model a", top_k=100))
    assert "rerankd evaluate x --model a" in text
    assert re.search(r"\| small \| 2 \| 0\.6503 \| 1\.0000 \| \+0\.3497 \[\+0\.\d{4}, \+0\.\d{4}\]", text)
    assert "| mean of 2 |" in text
    assert "| mean of 1 (candidates below 0.95) |" in text


def test_the_page_needs_no_other_file_and_no_other_host(system: Any, sets: list[EvaluationSet]) -> None:
    report = summary([system("a", POINTS)], command="rerankd evaluate '<b>'", top_k=100)
    whole = page(report, {data.name: data.queries for data in sets})
    assert "<svg" in whole
    assert "&lt;b&gt;" in whole
    assert not re.findall(r"<(?:script|link|img|iframe|image)\b", whole)
    # The only addresses are names of XML vocabularies, which nothing fetches.
    fetched = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?!#)[^\s"'>)]+""", whole)
    assert fetched == []


def test_texts_on_the_page_are_escaped(system: Any, sets: list[EvaluationSet]) -> None:
    report = summary([system("<i>model</i>", POINTS)], command="", top_k=100)
    whole = page(report, {data.name: {"q1": "<script>alert(1)</script>", "q2": "**bold**"} for data in sets})
    assert "<script>" not in whole
    assert "<i>model" not in whole
