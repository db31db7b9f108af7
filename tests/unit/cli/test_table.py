"""Tables: aligned, whole, and harmless to a terminal."""

from __future__ import annotations

import pytest

from rerankd.cli.table import table


def test_numbers_stand_right_and_words_left() -> None:
    lines = table(("set", "n", "text"), [("a", "1", "x"), ("long", "22", "y")], left=(0,)).splitlines()
    assert lines == ["set    n  text", "a      1  x", "long  22  y"]


def test_wide_letters_take_two_columns() -> None:
    lines = table(("a", "b"), [("巴黎", "1"), ("x", "2")]).splitlines()
    assert lines == ["   a  b", "巴黎  1", "   x  2"]


@pytest.mark.promise("U21")
def test_what_a_terminal_would_act_on_is_shown() -> None:
    assert table(("document",), [("\x1b[31mred",)]) == "document\n\\x1b[31mred"
