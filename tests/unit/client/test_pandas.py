from __future__ import annotations

import pytest

from rerankd.client import Document, RankedResults, Result


@pytest.fixture(autouse=True)
def _pandas() -> None:
    """Looked for where it is used: its import takes longer than these tests."""
    pytest.importorskip("pandas", reason="needs pandas: the extra of that name has it")


def test_a_row_is_a_result() -> None:
    documents = [Document("a", id="1", metadata={"page": 3}), Document("b", metadata={"index": 7})]
    results = RankedResults((Result(1, 0.9, documents[1]), Result(0, 0.5, documents[0])), (0.5, 0.9))
    frame = results.to_pandas()
    assert list(frame.columns) == ["index", "score", "text", "id", "metadata.index", "metadata.page"]
    assert frame["text"].tolist() == ["b", "a"]
    assert frame["index"].tolist() == [1, 0]
    assert frame["score"].tolist() == [0.9, 0.5]
    assert frame["metadata.page"].isna().tolist() == [True, False]


def test_no_results_are_an_empty_frame_with_columns() -> None:
    frame = RankedResults((), (None,)).to_pandas()
    assert (len(frame), list(frame.columns)) == (0, ["index", "score", "text", "id"])
