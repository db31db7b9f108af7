"""H-08 with the embedded model: the same content by every dialect gets the same scores, computed anew each time."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from tests.contract.test_same_content import BODIES, DOCUMENTS, QUERY, QUESTIONS
from tests.figures import Measured
from tests.live import LiveServer

from rerankd.wire.registry import ROUTES

ANEW = {"Cache-Control": "no-cache"}
PATHS = {dialect.name: route.path for route in ROUTES for dialect in route.dialects}


def scores_of(name: str, body: Any) -> list[float]:
    """The scores of the documents, in input order, from the answer of a dialect."""
    if name == "native-batch":
        return list(body["results"][0]["scores"])
    if name == "deepinfra":
        return list(body["scores"])
    if name == "tei-predict":
        return [pair[0]["score"] for pair in body]
    if name == "nvidia":
        return [row["logit"] for row in in_order(body["rankings"])]
    if name == "systemone":
        return [answer["noul"] for answer in body["answers"].values()]
    if name == "decisions":
        return [answer["probability"] for answer in body["answers"]]
    if name == "weaviate":
        return [row["score"] for row in body["scores"]]
    rows = body if isinstance(body, list) else body.get("output", body)
    if isinstance(rows, dict):
        rows = rows.get("results") or rows["data"]
    return [row.get("relevance_score", row.get("score")) for row in in_order(rows)]


def in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: int(row["index"]))


def ask(server: LiveServer, name: str, path: str, **more: Any) -> list[float]:
    path = path.replace("{owner}", "any").replace("{model}", "tiny")
    answer = httpx.post(f"{server.url}{path}", json=BODIES[name] | more, headers=ANEW, timeout=30)
    assert answer.status_code == 200, answer.text
    return scores_of(name, answer.json())


@pytest.fixture(scope="module")
def native(tiny_server: LiveServer) -> dict[bool, list[float]]:
    """The scores of the native shape: probabilities, and under True logits."""
    return {raw: ask(tiny_server, "native", "/rerank", raw_scores=raw) for raw in (False, True)}


@pytest.mark.promise("H-08")
def test_questions_get_the_scores_of_their_instruction(tiny_server: LiveServer, measured: Measured) -> None:
    for name, texts in (("systemone", DOCUMENTS), ("decisions", [text.strip() for text in DOCUMENTS if text])):
        found = ask(tiny_server, name, PATHS[name])
        body = {"query": QUERY, "documents": texts, "instruction": "Is `document` relevant?"}
        answer = httpx.post(f"{tiny_server.url}/rerank", json=body, headers=ANEW, timeout=30).json()
        differ = max(abs(one - other) for one, other in zip(found, answer["scores"], strict=True))
        measured("H-08", f"the same content as {name}", "same scores", f"differ by at most {differ:.0e}")
        assert differ <= 1e-5


@pytest.mark.promise("H-08")
@pytest.mark.parametrize("name", [name for name in PATHS if name not in QUESTIONS])
def test_every_dialect_gives_the_same_scores(
    tiny_server: LiveServer, native: dict[bool, list[float]], name: str, measured: Measured
) -> None:
    raw = name == "nvidia"  # Its shape has logits where the others have probabilities.
    found = ask(tiny_server, name, PATHS[name])
    differ = max(abs(one - other) for one, other in zip(found, native[raw], strict=True))
    measured("H-08", f"the same content as {name}", "same scores", f"differ by at most {differ:.0e}")
    # A batch of other shape may round the last bits of a float32 otherwise; nothing more may differ.
    assert differ <= 1e-5
