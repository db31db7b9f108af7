"""The glossary names files that exist, and enough terms to read the tree by."""

from __future__ import annotations

import re

import pytest
from tests.docs.pages import DOCS, ROOT

ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (DOCS / "glossary.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith(("| term", "| ---"))
]


def test_every_term_says_where_it_lives() -> None:
    assert len(ROWS) >= 30
    paths = [re.fullmatch(r"`([^`]+)`", row[3]) for row in ROWS]
    assert [row[0] for row, path in zip(ROWS, paths, strict=True) if path is None] == []
    missing = [path[1] for path in paths if path and not (ROOT / "src" / "rerankd" / path[1]).is_file()]
    assert missing == []


def test_terms_of_the_issue_are_there() -> None:
    terms = " ".join(row[0] for row in ROWS)
    wanted = (
        "RoPE",
        "varlen attention",
        "prefix cache",
        "WFQ",
        "GEMM epilogue",
        "VNNI",
        "online softmax",
        "single flight",
    )
    assert [term for term in wanted if term not in terms] == []


@pytest.mark.parametrize("page", ["docs/explanation/architecture.md", "CONTRIBUTING.md"])
def test_every_path_that_a_page_names_exists(page: str) -> None:
    """Paths are those of ``src/rerankd``, of its native engine, or of the project."""
    roots = (ROOT, ROOT / "src" / "rerankd", ROOT / "src" / "rerankd" / "engine" / "native")
    words = re.findall(r"`([\w./-]+(?:/|\.(?:py|c|json|md)))`", (ROOT / page).read_text(encoding="utf-8"))
    assert [word for word in words if not any((root / word).exists() for root in roots)] == []
