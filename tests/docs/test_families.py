"""The table of model families says what the templates and the native engine's configuration say."""

from __future__ import annotations

import re

import pytest
from tests.docs.pages import DOCS

from rerankd.engine.native.config import ARCHITECTURES
from rerankd.prompt.templates import RELEASED, Released

ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (DOCS / "how-to" / "choose-a-model.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and line.count("|") == 6 and line.rstrip(" |").endswith((" native", " onnx"))
]
"""Checkpoint, architecture, score, instruction, engine."""


@pytest.mark.parametrize("released", RELEASED, ids=lambda row: row.name)
def test_a_released_decoder_is_in_the_table(released: Released) -> None:
    (row,) = [row for row in ROWS if released.name in row[0].lower()]
    _, architecture, score, instruction, engine = row
    template = released.template
    assert architecture == f"`{released.family}ForCausalLM`"
    assert set(re.findall(r"`([^`]+)`", score)) == {template.head.positive, template.head.negative} - {None, ""}
    assert ("as it is" in score) == (template.activation == "identity")
    assert ("over 5" in score) == (template.scale == 0.2)
    assert ("over 5" in score) or template.scale == 1.0
    assert instruction == ("followed" if template.has_instruction else "ignored")
    assert engine == "native"


def test_every_family_of_the_native_engine_is_in_the_table() -> None:
    cells = " ".join(row[1] for row in ROWS if row[4] == "native")
    assert [family for family, _ in ARCHITECTURES.values() if f"`{family}For" not in cells] == []
