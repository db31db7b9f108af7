"""``python -m training all --data ../shared/data --out out/tiny``: from data to a model folder.

The steps can be called one by one: prepare, train, export, evaluate. Intermediate files go to ``--work``; ``train``
continues an interrupted run by itself.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from training.calibrate import calibrate
from training.cloze import cloze_sources
from training.content import content_vectors, rarity
from training.data import evaluation_texts, load_sources
from training.export import export
from training.initialise import Shape, State
from training.model import PackedModel
from training.prepare import load_all, prepare_source, save_prepared
from training.quick_eval import HEAD, Scorer, evaluate, mean_of, table_row
from training.teacher import Teacher
from training.tokenizer import train_tokenizer
from training.train import Speed, load_start, read_stages, train_stages

SCORED_TOKENS = 512


def prepare(options: argparse.Namespace) -> None:
    """Tokenizer, token ids, hard negatives and content vectors; prints what was removed as leaked."""
    work: Path = options.work
    if (work / "content.npz").exists():
        return
    sources, report = load_sources(options.data)
    print(report)
    tokenizer = train_tokenizer(sources, work / "tokenizer.json")
    queries, passages = evaluation_texts(options.data / "eval")
    for source in sources + cloze_sources(sources, options.seed, queries | passages):
        print(f"{source.name}: {len(source.queries)} queries, {len(source.documents)} documents", flush=True)
        save_prepared(prepare_source(source, tokenizer), work / "prepared")
    prepared = load_all(work / "prepared")
    content = content_vectors(tokenizer, prepared, Teacher(), options.seed)
    rare = rarity(prepared, tokenizer.get_vocab_size())
    np.savez(work / "content.npz", content=content, rarity=rare)


def speed_of(options: argparse.Namespace) -> Speed:
    return Speed(options.bfloat16, options.fuse)


def run_training(options: argparse.Namespace) -> None:
    stages = read_stages(options.recipe, options.seed)
    if not train_stages(options.work, options.run, stages, speed_of(options), options.start):
        raise SystemExit("stopped before the last step; the same command goes on from here")


def trained_state(options: argparse.Namespace) -> tuple[Shape, State]:
    """The averaged weights of the last stage's checkpoint, or the compiled start where nothing was trained."""
    shape, state = load_start(options.work, options.seed)
    for checkpoint in sorted(options.run.glob("stage*/checkpoint.pt"))[-1:]:
        state = torch.load(checkpoint, weights_only=True)["averaged"]
    return shape, state


def export_folder(options: argparse.Namespace) -> None:
    shape, state = trained_state(options)
    calibration = calibrate(PackedModel(shape, state, speed_of(options).dtype), load_all(options.work / "prepared"))
    print(json.dumps(asdict(calibration)))
    export(options.out, shape, state, options.work / "tokenizer.json", calibration.scale, calibration.bias)


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


def run_all(options: argparse.Namespace) -> None:
    for step in (prepare, run_training, export_folder, evaluate_run):
        step(options)


COMMANDS = {
    "prepare": prepare,
    "train": run_training,
    "export": export_folder,
    "evaluate": evaluate_run,
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
    parser.add_argument("--start", type=Path, help="checkpoint of another run to begin from")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bfloat16", action="store_true", help="bfloat16 products: faster where the CPU has AMX")
    parser.add_argument("--fuse", action="store_true", help="compile what lies between the products")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--queries", type=int, help="evaluate on so many queries a set only")
    parser.add_argument("--depth", type=int, default=100, help="rerank so many candidates")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    COMMANDS[options.command](options)


if __name__ == "__main__":
    main()
