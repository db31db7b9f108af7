"""``python -m training all --data ../shared/data --out out/tiny``: from data to a model folder.

The steps can be called one by one: prepare, teach, train, export, evaluate, near-misses. Intermediate files go to
``--work``; ``teach`` and ``train`` continue an interrupted run by themselves. ``fit-teachers`` prints weights for the
recipe's mixture of teachers, ``ablate`` what each of them gives, ``held-lists`` what share of the last stage's
weights is best on held-out training queries, and ``fusion`` what weight the model should have beside BM25 there.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from training import held_lists, near_miss_eval
from training.ablation import SHORT, ablate
from training.calibrate import calibrate
from training.cloze import cloze_sources
from training.content import content_vectors, rarity
from training.data import evaluation_texts, load_sources, subset
from training.export import export
from training.fit_teachers import ALL_TEACHERS, report_fit, score_lists
from training.initialise import Shape, State
from training.model import PackedModel
from training.prepare import load_all, prepare_source, save_evaluated, save_prepared
from training.quick_eval import HEAD, Scorer, evaluate, mean_of, table_row
from training.searches import search_sources
from training.start import published_start, start_tokenizer
from training.teacher import Teachers, minilm
from training.train import (
    Recipe,
    Speed,
    mean_state,
    read_stages,
    teach,
    train_stages,
    trained,
)

SCORED_TOKENS = 512
FIT_LISTS, FIT_DEPTH = 40, 8


def prepare(options: argparse.Namespace) -> None:
    """Tokenizer, token ids, hard negatives and content vectors; prints what was removed as leaked."""
    work: Path = options.work
    if (work / "done").exists():
        return
    sources, report = load_sources(options.data)
    print(report)
    if options.subset is not None:
        sources = [subset(source, options.subset, options.seed) for source in sources]
    tokenizer = start_tokenizer(sources, work / "tokenizer.json", options.start)
    queries, passages = evaluation_texts(options.data / "eval")
    save_evaluated(queries | passages, work)
    cloze = cloze_sources(sources, options.seed, queries | passages)
    for source in [*sources, *cloze, *search_sources(sources, options.seed, queries | passages)]:
        print(f"{source.name}: {len(source.queries)} queries, {len(source.documents)} documents", flush=True)
        save_prepared(prepare_source(source, tokenizer), work / "prepared")
    if options.start is None:
        prepared = load_all(work / "prepared")
        content = content_vectors(tokenizer, prepared, minilm(), options.seed)
        np.savez(work / "content.npz", content=content, rarity=rarity(prepared, tokenizer.get_vocab_size()))
    (work / "done").touch()


def speed_of(options: argparse.Namespace) -> Speed:
    return Speed(options.bfloat16, options.fuse)


def first_stage(options: argparse.Namespace, stages: list[Recipe]) -> int:
    """A published model goes through the last stages only."""
    if options.start is None:
        return 0
    return len(stages) - 1 if options.stage is None else options.stage - 1


def fit_teachers(options: argparse.Namespace) -> None:
    sources = load_all(options.work / "prepared")
    teachers = Teachers(sources, ALL_TEACHERS, options.work / "teachers", speed_of(options).dtype)
    report_fit(score_lists(sources, teachers, FIT_LISTS, FIT_DEPTH, options.seed))


def ablate_teachers(options: argparse.Namespace) -> None:
    options.run.mkdir(parents=True, exist_ok=True)
    print(ablate(options.work, options.run / "ablation.json", SHORT, speed_of(options)))


def run_teachers(options: argparse.Namespace) -> None:
    """Scores the clusters of the stages that see the same ones again; other stages score theirs as they come."""
    stages = read_stages(options.recipe, options.seed)
    for stage in stages[first_stage(options, stages) :]:
        if stage.distinct is not None:
            teach(options.work, stage, speed_of(options))


def run_training(options: argparse.Namespace) -> None:
    stages = read_stages(options.recipe, options.seed)
    first = first_stage(options, stages)
    if not train_stages(options.work, options.run, stages, speed_of(options), options.start, first):
        raise SystemExit("stopped before the last step; the same command goes on from here")


def trained_state(options: argparse.Namespace) -> tuple[Shape, State]:
    stages = read_stages(options.recipe, options.seed)
    return trained(options.work, options.run, stages, options.start, first_stage(options, stages))


def lists_of(options: argparse.Namespace, depth: int) -> held_lists.Lists:
    return held_lists.held_lists(load_all(options.work / "prepared"), held_lists.LISTS, depth, options.seed)


def judge_shares(options: argparse.Namespace) -> None:
    """What the last stage hands on with each share of its weights, and what it started from."""
    stages = read_stages(options.recipe, options.seed)
    first = first_stage(options, stages)
    lists = lists_of(options, held_lists.DEPTH)
    tokenizer = Tokenizer.from_file(str(options.work / "tokenizer.json"))
    (shape, rest), (_, averaged) = (
        trained(options.work, options.run, [*stages[:-1], replace(stages[-1], share=share)], options.start, first)
        for share in (0.0, 1.0)
    )
    print(held_lists.table_head(lists))
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        model = PackedModel(shape, mean_state(rest, averaged, share), speed_of(options).dtype)
        print(held_lists.table_row(f"share {share:g}", model, lists, tokenizer), flush=True)


def judge_fusion(options: argparse.Namespace) -> None:
    """Of the exported folder, or of any other that ``--out`` names."""
    lists = lists_of(options, held_lists.FUSED_DEPTH)
    print(held_lists.fused_table(PackedModel(*published_start(options.out), speed_of(options).dtype), lists))


def export_folder(options: argparse.Namespace) -> None:
    shape, state = trained_state(options)
    tokenizer = options.work / "tokenizer.json"
    model = PackedModel(shape, state, speed_of(options).dtype)
    calibration = calibrate(model, load_all(options.work / "prepared"), Tokenizer.from_file(str(tokenizer)))
    print(json.dumps(asdict(calibration)))
    export(options.out, shape, state, tokenizer, calibration.scale, calibration.bias)


def evaluate_run(options: argparse.Namespace) -> None:
    shape, state = trained_state(options)
    tokenizer = Tokenizer.from_file(str(options.work / "tokenizer.json"))
    scorer = Scorer(PackedModel(shape, state, speed_of(options).dtype), tokenizer, SCORED_TOKENS)
    print(HEAD)
    figures = []
    for name, row in evaluate(scorer, options.data / "eval", options.queries, options.depth):
        print(table_row(name, row), flush=True)
        figures.append(row)
    print(table_row("mean", mean_of(figures)))


def judge_near_misses(options: argparse.Namespace) -> None:
    """Of the exported folder, or of any other that ``--out`` names."""
    print(near_miss_eval.table(near_miss_eval.judge(options.out)))


def run_all(options: argparse.Namespace) -> None:
    for step in (prepare, run_teachers, run_training, export_folder, evaluate_run, judge_near_misses):
        step(options)


COMMANDS = {
    "prepare": prepare,
    "fit-teachers": fit_teachers,
    "ablate": ablate_teachers,
    "teach": run_teachers,
    "train": run_training,
    "held-lists": judge_shares,
    "fusion": judge_fusion,
    "export": export_folder,
    "evaluate": evaluate_run,
    "near-misses": judge_near_misses,
    "all": run_all,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("out/work"))
    parser.add_argument("--run", type=Path, default=Path("out/run"))
    parser.add_argument("--out", type=Path, default=Path("out/tiny"))
    parser.add_argument("--recipe", type=Path, default=Path(__file__).with_name("recipe.json"))
    parser.add_argument(
        "--start", type=Path, help="published model folder: its tokenizer and weights go through the last stage alone"
    )
    parser.add_argument("--stage", type=int, help="with --start: the first stage to go through, counted from 1")
    parser.add_argument("--subset", type=int, help="read at most so many queries a training file")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--bfloat16", action="store_true", help="bfloat16 products: faster with AMX, or AVX-512 for them"
    )
    parser.add_argument("--fuse", action="store_true", help="compile what lies between the products")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--queries", type=int, help="evaluate on so many queries a set only")
    parser.add_argument("--depth", type=int, default=100, help="rerank so many candidates")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    COMMANDS[options.command](options)


if __name__ == "__main__":
    main()
