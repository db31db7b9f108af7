"""Experiments from the settings, checked: each with the arms that answer and those that are shadows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rerankd.errors import ConfigurationError
from rerankd.settings import ArmSettings, ExperimentSettings, Settings

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
"""Names stand in headers and metrics."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """One experiment of the settings.

    Attributes:
        model: the served name whose requests take part.
        weights: of the arms that answer, the control first.
        shadows: the arms that do not.
        traffic: share of the keys that take part, until an operator says otherwise.
    """

    name: str
    model: str
    method: str
    assign_by: str
    traffic: float
    arms: Mapping[str, ArmSettings]

    @property
    def weights(self) -> dict[str, float]:
        return {name: arm.weight for name, arm in self.arms.items() if not arm.shadow}

    @property
    def shadows(self) -> tuple[str, ...]:
        return tuple(name for name, arm in self.arms.items() if arm.shadow)


def experiments_of(settings: Settings, served: Sequence[str]) -> dict[str, Experiment]:
    """The experiment of each served name that has one.

    Args:
        served: all served names, the default first.

    Raises:
        ConfigurationError: an experiment makes no sense; the message says which and why.
    """
    found: dict[str, Experiment] = {}
    for name, rule in settings.experiments.items():
        experiment = Experiment(
            name, rule.model or served[0], rule.method, rule.assign_by, rule.traffic, dict(rule.arms)
        )
        if (wrong := _wrong(experiment, rule, served)) is not None:
            raise ConfigurationError(f"the experiment {name[:80]!r}: {wrong}")
        if experiment.model in found:
            raise ConfigurationError(
                f"the experiments {found[experiment.model].name} and {name} both have the requests of "
                f"{experiment.model}: one at a time, or give each a served name"
            )
        found[experiment.model] = experiment
    return found


def _wrong(experiment: Experiment, rule: ExperimentSettings, served: Sequence[str]) -> str | None:
    """What is wrong with it, in words; None where nothing is."""
    for name in (experiment.name, *rule.arms):
        if not _NAME.fullmatch(name):
            return f"{name[:80]!r} has to be a name of letters, digits, '_', '-' and '.', at most 64"
    if experiment.model not in served:
        return f"'model' has to be one of {', '.join(served)}"
    weights = experiment.weights
    if not any(weights.values()):
        return "an arm has to answer, with a weight above 0: [experiments.NAME.arms.ARM]"
    if experiment.method == "interleave" and len(weights) != 2:
        return f"'interleave' takes two arms that answer, and there are {len(weights)}"
    return None
