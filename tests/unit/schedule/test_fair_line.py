from __future__ import annotations

from collections import Counter

from rerankd.schedule.fair_line import FairLine


def serve(line: FairLine[str], turns: int, cost: float = 1.0) -> list[str]:
    served = []
    for _ in range(turns):
        first = line.first()
        assert first is not None
        served.append(first)
        line.turn_over(cost)
    return served


def test_members_take_turns() -> None:
    line: FairLine[str] = FairLine()
    for name in "abc":
        line.join(name, 1.0)
    assert serve(line, 6) == list("abcabc")


def test_a_newcomer_neither_overtakes_nor_waits_for_the_past() -> None:
    line: FairLine[str] = FairLine()
    line.join("old", 1.0)
    serve(line, 100)
    line.join("new", 1.0)
    assert Counter(serve(line, 10)) == {"old": 5, "new": 5}


def test_a_dear_turn_comes_later_but_it_comes() -> None:
    line: FairLine[str] = FairLine()
    line.join("dear", 10.0)
    served = []
    for turn in range(30):
        line.join(f"cheap {turn}", 1.0)
        served.append(line.first())
        line.leave()
    assert served[0] == "cheap 0"
    assert "dear" in served


def test_an_empty_line_has_no_first() -> None:
    line: FairLine[str] = FairLine()
    assert line.first() is None
    line.join("only", 1.0)
    line.leave()
    assert line.first() is None
    assert len(line) == 0
