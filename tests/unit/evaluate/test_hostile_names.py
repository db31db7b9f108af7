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


def test_a_report_shows_names_as_they_are(
    small_set: EvaluationSet, scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = dict.fromkeys(small_set.documents.values(), 0.5)
    with ScoreStore(None, {}) as store:
        result = evaluate_set(
            small_set, scripted(points), store, instruction=None, top_k=10, advance=lambda pairs: None
        )
    texts = dict.fromkeys(NAMES, small_set.queries)
    results = {name: replace(result, data=replace(small_set, name=name)) for name in NAMES}
    whole = [SystemResult("a", {"model": "a"}, "a", results)]
    check(whole, texts)
    # The pictures have the names of the sets alone.
    monkeypatch.setattr("rerankd.evaluate.plots._svg", lambda figure: "<svg></svg>")
    check([SystemResult(name, {"model": name}, name, {"a|b": results["a|b"]}) for name in NAMES], texts)


def check(systems: list[SystemResult], texts: dict[str, Any]) -> None:
    report = summary(systems, command=f"rerankd evaluate {NAMES} ``` ````", top_k=10)
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
    assert "<script>" not in page(report, texts)


def test_the_report_is_rehearsed_before_anything_is_scored(
    small_set: EvaluationSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The same pictures as above, twice.
    monkeypatch.setattr("rerankd.evaluate.plots._svg", lambda figure: "<svg></svg>")
    report = rehearse([replace(small_set, name=name) for name in NAMES], [*NAMES[:1], "other"], top_k=10)
    assert list(report["sets"]) == NAMES


def test_what_a_report_cannot_show_is_an_error_before_the_run(
    small_set: EvaluationSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> str:
        raise ValueError("no picture of this")

    monkeypatch.setattr("rerankd.evaluate.plots.levels", fail)
    with pytest.raises(EvaluationError, match="could not be written: ValueError no picture of this"):
        rehearse([small_set], ["a"], top_k=10)
