"""Every promise of the reliability suite, A-01 to M-04, has a test that is marked with it, or a reason here.

A mark is ``@pytest.mark.promise("A-01")`` on a test, or ``pytestmark`` of its file; rows of the fault table
(``S10``) are marked in the same way. ``pytest --promises`` ends with a table of what became of each.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
COUNTS = {"A": 9, "B": 8, "C": 10, "D": 8, "E": 7, "F": 10, "G": 15, "H": 8, "S": 6, "J": 5, "K": 3, "L": 5, "M": 4}
PROMISES = [f"{section}-{number:02d}" for section, count in COUNTS.items() for number in range(1, count + 1)]

NOT_TESTED: dict[str, str] = {}


def marks(file: Path) -> Iterator[tuple[str, str]]:
    """Promise and test, for every mark of the file."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    nodes = [*tree.body, *(node for top in tree.body if isinstance(top, ast.ClassDef) for node in top.body)]
    tests = [
        node
        for node in nodes
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    ]
    for node in nodes:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark":
            yield from ((promise, test.name) for promise in promises_of(node.value) for test in tests)
    for test in tests:
        yield from ((promise, test.name) for mark in test.decorator_list for promise in promises_of(mark))


def promises_of(expression: ast.expr) -> Iterator[str]:
    for node in ast.walk(expression):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.promise":
            yield from (str(argument.value) for argument in node.args if isinstance(argument, ast.Constant))


@pytest.fixture(scope="module")
def marked() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for file in sorted(TESTS.rglob("test_*.py")):
        for promise, test in marks(file):
            found.setdefault(promise, []).append(f"{file.relative_to(TESTS)}::{test}")
    return found


@pytest.mark.parametrize("promise", PROMISES)
def test_a_promise_has_a_test_or_a_reason(promise: str, marked: dict[str, list[str]]) -> None:
    assert bool(marked.get(promise)) != (promise in NOT_TESTED), f"{promise} is the mark of {marked.get(promise)}"


def test_a_mark_of_the_reliability_suite_is_one_of_its_promises(marked: dict[str, list[str]]) -> None:
    assert {promise for promise in marked if "-" in promise} <= set(PROMISES)


def test_a_promise_in_a_comment_is_no_test(tmp_path: Path) -> None:
    file = tmp_path / "test_words.py"
    file.write_text(
        '"""A-01"""\n# A-02\n@pytest.mark.promise("A-03")\ndef test_it() -> None: ...\ndef helper(): "A-04"\n'
    )
    assert list(marks(file)) == [("A-03", "test_it")]
