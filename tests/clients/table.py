"""The table of clients: judged, and written into the reference."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "docs" / "reference" / "clients.md",)
BEGIN, END = "<!-- clients: begin (make clients) -->", "<!-- clients: end -->"
RIGHT_ORDER = [1, 0, 2]
CASES = ("401", "400", "429")

_TELLS = {
    "401": re.compile(r"\b401\b|API key|Unauthorized", re.IGNORECASE),
    "400": re.compile(r"\b4(00|22)\b|query must (not be empty|be a non-empty)"),
    "429": re.compile(r"\b429\b|rate limit", re.IGNORECASE),
}
"""What an error has to say for its user to understand it."""

SILENT = frozenset(
    {
        "rerankers APIRanker, cohere",
        "rerankers APIRanker, jina",
        "rerankers APIRanker, voyage",
        "rerankers APIRanker, mixedbread.ai",
        "rerankers APIRanker, text-embeddings-inference",
        "langchain-community DashScopeRerank",
        "llama-index-postprocessor-dashscope-rerank DashScopeRerank",
        "llama-index-postprocessor-tei-rerank TextEmbeddingInference",
    }
)
"""Calls that read neither the status nor the body of an error: no server can make them say more."""


HIDES = frozenset({"mem0ai CohereReranker", "mem0ai ZeroEntropyReranker"})
"""Calls that meet an error, write a line to a log and give the documents back as they came."""


KEYLESS = frozenset(
    {"Weaviate reranker-transformers", "llama-index-postprocessor-xinference-rerank XinferenceRerank"}
)
"""Calls that have no key to send."""


WRAPS = frozenset(
    {"hev-rerank rerank", "lancedb TypeSafeReranker", "lancedb TypeSafeReranker, batch_size=40"},
)
"""Calls that write the query into a longer text: a blank one makes a request like any other."""


def name_of(report: dict[str, Any]) -> str:
    return f"{report['package']} {report['call']}"


def ranks(report: dict[str, Any]) -> bool:
    return bool(report["order"] == RIGHT_ORDER)


def ranks_with_a_key(report: dict[str, Any]) -> bool:
    """Whether the right key opens the locked server."""
    return bool(report["keyed"] == RIGHT_ORDER)


def explains(report: dict[str, Any], case: str) -> bool:
    """Whether the client raised an error that says what happened, where something did."""
    if case == "400" and name_of(report) in WRAPS:
        return not isinstance(report[case], str)
    return isinstance(report[case], str) and bool(_TELLS[case].search(report[case]))


def errors_of(report: dict[str, Any]) -> str:
    if all(explains(report, case) for case in CASES):
        return "clear; a blank query is none" if name_of(report) in WRAPS else "clear"
    if name_of(report) in HIDES:
        return "hidden: the old order, and a line in the log"
    kind = str(report["401"]).split(":", 1)[0].rsplit(".", 1)[-1]
    return f"{kind}: it reads no error of any server" if name_of(report) in SILENT else "unclear"


def lines(reports: list[dict[str, Any]]) -> list[str]:
    """The table in Markdown."""
    head = "| client | version | call | path hit | keyless | keyed | 401, 400, 429 |"
    rows = [head, f"|{' --- |' * 7}"]
    for report in reports:
        path = report["paths"][-1].removeprefix("POST ") if report["paths"] else "none"
        ok, keyed = ("ok" if right else "no" for right in (ranks(report), ranks_with_a_key(report)))
        keyed = "sends no key" if name_of(report) in KEYLESS else keyed
        cells = [
            report["package"],
            report["version"],
            f"`{report['call']}`",
            f"`{path}`",
            ok,
            keyed,
            errors_of(report),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    packages = {report["package"] for report in reports}
    both = sum(ranks(report) and ranks_with_a_key(report) for report in reports)
    return [*rows, "", f"{len(reports)} calls of {len(packages)} clients; {both} rank on both servers."]


def write(shown: list[str]) -> None:
    """Puts the table between the markers of the pages."""
    for page in PAGES:
        before, rest = page.read_text("utf-8").split(BEGIN, 1)
        after = rest.split(END, 1)[1]
        page.write_text("\n".join([before + BEGIN, "", *shown, "", END]) + after, "utf-8")
