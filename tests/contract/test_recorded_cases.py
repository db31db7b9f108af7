"""Each dialect against its recorded cases: cases/<dialect>.json holds bodies as clients send them, the request
that is read from each (what is not listed is as in a plain request), and the whole answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.contract.answers import play

from rerankd.wire.registry import ROUTES

FOLDER = Path(__file__).parent / "cases"
CASES = [(file.stem, case) for file in sorted(FOLDER.glob("*.json")) for case in json.loads(file.read_text("utf-8"))]


@pytest.mark.parametrize(("dialect", "case"), CASES, ids=[f"{name}: {case['case']}" for name, case in CASES])
def test_a_recorded_body_gets_its_recorded_answer(dialect: str, case: dict[str, Any]) -> None:
    recorded = {name: value for name, value in case.items() if name not in ("case", "path", "request")}
    played = json.loads(json.dumps(play(case["path"], case["request"])))
    assert played == {"dialect": dialect, **recorded}


def test_every_dialect_of_the_route_table_has_a_file_of_cases() -> None:
    named = {dialect.name for route in ROUTES for dialect in route.dialects}
    assert named == {file.stem for file in FOLDER.glob("*.json")}


def test_every_dialect_has_an_answer_and_a_refusal_recorded() -> None:
    for file in FOLDER.glob("*.json"):
        statuses = {case["status"] for case in json.loads(file.read_text("utf-8"))}
        assert 200 in statuses, file.name
        assert statuses & {400, 422}, file.name
