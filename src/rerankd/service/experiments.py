"""Requests that are part of an experiment: their arms, their answers, and what is kept of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rerankd.errors import InvalidRequest, NotFound, ServiceError
from rerankd.experiments.analysis import INTERLEAVED
from rerankd.experiments.assignment import Assignment, Controls, assign, coin_of, unit_of
from rerankd.experiments.setup import Experiment, experiments_of
from rerankd.experiments.store import Agreement, Answer, Feedback, FeedbackStore
from rerankd.observe.metrics import Metrics
from rerankd.service.interleaved import interleaved
from rerankd.service.models import ServedModels
from rerankd.service.shadows import Rank, Shadow, Shadows
from rerankd.settings import ArmSettings, Settings
from rerankd.types import CallContext, ExperimentReport, LongDocuments, RerankRequest, RerankResult

MAX_PINS = 1000
"""Keys of one experiment that an operator gives an arm."""
_FIRST = 10


@dataclass(frozen=True, slots=True)
class _Plan:
    """What becomes of one request: the requests that are put in its place, one for each arm that answers it."""

    request: RerankRequest
    asked: tuple[RerankRequest, ...]
    experiment: Experiment | None = None
    key: str = ""
    assignment: Assignment | None = None


def no_experiments() -> NotFound:
    """The answer of a server without any."""
    return NotFound("this server has no experiments, and keeps no answers", setting="experiments")


class Experiments:
    """The experiments of the settings as they stand, and what is kept of them.

    Raises:
        ConfigurationError: an experiment makes no sense, or the store of feedback cannot be opened.
    """

    def __init__(self, settings: Settings, metrics: Metrics, served: Sequence[str]) -> None:
        self._by_model = experiments_of(settings, served)
        self._by_name = {experiment.name: experiment for experiment in self._by_model.values()}
        self._controls = self._first_controls()
        self._metrics = metrics
        self._keys_name_callers = bool(settings.api_keys.strip() or settings.api_keys_file)
        self._loop = asyncio.get_running_loop()
        self._store = FeedbackStore(settings.feedback_store, settings.feedback_days, self._hear_of_controls)
        self._shadows = Shadows(metrics, self._keep)

    def _first_controls(self) -> dict[str, Controls]:
        return {name: Controls(experiment.traffic) for name, experiment in self._by_name.items()}

    async def close(self) -> None:
        await self._shadows.close()
        await self._store.close()

    async def rerank(
        self, rank: Rank, models: ServedModels, requests: Sequence[RerankRequest], context: CallContext
    ) -> list[RerankResult | ServiceError]:
        """One result a request, in order, those of an experiment by their arms.

        Args:
            rank: scores requests by the arms that they were put in.
        """
        with self._shadows.call():
            started = time.monotonic()
            plans = [self._plan(models, request, context) for request in requests]
            results = iter(await rank([request for plan in plans for request in plan.asked], context))
            answers = [self._merged(plan, [next(results) for _ in plan.asked]) for plan in plans]
            seconds = time.monotonic() - started
            return [
                self._told(plan, answer, context, seconds, rank) for plan, answer in zip(plans, answers, strict=True)
            ]

    async def give_feedback(self, feedback: Feedback) -> None:
        """Keep what a user did with an answer; when this returns it is on the disk.

        Raises:
            NotFound: there is no such answer of this caller.
            InvalidRequest: a document is not among those of the answer.
            Overloaded: too much waits for the disk.
        """
        await self._store.give(replace(feedback, caller=self._caller(feedback.caller)))

    def state(self) -> list[dict[str, object]]:
        """Every experiment as it stands, for an operator."""
        return [
            {
                "name": name,
                "model": experiment.model,
                "method": experiment.method,
                "assign_by": experiment.assign_by,
                "weights": dict(experiment.weights),
                "shadows": list(experiment.shadows),
                "traffic": self._controls[name].traffic,
                "stopped": self._controls[name].stopped,
                "pins": dict(self._controls[name].pins),
            }
            for name, experiment in self._by_name.items()
        ]

    async def control(
        self, name: str, traffic: float | None, stopped: bool | None, pins: Mapping[str, str | None]
    ) -> None:
        """Change what an operator may change; what is None stays, a pin to None is taken away.

        Raises:
            NotFound: there is no such experiment.
            InvalidRequest: it has no such arm, or too many keys are pinned.
        """
        experiment = self._by_name.get(name)
        if experiment is None:
            raise NotFound(f"there is no such experiment; there is {', '.join(self._by_name)}", param="name")
        arms = set(experiment.weights)
        if any(arm is not None and arm not in arms for arm in pins.values()):
            raise InvalidRequest(f"pins have to name one of {', '.join(sorted(arms))}", param="pins")
        old = self._controls[name]
        merged = {key: arm for key, arm in {**old.pins, **pins}.items() if arm is not None}
        if len(merged) > MAX_PINS:
            raise InvalidRequest(f"{len(merged)} keys would be pinned, the limit is {MAX_PINS}", param="pins")
        controls = Controls(
            old.traffic if traffic is None else traffic, old.stopped if stopped is None else stopped, merged
        )
        await self._store.control(name, controls)
        self._controls[name] = controls

    def _hear_of_controls(self, controls: Mapping[str, Controls]) -> None:
        """Another process that shares the file may have changed them. On the store's thread."""
        self._loop.call_soon_threadsafe(self._take_controls, controls)

    def _take_controls(self, controls: Mapping[str, Controls]) -> None:
        self._controls = self._first_controls()
        self._controls |= {name: found for name, found in controls.items() if name in self._by_name}

    def _caller(self, tenant: str) -> str:
        """Whose answer it is. Without keys a caller is an address, and an application has several."""
        return tenant if self._keys_name_callers else ""

    def _plan(self, models: ServedModels, request: RerankRequest, context: CallContext) -> _Plan:
        try:
            experiment = self._by_model.get(models.choose(request, context).name)
        except ServiceError:
            experiment = None
        if experiment is None:
            return _Plan(request, (request,))
        fallback = context.tenant if experiment.assign_by == "caller" else request.query
        key = context.experiment_key or request.user or fallback
        found = assign(experiment.name, experiment.weights, key, self._controls[experiment.name])
        if found is None:
            return _Plan(request, (request,))
        if experiment.method == "interleave" and not found.pinned:
            asked = tuple(_for_arm(request, experiment, arm) for arm in experiment.weights)
        else:
            asked = (_for_arm(request, experiment, found.arm),)
        return _Plan(request, asked, experiment, key, found)

    def _merged(self, plan: _Plan, results: Sequence[RerankResult | ServiceError]) -> RerankResult | ServiceError:
        """The answer of the arm, or of two; where one of two has none, the other's alone."""
        good = [result for result in results if isinstance(result, RerankResult)]
        if plan.experiment is None or not good or plan.assignment is None:
            return results[0]
        name = plan.experiment.name
        if len(good) == 2:
            first, second = plan.experiment.weights
            coin = coin_of(name, plan.key, plan.request.query)
            whole = interleaved((good[0], good[1]), (first, second), coin, plan.request.top_n)
            return replace(whole, experiment=ExperimentReport(name, f"{first}{INTERLEAVED}{second}"))
        if len(results) == 2:
            return good[0]
        return replace(good[0], experiment=ExperimentReport(name, plan.assignment.arm, pinned=plan.assignment.pinned))

    def _told(
        self, plan: _Plan, answer: RerankResult | ServiceError, context: CallContext, seconds: float, rank: Rank
    ) -> RerankResult | ServiceError:
        """The same answer, once header, metrics, store and shadows know of it."""
        if isinstance(answer, ServiceError) or answer.experiment is None or plan.experiment is None:
            return answer
        report, experiment = answer.experiment, plan.experiment
        header = (b"x-experiment", f"{report.name}={report.arm}".encode("ascii"))
        if header not in context.response_headers:
            context.response_headers.append(header)
        self._measure(report, answer, seconds)
        is_kept = self._store.add(
            Answer(
                answer_id=answer.id,
                request_id=context.request_id,
                caller=self._caller(context.tenant),
                experiment=report.name,
                arm=report.arm,
                unit=unit_of(report.name, plan.key),
                pinned=report.pinned,
                seconds=seconds,
                documents=len(answer.scores),
                score=answer.ranked[0].score if answer.ranked else None,
                ranked=[place.index for place in answer.ranked],
                teams=[place.team or "" for place in answer.ranked] if INTERLEAVED in report.arm else None,
            )
        )
        if not is_kept:
            self._metrics.experiment_lost.inc()
        for arm in experiment.shadows:
            request = _for_arm(plan.request, experiment, arm)
            self._shadows.add(Shadow.of((report.name, arm), report.arm, request, answer, rank))
        return answer

    def _measure(self, report: ExperimentReport, answer: RerankResult, seconds: float) -> None:
        labels = (report.name, report.arm)
        self._metrics.experiment_seconds.labels(*labels).observe(seconds)
        first = answer.ranked[:_FIRST]
        if first and first[0].score is not None:
            self._metrics.experiment_score.labels(*labels).observe(first[0].score)
            moved = sum(abs(place.index - rank) for rank, place in enumerate(first)) / len(first)
            self._metrics.experiment_rank_change.labels(*labels).observe(moved)

    def _keep(self, agreement: Agreement) -> None:
        if not self._store.add(agreement):
            self._metrics.experiment_lost.inc()


def _for_arm(request: RerankRequest, experiment: Experiment, arm: str) -> RerankRequest:
    """The request with what the arm puts in the place of what it says."""
    rule: ArmSettings = experiment.arms[arm]
    request = replace(request, arm=(experiment.name, arm), model=None)
    if rule.instruction:
        request = replace(request, instruction=rule.instruction)
    if rule.long_documents:
        mode = rule.long_documents
        request = replace(request, long_documents=LongDocuments(mode=mode), truncate=None)  # type: ignore[arg-type]
    return request
