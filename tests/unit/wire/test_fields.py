from __future__ import annotations

from typing import Any

import pytest

from rerankd.errors import InvalidRequest
from rerankd.wire.fields import Fields


def refusal(body: dict[str, Any], name: str, kind: str) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        getattr(Fields(body), kind)(name)
    return caught.value


@pytest.mark.parametrize(
    ("sent", "read"),
    [(True, True), (False, False), ("true", True), ("False", False), ("1", True), (0, False), (None, None)],
)
def test_a_flag_may_be_a_word(sent: object, read: bool | None) -> None:
    assert Fields({"flag": sent}).flag("flag") is read


@pytest.mark.parametrize("sent", ["maybe", 2, [], {}, 1.5])
def test_a_flag_that_means_nothing_is_refused(sent: object) -> None:
    assert refusal({"flag": sent}, "flag", "flag").param == "flag"


@pytest.mark.parametrize(("sent", "read"), [(3, 3), (3.0, 3), ("3", 3), (" 3 ", 3), (None, None)])
def test_a_whole_number_may_be_written_in_several_ways(sent: object, read: int | None) -> None:
    assert Fields({"top_n": sent}).whole("top_n") == read


@pytest.mark.parametrize("sent", [-1, 1.5, True, "three", "٣", [1], 2**31, 1e300])
def test_what_is_no_whole_number_is_refused(sent: object) -> None:
    assert "whole number" in refusal({"top_n": sent}, "top_n", "whole").message


def test_the_first_name_that_is_not_null_counts() -> None:
    assert Fields({"top_n": None, "top_k": 2}).whole("top_n", "top_k") == 2
    assert Fields({"a": None, "b": 0}).get("a", "b") == 0


@pytest.mark.parametrize(
    ("sent", "texts"),
    [
        ("one", ("one",)),
        (["a", "b"], ("a", "b")),
        ([], ()),
        ({"text": "one"}, ("one",)),
        ([{"text": "a"}, "b"], ("a", "b")),
        ([{"content": "a"}, {"content": [{"type": "text", "text": "b"}, {"text": "c"}]}], ("a", "b\nc")),
        ([{"text": 7}], ("7",)),
    ],
)
def test_documents_may_be_strings_or_objects_or_one_of_either(sent: object, texts: tuple[str, ...]) -> None:
    assert Fields({"documents": sent}).documents("documents")[0] == texts


@pytest.mark.parametrize("bad", [None, 7, [], {}, {"image": "x"}, {"content": []}, {"content": [{"type": "image"}]}])
def test_a_document_without_a_text_is_named_by_its_place(bad: object) -> None:
    assert refusal({"documents": ["a", bad]}, "documents", "documents").param == "documents[1]"


def test_rank_fields_choose_and_name_the_texts_of_an_object() -> None:
    document = {"title": "T", "body": "B", "year": 1999, "none": None}
    for names, text in ((["body"], "B"), (["body", "title"], "body: B\ntitle: T"), (["year", "none"], "year: 1999")):
        assert Fields({"documents": [document], "rank_fields": names}).documents("documents")[0] == (text,)


@pytest.mark.parametrize("names", [[], "text", [1]])
def test_rank_fields_have_to_be_names(names: object) -> None:
    assert refusal({"documents": ["a"], "rank_fields": names}, "documents", "documents").param == "rank_fields"


@pytest.mark.parametrize("kwargs", ["{", "[1]", '"x"', '{"instruction": 7}', "1e400"])
def test_keyword_arguments_that_cannot_be_read_are_refused(kwargs: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Fields({"kwargs": kwargs}).instruction()
    assert (caught.value.param or "").startswith("kwargs")


@pytest.mark.parametrize("kwargs", ["", " ", "{}", "null", None, {}])
def test_empty_keyword_arguments_are_none(kwargs: object) -> None:
    assert Fields({"kwargs": kwargs}).instruction() is None


def test_the_flat_instruction_goes_before_the_inner_ones() -> None:
    body = {"instruct": "flat", "chat_template_kwargs": {"instruction": "inner"}}
    assert Fields(body).instruction() == "flat"


@pytest.mark.parametrize(("sent", "side"), [("Left", "left"), ("left", "left"), ("Right", "right"), (None, "right")])
def test_a_side_is_read_in_any_case(sent: str | None, side: str) -> None:
    assert Fields({"side": sent}).side("side") == side


@pytest.mark.parametrize("body", [None, [], "x", 7])
def test_a_body_that_is_no_object_is_refused(body: object) -> None:
    with pytest.raises(InvalidRequest, match="JSON object"):
        Fields(body)


def test_no_refusal_repeats_what_was_sent() -> None:
    long = "secret" * 1000
    for name, kind in (("flag", "flag"), ("top_n", "whole"), ("side", "side"), ("query", "query")):
        sent: object = {"x": long} if kind == "query" else long
        message = refusal({name: sent}, name, kind).message
        assert "secret" not in message
        assert len(message) < 200
