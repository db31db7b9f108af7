"""Whatever the JSON, a dialect reads it or refuses it in its own shape; it never falls over."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.contract.answers import SCORES, answer_to

from rerankd.errors import InvalidRequest
from rerankd.wire.base import Dialect, ParsedCall, ReadLimits
from rerankd.wire.fields import COMMON
from rerankd.wire.registry import ROUTES, Route

FIELDS = {field.name for route in ROUTES for dialect in route.dialects for field in (*dialect.fields, *COMMON)}
NAMES = st.sampled_from([*sorted(FIELDS), "text", "content", "type", "label", "text_pair"])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.sampled_from(["true", "Left", "NONE", "END", "{}", '{"instruction": 1}', "text"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=len(SCORES)),
        st.dictionaries(NAMES, inner, max_size=3),
        st.lists(st.lists(st.text(max_size=3), min_size=2, max_size=2), max_size=len(SCORES)),
    ),
    max_leaves=8,
)
BODIES = st.one_of(st.dictionaries(NAMES, VALUES, max_size=6), VALUES)
LIKELY = {"query": "q", "queries": "q", "documents": ["a", "b"], "texts": ["a"], "input": ["a"], "passages": ["a"]}


@given(BODIES, st.sampled_from(ROUTES), st.booleans())
def test_any_json_is_answered_or_refused(body: Any, route: Route, likely: bool) -> None:
    if likely and isinstance(body, dict):
        wanted = {name: LIKELY[name] for field in route.dialects[0].fields if (name := field.name) in LIKELY}
        body = wanted | {name: value for name, value in body.items() if name not in wanted}
    dialect, outcome = parsed(route, body)
    if isinstance(outcome, InvalidRequest):
        assert len(json.dumps(dialect.render_error(outcome, "id").body)) < 4096
        return
    texts = [text for request in outcome.requests for text in (request.query, *request.documents)]
    assert all(isinstance(text, str) for text in texts)
    if all(0 < len(request.documents) <= len(SCORES) for request in outcome.requests):
        answers = [answer_to(request) for request in outcome.requests]
        json.dumps(dialect.render(outcome, answers).body, allow_nan=False)


def parsed(route: Route, body: Any) -> tuple[Dialect, ParsedCall | InvalidRequest]:
    dialect = route.dialects[0]
    try:
        dialect = route.choose(body)
        return dialect, dialect.parse(route.with_path(body, {}), ReadLimits())
    except InvalidRequest as error:
        return dialect, error
