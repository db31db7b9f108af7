from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from rerankd.errors import ConfigurationError
from rerankd.prompt.template import Control, Head, Template, Text, read_template
from rerankd.prompt.template_choice import load_template
from rerankd.prompt.templates import TEMPLATES

QWEN3 = TEMPLATES["qwen3-reranker"]
ROW: dict[str, Any] = {
    "name": "mine",
    "parts": [{"control": "<bos>"}, {"text": "{query}"}, {"control": "<sep>"}, {"text": "{document}"}],
    "head": {"kind": "linear"},
    "scale": 2.0,
}


def write(folder: Path, name: str, rows: object) -> Path:
    file = folder / name
    file.write_text(json.dumps(rows), encoding="utf-8")
    return file


def test_braces_and_field_names_in_a_value_mean_nothing() -> None:
    filled = Text("Q: {query} D: {document} {other}").fill({"query": "{document} {0} {", "document": "{query}"})
    assert filled == "Q: {document} {0} { D: {query} {other}"


def test_texts_around_a_value_go_with_it_and_a_value_can_be_stripped() -> None:
    text = Text("{Task: |instruction|. }Q: {query:strip} D:{ |document}")
    assert text.fields == {"instruction", "query", "document"}
    assert text.fill({"instruction": "", "query": " a b\n", "document": ""}) == "Q: a b D:"
    assert text.fill({"instruction": "{query}", "query": "", "document": " d"}) == "Task: {query}. Q:  D:  d"


def test_a_template_says_which_text_its_prompts_begin_with() -> None:
    assert not QWEN3.reads_document_first
    assert TEMPLATES["ctxl-rerank-v2"].reads_document_first


def test_the_template_of_a_checkpoint_is_its_own_where_it_has_one(tmp_path: Path) -> None:
    write(tmp_path, "config.json", {"architectures": ["Qwen3ForCausalLM"]})
    assert load_template(tmp_path) == QWEN3
    write(tmp_path, "template.json", ROW)
    assert load_template(tmp_path) == Template(
        name="mine",
        parts=(Control("<bos>"), Text("{query}"), Control("<sep>"), Text("{document}")),
        head=Head("linear"),
        scale=2.0,
    )
    assert load_template(tmp_path, "qwen3-reranker-chat").name == "qwen3-reranker-chat"


def test_a_classifier_made_of_the_same_model_keeps_the_prompt_and_uses_its_own_head(tmp_path: Path) -> None:
    write(tmp_path, "config.json", {"architectures": ["Qwen3ForSequenceClassification"]})
    template = load_template(tmp_path)
    assert template.parts == QWEN3.parts
    assert template.head == Head("linear")


def test_a_template_can_be_named_by_its_file(tmp_path: Path) -> None:
    assert load_template(tmp_path, str(write(tmp_path, "t.json", ROW))).name == "mine"


def test_a_name_or_checkpoint_without_a_template_is_refused_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"known are qwen3-reranker, .*, qwen3-reranker-chat"):
        load_template(tmp_path, "qwen4")
    write(tmp_path, "config.json", {"architectures": ["BertModel"]})
    with pytest.raises(ConfigurationError, match=r"put a template\.json"):
        load_template(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prats": []}, "unknown key 'prats'"),
        ({"parts": [{"text": "{query}"}]}, "no text part with {document}"),
        ({"parts": [{"control": "{query}"}, {"text": "{query}{document}"}]}, "smuggle"),
        ({"parts": [{"txt": "{query}{document}"}]}, "'control' or 'text'"),
        ({"head": {"kind": "words"}}, "positive word"),
        ({"head": {"kind": "magic"}}, "kind 'linear'"),
        ({"scale": "much"}, "is not a template"),
        ({"name": None, "parts": None}, "is not a template"),
    ],
)
def test_a_broken_template_file_is_refused_with_its_fault(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read_template(write(tmp_path, "template.json", {**ROW, **change}))


def test_a_file_that_is_no_json_object_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="one JSON object"):
        read_template(write(tmp_path, "template.json", []))
    (tmp_path / "template.json").write_text("{")
    with pytest.raises(ConfigurationError, match="not JSON"):
        read_template(tmp_path / "template.json")


def test_the_revision_changes_with_every_field() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"name": "other"},
        {"parts": (*QWEN3.parts[:-1], Control("x"))},
        {"parts": (*QWEN3.parts[:-1], Text(QWEN3.parts[-1].text))},
        {"head": Head("words", "yes")},
        {"scale": 2.0},
        {"bias": 0.5},
        {"default_instruction": "Find it"},
    ]
    assert len({dataclasses.replace(QWEN3, **change).revision for change in changes}) == len(changes)


def test_a_template_says_whether_an_instruction_has_a_place_in_it() -> None:
    assert QWEN3.has_instruction
    assert not Template("t", (Text("{query}{document}{query}"),), Head("linear")).has_instruction
