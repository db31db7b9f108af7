"""The measures on real sets: equal to pytrec_eval's on every one, and to the figures that their makers give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rerankd.evaluate.dataset import EvaluationSet, Sources, load_set
from rerankd.evaluate.measures import Run, in_order, measure

pytrec_eval = pytest.importorskip("pytrec_eval")

SETS = Path(__file__).parents[3] / "shared" / "data" / "eval"

# nDCG@10 and MRR@10 of the candidates as each set's README gives them.
PUBLISHED = {
    "cmeddialog": (0.5453, 0.4916),
    "cmrc2018-sentence": (0.8356, 0.7987),
    "cosqa": (0.3567, 0.3033),
    "hotpotqa-500": (0.7632, 0.8563),
    "scifact": (0.6644, 0.6341),
    "selqa-test": (0.8799, 0.8544),
    "trec-dl19": (0.5058, 0.7024),
    "xquad-en": (0.9744, 0.9678),
    "xquad-zh": (0.9669, 0.9586),
}


QUICK = ("trec-dl19", "xquad-zh")


@pytest.fixture(
    params=[pytest.param(name, marks=() if name in QUICK else pytest.mark.thorough) for name in PUBLISHED]
)
def data(request: pytest.FixtureRequest) -> EvaluationSet:
    folder = SETS / request.param
    if not folder.is_dir():
        pytest.skip(f"there is no set at {folder}")
    # Graded judgements of this set count from 2 where a measure knows only yes and no.
    return load_set(folder, Sources(), top_k=100, relevant_from=2 if request.param == "trec-dl19" else 1)


def random_run(data: EvaluationSet) -> Run:
    """Scores with many ties, for every query that has candidates."""
    random = np.random.default_rng(1)
    return {
        query: {document: float(random.integers(0, 10)) for document, _ in ranked}
        for query, ranked in data.candidates.items()
    }


def by_pytrec_eval(data: EvaluationSet, run: Run) -> dict[str, list[float]]:
    level = data.relevant_from
    binary = pytrec_eval.RelevanceEvaluator(
        data.judgements, {"map", "recip_rank", "recall.10,100"}, relevance_level=level
    ).evaluate(run)
    graded = pytrec_eval.RelevanceEvaluator(data.judgements, {"ndcg_cut.10"}).evaluate(run)
    found = [binary.get(query, {}) | graded.get(query, {}) for query in data.queries]
    names = {"ndcg@10": "ndcg_cut_10", "map": "map", "recall@10": "recall_10", "recall@100": "recall_100"}
    figures = {ours: [row.get(theirs, 0.0) for row in found] for ours, theirs in names.items()}
    reciprocal = [row.get("recip_rank", 0.0) for row in found]
    return figures | {"mrr@10": [value if value >= 0.1 else 0.0 for value in reciprocal]}


def test_every_measure_of_every_query_is_pytrec_evals(data: EvaluationSet) -> None:
    for run in (in_order(data.candidates), random_run(data)):
        found = {name: values.tolist() for name, values in measure(data, run, top_k=100).items()}
        assert found == by_pytrec_eval(data, run)


def test_the_candidates_have_the_figures_of_their_makers(data: EvaluationSet) -> None:
    found = measure(data, in_order(data.candidates), top_k=100)
    assert (found["ndcg@10"].mean(), found["mrr@10"].mean()) == pytest.approx(PUBLISHED[data.name], abs=6e-5)
