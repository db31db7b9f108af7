"""A model's raw scores as probabilities that came true on labelled data.

Monotone, so that the order never changes; documents whose probabilities are equal stay in the order of their raw
scores. The cache keeps raw scores: a calibration can be changed without scoring anything again.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

from rerankd.errors import ConfigurationError
from rerankd.files import read_json_object
from rerankd.types import DocumentScore

FORMAT = "rerankd-calibration"
METHODS: tuple[Method, ...] = ("temperature", "platt", "isotonic")
_MAX_BYTES = 4 * 1024 * 1024

Method: TypeAlias = Literal["temperature", "platt", "isotonic"]


@dataclass(frozen=True, slots=True)
class Calibration:
    """From a raw score to a probability.

    Attributes:
        scale, bias: of the raw score before the sigmoid (``temperature`` is 1 / scale: Guo et al., 2017;
            Platt, 1999).
        points: for ``isotonic``, raw scores and probabilities, both rising, with straight lines between (Zadrozny and
            Elkan, 2002).
        fingerprint, template: whose raw scores it was fitted on.
    """

    method: Method
    scale: float = 1.0
    bias: float = 0.0
    points: tuple[tuple[float, float], ...] = ()
    fingerprint: str = ""
    template: str = ""

    def probability(self, logit: float) -> float:
        """Between 0 and 1, never falling where the raw score, a finite number, rises."""
        if self.method == "isotonic":
            return self._between(logit)
        value = self.scale * logit + self.bias
        power = math.exp(-abs(value))
        return (1.0 if value >= 0 else power) / (1.0 + power)

    def _between(self, logit: float) -> float:
        after = bisect.bisect_right(self.points, logit, key=lambda point: point[0])
        if after == 0 or after == len(self.points):
            return self.points[min(after, len(self.points) - 1)][1]
        (x0, y0), (x1, y1) = self.points[after - 1], self.points[after]
        # Rounding must not lead beyond either end.
        return min(max(y0 + (y1 - y0) * ((logit - x0) / (x1 - x0)), y0), y1)

    def applied(self, scores: Sequence[DocumentScore]) -> list[DocumentScore]:
        """The same documents with probabilities; raw scores stay as they are."""
        return [self._applied(place) for place in scores]

    def _applied(self, place: DocumentScore) -> DocumentScore:
        if place.logit is None:
            return place
        best = place.best_passage
        if best is not None:
            best = replace(best, score=self.probability(best.logit))
        return replace(place, score=self.probability(place.logit), best_passage=best)

    @classmethod
    def read(cls, file: Path) -> Self:
        """A calibration from its file.

        Raises:
            ConfigurationError: it cannot be read, or is none.
        """
        row = read_json_object(file, _MAX_BYTES)
        if row.get("format") != FORMAT:
            raise ConfigurationError(f"{file} is no calibration: `rerankd calibrate` writes them")
        try:
            return cls._of(row)
        except (TypeError, ValueError, KeyError) as error:
            raise ConfigurationError(f"the calibration {file} cannot be used: {error}") from None

    @classmethod
    def _of(cls, row: Mapping[str, Any]) -> Self:
        points = tuple((float(x), float(y)) for x, y in row.get("points", ()))
        found = cls(
            row["method"],
            float(row.get("scale", 1.0)),
            float(row.get("bias", 0.0)),
            points,
            str(row["fingerprint"]),
            str(row["template"]),
        )
        if found.method not in METHODS:
            raise ValueError("method has to be one of " + ", ".join(METHODS))
        if not (math.isfinite(found.scale) and found.scale > 0 and math.isfinite(found.bias)):
            raise ValueError("scale has to be more than 0, and bias finite")
        if found.method == "isotonic" and not _rises(points):
            raise ValueError("points have to rise, and their probabilities to lie between 0 and 1")
        return found

    def check_fits(self, fingerprint: str, template: str, where: str) -> None:
        """A calibration says nothing of another model, nor of the same one with another prompt.

        Raises:
            ConfigurationError: it was fitted on other scores.
        """
        for name, own, given in (("model", self.fingerprint, fingerprint), ("template", self.template, template)):
            if own != given:
                raise ConfigurationError(
                    f"the setting 'calibration' of {where}: the file was fitted on another {name}; "
                    "fit it again with `rerankd calibrate`"
                )

    def as_json(self) -> dict[str, Any]:
        row = {"format": FORMAT, "method": self.method, "fingerprint": self.fingerprint, "template": self.template}
        if self.method == "isotonic":
            return {**row, "points": [list(point) for point in self.points]}
        return {**row, "scale": self.scale, "bias": self.bias}


def open_calibration(file: str, fingerprint: str, template: str, where: str) -> Calibration | None:
    """The calibration that a setting names, checked; None where it names none.

    Raises:
        ConfigurationError: it cannot be read, or was fitted on other scores.
    """
    if not file:
        return None
    found = Calibration.read(Path(file))
    found.check_fits(fingerprint, template, where)
    return found


def _rises(points: Sequence[tuple[float, float]]) -> bool:
    return (
        bool(points)
        and all(math.isfinite(x) and 0 <= y <= 1 for x, y in points)
        and all(x0 < x1 and y0 <= y1 for (x0, y0), (x1, y1) in itertools.pairwise(points))
    )
