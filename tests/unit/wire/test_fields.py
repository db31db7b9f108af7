from __future__ import annotations

from typing import Any

import pytest

from rerankd.errors import EmptyInput, InvalidRequest, TooLarge
from rerankd.wire import fields, values
from rerankd.wire.base import ReadLimits
from rerankd.wire.fields import COMMON, QUERY, Field, read_fields
from rerankd.wire.superset import Superset

NUMBERS = [
    field for field in COMMON if isinstance(field.schema.get("type"), list) and "integer" in field.schema["type"]
]


def refusal(read: Any, sent: object) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        read(sent, "field")
    return caught.value


def texts_of(body: dict[str, Any]) -> tuple[str, ...]:
    return Superset().parse({"query": "q", **body}, ReadLimits()).requests[0].documents


@pytest.mark.parametrize(
    ("sent", "read"), [(True, True), (False, False), ("true", True), ("False", False), ("1", True), (0, False)]
)
def test_a_flag_may_be_a_word(sent: object, read: bool) -> None:
    assert values.flag(sent, "flag") is read


@pytest.mark.parametrize("sent", ["maybe", 2, [], {}, 1.5])
def test_a_flag_that_means_nothing_is_refused(sent: object) -> None:
    assert refusal(values.flag, sent).param == "field"


@pytest.mark.parametrize(("sent", "read"), [(3, 3), (3.0, 3), ("3", 3), (" 3 ", 3)])
def test_a_whole_number_may_be_written_in_several_ways(sent: object, read: int) -> None:
    assert values.whole()(sent, "top_n") == read


@pytest.mark.parametrize("sent", [-1, 1.5, True, "three", "٣", "²", [1], ""])
def test_what_is_no_whole_number_is_refused(sent: object) -> None:
    assert "whole number" in refusal(values.whole(), sent).message


@pytest.mark.promise("S8")
@pytest.mark.parametrize("field", [*NUMBERS, fields.SCORE_THRESHOLD], ids=lambda field: field.name)
@pytest.mark.parametrize("sent", ["1" * 4301, "-" + "1" * 4301, "1" * 65, "1e999", "nan", "\u0661"])
def test_a_number_of_any_length_is_read_or_refused(field: Field, sent: str) -> None:
    assert field.name in refusal(lambda value, where: read_fields({field.name: value}, [field]), sent).message


@pytest.mark.promise("U19")
@pytest.mark.parametrize("sent", [2**31, 2**63, 1e300, "99999999999"])
@pytest.mark.parametrize("field", NUMBERS, ids=lambda field: field.name)
def test_more_than_there_are_means_all(field: Field, sent: object) -> None:
    assert read_fields({field.name: sent}, [field])[field.meaning] >= 1


@pytest.mark.parametrize("sent", ["x", True, [], float("inf")])
def test_what_is_no_number_is_refused(sent: object) -> None:
    assert refusal(values.number, sent).param == "field"


def test_the_first_field_that_says_something_counts() -> None:
    assert read_fields({"top_n": None, "top_k": 2}, COMMON)["top_n"] == 2
    assert read_fields({"top_n": 3, "top_k": 2}, COMMON)["top_n"] == 3


@pytest.mark.promise("S6")
@pytest.mark.parametrize(
    "body",
    [
        {"instruction": "", "instruct": "find"},
        {"instruction": "", "chat_template_kwargs": {"instruction": "", "instruct": "find"}},
        {"instruct": "", "kwargs": '{"instruction": "find"}'},
    ],
)
def test_an_empty_instruction_hides_no_other(body: dict[str, Any]) -> None:
    assert read_fields(body, COMMON)["instruction"] == "find"
    assert "instruction" not in read_fields({"instruction": "", "kwargs": ""}, COMMON)


@pytest.mark.parametrize(
    ("sent", "texts"),
    [
        ("one", ("one",)),
        (["a", "b"], ("a", "b")),
        ({"text": "one"}, ("one",)),
        ([{"text": "a"}, "b"], ("a", "b")),
        ([{"content": "a"}, {"content": [{"type": "text", "text": "b"}, {"text": "c"}]}], ("a", "b\nc")),
        ([{"text": 7}], ("7",)),
    ],
)
def test_documents_may_be_strings_or_objects_or_one_of_either(sent: object, texts: tuple[str, ...]) -> None:
    assert texts_of({"documents": sent}) == texts


@pytest.mark.parametrize("bad", [None, 7, [], {}, {"image": "x"}, {"content": []}, {"content": [{"type": "image"}]}])
def test_a_document_without_a_text_is_named_by_its_place(bad: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        texts_of({"documents": ["a", bad]})
    assert caught.value.param == "documents[1]"


def test_rank_fields_choose_and_name_the_texts_of_an_object() -> None:
    document = {"title": "T", "body": "B", "year": 1999, "none": None}
    for names, text in ((["body"], "B"), (["body", "title"], "body: B\ntitle: T"), (["year", "none"], "year: 1999")):
        assert texts_of({"documents": [document], "rank_fields": names}) == (text,)


@pytest.mark.promise("A2")
def test_a_name_counts_once_however_often_it_is_named() -> None:
    assert texts_of({"documents": [{"t": "text"}], "rank_fields": ["t"] * 50}) == ("text",)


@pytest.mark.parametrize("names", [[], "text", [1], ["t"] * 65])
def test_rank_fields_have_to_be_some_names(names: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        texts_of({"documents": ["a"], "rank_fields": names})
    assert caught.value.param == "rank_fields"


@pytest.mark.parametrize("kwargs", ["{", "[1]", '"x"', '{"instruction": 7}', "1e400"])
def test_keyword_arguments_that_cannot_be_read_are_refused(kwargs: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_fields({"kwargs": kwargs}, COMMON)
    assert (caught.value.param or "").startswith("kwargs")


class Uncounted(list[Any]):
    """A list that nobody may look into."""

    def __iter__(self) -> Any:
        raise AssertionError("looked at before it was counted")


@pytest.mark.promise("A2")
def test_a_list_is_counted_before_it_is_read() -> None:
    with pytest.raises(TooLarge) as caught:
        values.items(Uncounted(["a"] * 11), "texts", 10)
    assert (caught.value.param, caught.value.setting) == ("texts", "max_documents")


@pytest.mark.promise("W2")
def test_an_empty_list_is_named_by_its_own_key() -> None:
    with pytest.raises(EmptyInput) as caught:
        values.items([], "passages", 10)
    assert caught.value.param == "passages"


def test_a_missing_field_is_named_with_its_object() -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_fields({"query": None}, [QUERY], "input")
    assert caught.value.param == "input.query"
