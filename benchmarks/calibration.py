"""What calibrations and thresholds of a model hold on data that they were not fitted on.

    python benchmarks/calibration.py ../shared/data/eval/{xquad-en,selqa-test,cmrc2018-sentence,cosqa}

Every set's first ``--queries`` queries are scored once with their first ``--top-k`` candidates. Then two tables:

* ECE of each set before a calibration, after one that was fitted on the *other* sets, and after one that was fitted
  on the other half of its own queries (both ways, the mean).
* A threshold for a precision of .9: chosen on one half of a set's queries, with the interval that it is told with,
  and what it gives on the other half.
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.cascade import logits_of
from benchmarks.machine import print_table
from rerankd.evaluate.bm25 import with_candidates
from rerankd.evaluate.calibration import (
    LabelledPairs,
    calibrate,
    measured,
    probabilities_of,
    reliability,
    suggest,
)
from rerankd.evaluate.dataset import EvaluationSet, Sources, load_set
from rerankd.evaluate.errors import EvaluationError
from rerankd.service.calibration import Calibration

_OWN = functools.partial(probabilities_of, Calibration("platt"))
"""The sigmoid of the raw score: what the model says without a calibration."""


def pairs_of(data: EvaluationSet, model: str) -> LabelledPairs:
    """The scored and labelled candidates of a set."""
    logits: list[float] = []
    labels: list[float] = []
    queries: list[int] = []
    for number, (query, scores) in enumerate(logits_of(data, model).items()):
        grades = data.judgements[query]
        logits += scores
        labels += [float(grades.get(one, 0) >= data.relevant_from) for one, _ in data.candidates[query]]
        queries += [number] * len(scores)
    return LabelledPairs(np.array(logits), np.array(labels), np.array(queries))


def joined(parts: Sequence[LabelledPairs]) -> LabelledPairs:
    """Pairs of several sets, whose queries stay different ones."""
    starts = np.cumsum([0, *(int(part.queries.max()) + 1 for part in parts)])
    queries = np.concatenate([part.queries + start for part, start in zip(parts, starts[:-1], strict=True)])
    return LabelledPairs(
        np.concatenate([part.logits for part in parts]), np.concatenate([part.labels for part in parts]), queries
    )


def halves(pairs: LabelledPairs) -> list[tuple[LabelledPairs, LabelledPairs]]:
    """Both ways to learn from one random half of the queries and judge by the other."""
    names = np.unique(pairs.queries)
    first: NDArray[np.bool_] = np.random.default_rng(7).permutation(len(names)) < len(names) // 2
    inside = first[np.searchsorted(names, pairs.queries)]
    one, other = pairs.of(inside), pairs.of(~inside)
    return [(one, other), (other, one)]


def ece(learned: LabelledPairs, judged: LabelledPairs) -> tuple[float, str]:
    """Of ``judged`` under the calibration that is best for ``learned``, and its method."""
    found = calibrate(learned, None, "", "", _OWN).calibration
    return reliability(probabilities_of(found, judged.logits), judged.labels).ece, found.method


def ece_row(name: str, own: LabelledPairs, others: LabelledPairs) -> dict[str, Any]:
    foreign, method = ece(others, own)
    split = [ece(learned, judged)[0] for learned, judged in halves(own)]
    return {
        "set": name,
        "queries": own.count,
        "pairs": len(own.logits),
        "relevant": f"{own.labels.mean():.1%}",
        "ECE before": f"{reliability(_OWN(own.logits), own.labels).ece:.4f}",
        "fitted on the other sets": f"{foreign:.4f} ({method})",
        "fitted on the other half": f"{np.mean(split):.4f}",
    }


def threshold_rows(name: str, own: LabelledPairs, precision: float) -> list[dict[str, Any]]:
    rows = []
    for half, (learned, judged) in enumerate(halves(own), start=1):
        empty = dict.fromkeys(("precision", "interval", "held back", "within", "recall there"), "")
        row: dict[str, Any] = {"set": name, "half": half, **empty}
        try:
            found = suggest(learned, precision=precision)
        except EvaluationError as error:
            rows.append(row | {"held back": str(error)})
            continue
        low, high = found.precision_interval
        got, recall = measured(judged, found.logit)
        row |= {
            "precision": f"{found.precision:.3f}",
            "interval": f"{low:.3f} to {high:.3f}",
            "held back": f"{got:.3f}",
        }
        rows.append(row | {"within": "yes" if low <= got <= high else "no", "recall there": f"{recall:.3f}"})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--top-k", type=int, default=20)
    parser.add_argument("--precision", type=float, default=0.9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    sets = {}
    for folder in options.folders:
        data = load_set(folder, Sources(), options.top_k).first(options.queries)
        data = data if data.candidates else with_candidates(data, options.top_k)
        sets[data.name] = pairs_of(data, options.model)
    eces = [
        ece_row(name, own, joined([other for other in sets.values() if other is not own]))
        for name, own in sets.items()
    ]
    thresholds = [row for name, own in sets.items() for row in threshold_rows(name, own, options.precision)]
    print_table(f"Expected calibration error of {options.model}", eces)
    print_table(f"Thresholds for a precision of {options.precision:g}", thresholds)
    if options.json:
        options.json.write_text(
            json.dumps({"ece": eces, "thresholds": thresholds}, indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
