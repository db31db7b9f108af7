"""Names with markup in them: shown as they are, in every form of the report, and tried before anything is scored."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from rerankd.evaluate.dataset import EvaluationSet
from rerankd.evaluate.errors import EvaluationError
from rerankd.evaluate.markdown import markdown
from rerankd.evaluate.page import page
from rerankd.evaluate.rehearsal import rehearse
from rerankd.evaluate.run import SystemResult, evaluate_set
from rerankd.evaluate.score_store import ScoreStore
from rerankd.evaluate.summary import summary

pytestmark = pytest.mark.promise("P9")

NAMES = [
    "[/docs]",
    r"$\frac$",
    "$x",
    "a|b",
    "`rm`",
    "<script>alert(1)</script>",
    "*x*",
    "[a](http://x)",
    "# x",
    "a\nb",
    "\\",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_report_shows_a_name_as_it_is(small_set: EvaluationSet, scripted: Any, name: str) -> None:
    data = replace(small_set, name=name)
    points = dict.fromkeys(data.documents.values(), 0.5)
    with ScoreStore(None, {}) as store:
        result = evaluate_set(data, scripted(points), store, instruction=None, top_k=10, advance=lambda pairs: None)
    system = SystemResult(name, {"model": name}, name, {name: result})
    report = summary([system, system], command=f"rerankd evaluate '{name}' ``` ````", top_k=10)
    text = markdown(report)
    fence = text.splitlines()[2]
    assert set(fence) == {"`"}
    assert len(fence) == 5
    for line in text.splitlines():
        if line.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line)
            assert "\n" not in line
            assert not re.search(r"(?<!\\)<script|(?<![\\])\[a\]\(", line), line
            assert len(cells) > 3
    html = page(report, {name: data.queries})
    assert "<script>" not in html


@pytest.mark.parametrize("name", NAMES)
def test_the_report_is_rehearsed_before_anything_is_scored(small_set: EvaluationSet, name: str) -> None:
    report = rehearse([replace(small_set, name=name)], [name, "other"], top_k=10)
    assert list(report["sets"]) == [name]


def test_what_a_report_cannot_show_is_an_error_before_the_run(
    small_set: EvaluationSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> str:
        raise ValueError("no picture of this")

    monkeypatch.setattr("rerankd.evaluate.plots.levels", fail)
    with pytest.raises(EvaluationError, match="could not be written: ValueError no picture of this"):
        rehearse([small_set], ["a"], top_k=10)
