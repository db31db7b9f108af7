"""What each teacher gives: short runs from one start over the same clusters, in which only the mixture differs.

A run is judged by nDCG@10 on lists that BM25 made of held-out training queries, the same lists for all runs. Part of
the mixture is left out at a time, and what remains keeps its weights; ``none`` has no teachers at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rerankd.evaluate.statistics import mean_difference
from training.held_lists import DEPTH, LISTS, Figures, Lists, figures_of, held_lists, judged
from training.initialise import Shape, State
from training.model import PackedModel
from training.prepare import load_all
from training.start import load_start
from training.teacher import BM25, Mixture, Scores, Teachers
from training.train import Recipe, Speed, Trainer, teach

LATIN = {"minilm.cosine": 5.0, "minilm.maxsim": 8.0, "e5.cosine": 20.0, "e5.maxsim": 30.0}
# Every teacher's part spreads the documents of a list by 1.2 to 2.7, so that none of them drowns the others.
MIXTURE: Mixture = {
    "en": LATIN | {BM25: 0.3},
    "code": LATIN | {BM25: 0.5},
    "zh": {"e5.cosine": 40.0, "e5.maxsim": 60.0, BM25: 0.08},
}
SHORT = Recipe(
    steps=240,
    clusters=1,
    distinct=160,
    queries=8,
    documents=12,
    warm_up=30,
    decay=0.6,
    average=0.98,
    long_tokens=256,
    long_share=0.1,
    surrounded_share=0.0,
    teachers=MIXTURE,
)
ALL, NONE, START = "all", "none", "the start itself"
LEFT_OUT = ("minilm", "e5", BM25)
SEEDS = (1, 2)


def without(mixture: Mixture, part: str) -> Mixture:
    """What is left without a teacher, or without one of the scores that every encoder has."""
    return {
        kind: {name: weight for name, weight in weights.items() if part not in name.split(".")}
        for kind, weights in mixture.items()
    }


def variants(recipe: Recipe) -> dict[str, Recipe]:
    """The runs to compare, by name."""
    left = {f"without {part}": replace(recipe, teachers=without(recipe.teachers, part)) for part in LEFT_OUT}
    return {ALL: recipe, **left, NONE: replace(recipe, distil=0.0)}


def teachers_figures(teachers: Teachers, lists: Lists) -> tuple[dict[str, Figures], dict[str, dict[str, float]]]:
    """nDCG@10 of the mixture, of what is left of it, of each teacher and of each score; and by kind their spread.

    The spread is the mean standard deviation within a list of a part of the mixture.
    """
    found: dict[str, Figures] = {}
    spread: dict[str, dict[str, float]] = {}
    for kind, rows in lists.items():
        weights = teachers.mixture[kind]
        present = list(dict.fromkeys(name.split(".")[0] for name in weights))
        parts = {name: [score for score in weights if name in score.split(".")] for name in present}
        left = {
            f"without {part}": list(without(teachers.mixture, part)[kind]) for part in present if len(present) > 1
        }
        choices = {ALL: list(weights)} | left | parts | {name: [name] for name in weights}
        deviations: dict[str, list[float]] = {name: [] for name in choices}
        for row in rows:
            scores = teachers.scores(row.source, np.array([row.query]), row.documents)
            for name, chosen in choices.items():
                mixed: Scores = np.sum([weights[score] * scores[score][0] for score in chosen], axis=0)
                found.setdefault(name, {}).setdefault(kind, []).append(judged(mixed, row.relevant))
                deviations[name].append(float(mixed.std()))
        spread[kind] = {name: float(np.mean(values)) for name, values in deviations.items()}
    return found, spread


def trained_short(trainer: Trainer) -> State:
    """The averaged weights after all steps."""
    while trainer.step < trainer.recipe.steps:
        trainer.train_step()
    return trainer.averaged


def ablate(work: Path, out: Path, recipe: Recipe, speed: Speed, seeds: Sequence[int] = SEEDS) -> str:
    """Trains and judges what is not in ``out`` yet, which is written after every run. Returns the tables of all."""
    sources = load_all(work / "prepared")
    lists = held_lists(sources, LISTS, DEPTH, seeds[0])
    for seed in seeds:
        teach(work, replace(recipe, seed=seed), speed)
    saved = json.loads(out.read_text()) if out.exists() else {"recipe": asdict(recipe), "runs": {}}
    runs: dict[str, dict[str, Figures]] = saved["runs"]
    shape, state = load_start(work, seeds[0], None)
    if START not in runs:
        runs[START] = dict.fromkeys(map(str, seeds), _judge(shape, state, lists, recipe, speed))
    for name, variant in variants(recipe).items():
        for seed in seeds:
            if str(seed) in runs.setdefault(name, {}):
                continue
            trainer = Trainer(replace(variant, seed=seed), shape, state, sources, work, speed)
            runs[name][str(seed)] = _judge(shape, trained_short(trainer), lists, recipe, speed)
            out.write_text(json.dumps(saved))
            means = {kind: round(float(np.mean(row)), 4) for kind, row in runs[name][str(seed)].items()}
            print(name, seed, means, flush=True)
    alone, spread = teachers_figures(Teachers(sources, recipe.teachers, work / "teachers", speed.dtype), lists)
    out.write_text(json.dumps(saved | {"teachers": alone, "spread": spread}))
    return "\n\n".join(["\n".join(teachers_rows(alone, spread)), "\n".join(rows_of(runs))])


def _judge(shape: Shape, state: State, lists: Lists, recipe: Recipe, speed: Speed) -> Figures:
    return figures_of(PackedModel(shape, state, speed.dtype), lists, recipe.document_tokens)


def teachers_rows(alone: dict[str, Figures], spread: dict[str, dict[str, float]]) -> Iterator[str]:
    """Of the teachers themselves: nDCG@10 and, in brackets, the spread."""
    kinds = list(spread)
    yield f"| teacher | {' | '.join(kinds)} |"
    yield "| --- " * (1 + len(kinds)) + "|"
    for name, figures in alone.items():
        cells = [
            f"{np.mean(figures[kind]):.3f} ({spread[kind][name]:.1f})" if kind in figures else "" for kind in kinds
        ]
        yield f"| {name} | {' | '.join(cells)} |"


def rows_of(runs: dict[str, dict[str, Figures]]) -> Iterator[str]:
    """nDCG@10 of `ALL`; of the others the difference from it, each seed's, and the mean of all with its interval.

    A list's difference is the mean over seeds; lists are resampled within their kind.
    """
    kinds, seeds = list(next(iter(runs[ALL].values()))), list(runs[ALL])
    yield f"| teachers | {' | '.join([*kinds, 'mean'])} |"
    yield "| --- " * (2 + len(kinds)) + "|"
    means = [np.mean([np.mean(runs[ALL][seed][kind]) for seed in seeds]) for kind in kinds]
    yield f"| {ALL} | {' | '.join(f'{value:.3f}' for value in [*means, np.mean(means)])} |"
    for name, by_seed in runs.items():
        if name == ALL or len(by_seed) < len(seeds):
            continue
        gains = [
            np.array([np.subtract(by_seed[seed][kind], runs[ALL][seed][kind]) for seed in seeds]) for kind in kinds
        ]
        yield f"| {name} | {' | '.join([*(cell([gain]) for gain in gains), cell(gains)])} |"


def cell(gains: list[NDArray[np.float64]]) -> str:
    """Of one kind or the mean of several, each (seeds, lists)."""
    found = mean_difference([gain.mean(axis=0) for gain in gains])
    each = ", ".join(f"{value:+.3f}" for value in np.mean([gain.mean(axis=1) for gain in gains], axis=0))
    return f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}] ({each})"
