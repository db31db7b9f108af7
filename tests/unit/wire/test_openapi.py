"""rerankd.wire.openapi: what a path's document says of its errors."""

from __future__ import annotations

import jsonschema_rs
import pytest

from rerankd.wire.openapi import EXAMPLE_ID, SHOWN_ERRORS, describe
from rerankd.wire.registry import ROUTES, Route


@pytest.mark.promise("W2", "U10")
@pytest.mark.parametrize(
    "route", [route for route in ROUTES if len(route.dialects) > 1], ids=lambda route: route.path
)
def test_the_errors_of_every_dialect_of_a_path_fit_its_document(route: Route) -> None:
    """Only the first dialect's did: TEI's empty ``texts`` at a shared path had another shape than it said."""
    responses = describe(route)["responses"]
    for dialect in route.dialects:
        for error in SHOWN_ERRORS:
            answer = dialect.render_error(error, EXAMPLE_ID)
            schema = responses[str(answer.status)]["content"]["application/json"]["schema"]
            jsonschema_rs.validate(schema, answer.body)
