"""Calibrations fitted on labelled data, judged on held-back queries; thresholds by precision or recall."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerankd.evaluate.dataset import EvaluationSet
from rerankd.evaluate.errors import EvaluationError, extra
from rerankd.evaluate.scorer import QueryScores
from rerankd.service.calibration import METHODS, Calibration, Method

BINS = 15
FOLDS = 5
HALVES = 500
"""Random halves of the queries that a threshold is tried on."""
_LEAST_PASSING = 10
_SEED = 20
_FREE = 1e9
"""Regularisation of a fit that has nothing to overfit: none."""
_CLIP = 1e-9

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LabelledPairs:
    """Pairs of a query and a document, all of shape (pairs,): raw scores, 1 where relevant, number of the query."""

    logits: Values
    labels: Values
    queries: NDArray[np.int64]

    @property
    def count(self) -> int:
        """Of queries."""
        return len(np.unique(self.queries))

    def of(self, chosen: NDArray[np.bool_]) -> LabelledPairs:
        return LabelledPairs(self.logits[chosen], self.labels[chosen], self.queries[chosen])


@dataclass(frozen=True, slots=True)
class Reliability:
    """How probabilities came true.

    Attributes:
        ece: expected calibration error over ``BINS`` bins of equal width (Guo et al., 2017).
        log_loss: mean negative log likelihood.
        bins: of each bin that is not empty its mean probability, the share that was relevant, and its pairs.
    """

    ece: float
    log_loss: float
    bins: Sequence[tuple[float, float, int]]


@dataclass(frozen=True, slots=True)
class CalibrationFit:
    """A calibration fitted on all pairs, and how each method did on queries that did not fit it."""

    calibration: Calibration
    before: Reliability
    held_back: Mapping[Method, Reliability]

    @property
    def after(self) -> Reliability:
        return self.held_back[self.calibration.method]


def labelled_pairs(scored: Iterable[tuple[EvaluationSet, str, QueryScores]]) -> LabelledPairs:
    """Pairs from scored queries. Without a judgement a candidate is irrelevant, without a score it is left out.

    Raises:
        EvaluationError: there are too few queries, or all pairs have the same label.
    """
    logits: list[Values] = []
    labels: list[Values] = []
    queries: list[NDArray[np.int64]] = []
    for number, (data, query, found) in enumerate(scored):
        grades = data.judgements[query]
        listed = [document for document, _ in data.candidates[query] if document in data.documents]
        relevant = [float(grades.get(document, 0) >= data.relevant_from) for document in listed]
        finite = np.isfinite(found.scores)
        logits.append(found.scores[finite])
        labels.append(np.array(relevant)[finite] if relevant else np.empty(0))
        queries.append(np.full(int(finite.sum()), number))
    if len(logits) < 2 * FOLDS:
        raise EvaluationError(f"{len(logits)} queries are too few to learn from: {2 * FOLDS} are the least")
    pairs = LabelledPairs(np.concatenate(logits), np.concatenate(labels), np.concatenate(queries))
    if not 0 < pairs.labels.mean() < 1:
        raise EvaluationError("all candidates are relevant, or none is: there is nothing to learn from")
    return pairs


def reliability(probabilities: Values, labels: Values) -> Reliability:
    """Both of shape (pairs,)."""
    places = np.minimum((probabilities * BINS).astype(np.int64), BINS - 1)
    bins = [
        (float(probabilities[inside].mean()), float(labels[inside].mean()), int(inside.sum()))
        for place in range(BINS)
        if (inside := places == place).any()
    ]
    ece = sum(abs(said - true) * pairs for said, true, pairs in bins) / len(labels)
    sure = np.clip(probabilities, _CLIP, 1 - _CLIP)
    loss = -(labels * np.log(sure) + (1 - labels) * np.log1p(-sure)).mean()
    return Reliability(float(ece), float(loss), bins)


def probabilities_of(calibration: Calibration, logits: Values) -> Values:
    return np.array([calibration.probability(logit) for logit in logits.tolist()])


def fit(pairs: LabelledPairs, method: Method, fingerprint: str = "", template: str = "") -> Calibration:
    """One method on all pairs.

    Raises:
        EvaluationError: scikit-learn is not installed, or higher scores are less often relevant.
    """
    if method == "isotonic":
        return Calibration(method, points=_isotonic(pairs), fingerprint=fingerprint, template=template)
    library = extra("sklearn.linear_model")
    has_bias = method == "platt"
    model = library.LogisticRegression(C=_FREE, fit_intercept=has_bias)
    model.fit(pairs.logits[:, None], pairs.labels)
    scale = float(model.coef_[0, 0])
    if scale <= 0:
        raise EvaluationError("relevant documents have lower scores than others: no calibration keeps their order")
    bias = float(model.intercept_[0]) if has_bias else 0.0
    return Calibration(method, scale, bias, fingerprint=fingerprint, template=template)


def _isotonic(pairs: LabelledPairs) -> tuple[tuple[float, float], ...]:
    model = extra("sklearn.isotonic").IsotonicRegression(out_of_bounds="clip")
    model.fit(pairs.logits, pairs.labels)
    points = zip(model.X_thresholds_.tolist(), model.y_thresholds_.tolist(), strict=True)
    # Two raw scores that differ by rounding may have become one.
    return tuple(sorted({float(x): min(max(float(y), 0.0), 1.0) for x, y in points}.items()))


def calibrate(
    pairs: LabelledPairs, method: Method | None, fingerprint: str, template: str, before: Callable[[Values], Values]
) -> CalibrationFit:
    """Fit, and judge by cross-validation in which all pairs of a query are in the same fold.

    Args:
        method: None takes the one with the least log loss on held-back queries.
        before: the model's own probabilities for raw scores.
    """
    held_back = {
        one: reliability(_cross_validated(pairs, one), pairs.labels) for one in ((method,) if method else METHODS)
    }
    best = min(held_back, key=lambda one: held_back[one].log_loss)
    return CalibrationFit(
        fit(pairs, best, fingerprint, template), reliability(before(pairs.logits), pairs.labels), held_back
    )


def _cross_validated(pairs: LabelledPairs, method: Method) -> Values:
    """Each pair's probability by a fit on the other folds' queries."""
    names = np.unique(pairs.queries)
    folds = np.random.default_rng(_SEED).permutation(len(names)) % FOLDS
    fold_of = folds[np.searchsorted(names, pairs.queries)]
    found = np.empty(len(pairs.logits))
    for fold in range(FOLDS):
        inside = fold_of == fold
        found[inside] = probabilities_of(fit(pairs.of(~inside), method), pairs.logits[inside])
    return found


@dataclass(frozen=True, slots=True)
class Threshold:
    """The lowest raw score that gives the wanted precision, or the highest that gives the wanted recall.

    Attributes:
        precision, recall: over all pairs.
        precision_interval, recall_interval: 95 % of what thresholds chosen the same way on random halves of the
            queries gave on the other halves.
        kept: share of the pairs that pass.
        found_in: share of the halves in which there was such a threshold at all.
    """

    logit: float
    precision: float
    recall: float
    precision_interval: tuple[float, float]
    recall_interval: tuple[float, float]
    kept: float
    found_in: float


def suggest(pairs: LabelledPairs, *, precision: float | None = None, recall: float | None = None) -> Threshold:
    """A threshold for a wanted precision, or recall: exactly one is given.

    Raises:
        EvaluationError: no threshold with at least ten documents above it is that precise.
    """
    logit = choose(pairs, precision, recall)
    if logit is None:
        raise EvaluationError(f"no threshold reaches a precision of {precision:g} on these data")
    held_back = [found for half in range(HALVES) if (found := _on_other_half(pairs, precision, recall, half))]
    table = np.array(held_back) if held_back else np.array([[np.nan, np.nan]])
    (low_p, low_r), (high_p, high_r) = np.nanquantile(table, [0.025, 0.975], axis=0)
    own = measured(pairs, logit)
    return Threshold(
        logit,
        own[0],
        own[1],
        (float(low_p), float(high_p)),
        (float(low_r), float(high_r)),
        float((pairs.logits >= logit).mean()),
        len(held_back) / HALVES,
    )


def choose(pairs: LabelledPairs, precision: float | None, recall: float | None) -> float | None:
    """The raw score at which to cut; None where nothing is precise enough."""
    order = np.argsort(-pairs.logits, kind="stable")
    logits, labels = pairs.logits[order], pairs.labels[order]
    hits = np.cumsum(labels)
    # Equal scores pass together: only the last of them is a place to cut.
    is_cut = np.append(logits[1:] != logits[:-1], True)
    if recall is not None:
        enough = is_cut & (hits >= recall * hits[-1])
        return float(logits[int(enough.argmax())])
    passing = np.arange(1, len(logits) + 1)
    precise = is_cut & (hits / passing >= (precision or 0.0)) & (passing >= _LEAST_PASSING)
    return float(logits[int(np.flatnonzero(precise)[-1])]) if precise.any() else None


def measured(pairs: LabelledPairs, logit: float) -> tuple[float, float]:
    """Precision and recall of the pairs at or above a raw score; NaN where there is nothing to divide by."""
    passing = pairs.logits >= logit
    hits = float(pairs.labels[passing].sum())
    relevant = float(pairs.labels.sum())
    return hits / int(passing.sum()) if passing.any() else float("nan"), hits / relevant if relevant else float("nan")


def _on_other_half(
    pairs: LabelledPairs, precision: float | None, recall: float | None, seed: int
) -> tuple[float, float] | None:
    """Precision and recall on one half of the queries of the threshold that the other half chooses."""
    names = np.unique(pairs.queries)
    first = np.random.default_rng((_SEED, seed)).permutation(len(names)) < len(names) // 2
    inside = first[np.searchsorted(names, pairs.queries)]
    logit = choose(pairs.of(inside), precision, recall)
    return None if logit is None else measured(pairs.of(~inside), logit)


def as_json(found: CalibrationFit, sets: Sequence[str], pairs: LabelledPairs) -> dict[str, Any]:
    """The file that a served name names, with how it was made."""
    return {
        **found.calibration.as_json(),
        "fitted_on": {"sets": list(sets), "queries": pairs.count, "pairs": len(pairs.logits)},
        "ece": {"before": found.before.ece, "after": found.after.ece, "folds": FOLDS, "bins": BINS},
    }
