"""Every form of the report, made from the names of a run before anything is scored.

A run may take hours. What its report could fail on, a name that a picture or a table cannot show, fails here.
"""

from __future__ import annotations

from collections.abc import Sequence

from rerankd.evaluate.dataset import EvaluationSet
from rerankd.evaluate.errors import EvaluationError
from rerankd.evaluate.markdown import Report, markdown
from rerankd.evaluate.measures import in_order, measure
from rerankd.evaluate.page import page
from rerankd.evaluate.run import SetResult, SystemResult
from rerankd.evaluate.summary import summary


def rehearse(data: Sequence[EvaluationSet], labels: Sequence[str], top_k: int) -> Report:
    """The report of a run that leaves every list as it is, over the first query of each set.

    Raises:
        EvaluationError: the report of this run could not be written.
    """
    try:
        sets = {one.name: _unchanged(one.first(1), top_k) for one in data}
        report = summary([SystemResult(label, {}, None, sets) for label in labels], command="", top_k=top_k)
        markdown(report)
        page(report, {one.name: one.queries for one in data})
    except EvaluationError:
        raise
    except Exception as error:
        raise EvaluationError(
            f"the report of this run could not be written: {type(error).__name__} {str(error)[:200]}"
        ) from error
    return report


def _unchanged(data: EvaluationSet, top_k: int) -> SetResult:
    figures = measure(data, in_order(data.candidates), top_k)
    return SetResult(data, figures, figures, figures, pairs=1, tokens=1, seconds=1.0, truncated=0, failed=0)
