from __future__ import annotations

import itertools

import pytest
from tests.figures import Measured

from rerankd.cache.key import ModelScope, keys_for

FIELDS = {
    "model": "Qwen/Qwen3-Reranker-0.6B",
    "revision": "abc",
    "template": "t1",
    "dtype": "float32",
    "engine": "native",
    "device": "cpu",
    "instruction": "find it",
    "query": "what",
    "truncation": "8192",
    "tenant": "",
}


def scope_of(**fields: str) -> bytes:
    own = ("instruction", "query", "truncation", "tenant")
    model = ModelScope(**{name: value for name, value in fields.items() if name not in own})
    return model.of(*[fields[name] for name in own])


@pytest.mark.promise("F-05")
def test_the_key_changes_with_every_field(measured: Measured) -> None:
    """Nine fields and the tenant's salt here, the document below."""
    (key,) = keys_for(scope_of(**FIELDS), ["document"])
    others = [keys_for(scope_of(**{**FIELDS, field: FIELDS[field] + "x"}), ["document"])[0] for field in FIELDS]
    measured("F-05", "one field of the key changed", "10/10 keys differ", f"{len(set(others) - {key})}/{len(FIELDS)}")
    assert len({key, *others}) == 1 + len(FIELDS)
    assert {len(one) for one in (key, *others)} == {32}


def test_the_key_changes_with_the_document_and_with_nothing_else() -> None:
    scope = scope_of(**FIELDS)
    one, two, again = keys_for(scope, ["document", "document ", "document"])
    assert one != two
    assert one == again == keys_for(scope_of(**FIELDS), ["document"])[0]


def test_text_that_moves_from_one_field_to_the_next_makes_another_key() -> None:
    """("ab", "c") is not ("a", "bc")."""
    names = list(FIELDS)
    for first, second in itertools.pairwise(names):
        left, right = {**FIELDS, first: "ab", second: "c"}, {**FIELDS, first: "a", second: "bc"}
        assert scope_of(**left) != scope_of(**right)
    assert keys_for(scope_of(**{**FIELDS, "query": "ab"}), ["c"]) != keys_for(
        scope_of(**{**FIELDS, "query": "a"}), ["bc"]
    )


def test_text_that_is_no_valid_unicode_has_a_key_too() -> None:
    assert len(set(keys_for(scope_of(**FIELDS), ["\ud800", "\udfff", "?"]))) == 3
