"""How a model folder does on `near_misses.jsonl`: pairs of documents that differ in the one word that matters.

Written by hand for this purpose. Training removes whatever equals one of its texts, as with the evaluation sets.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from training.data import NEAR_MISSES, read_json_lines
from training.model import PackedModel
from training.quick_eval import Scorer
from training.start import published_start

TOKENS = 512


@dataclass(frozen=True)
class Judged:
    """One pair: probability of the right and of the wrong document."""

    language: str
    kind: str
    right: float
    wrong: float

    @property
    def in_order(self) -> bool:
        return self.right > self.wrong

    @property
    def on_both_sides(self) -> bool:
        return self.right > 0.5 > self.wrong


def judge(folder: Path, rows: Path = NEAR_MISSES) -> list[Judged]:
    shape, state = published_start(folder)
    template = json.loads((folder / "template.json").read_text(encoding="utf-8"))
    scorer = Scorer(PackedModel(shape, state), Tokenizer.from_file(str(folder / "tokenizer.json")), TOKENS)
    found = []
    for row in read_json_lines(rows):
        logits = template["scale"] * scorer(row["query"], [row["right"], row["wrong"]]) + template["bias"]
        right, wrong = (1 / (1 + np.exp(-logits))).tolist()
        found.append(Judged(row["language"], row["kind"], right, wrong))
    return found


def table_line(name: str, pairs: list[Judged]) -> str:
    order = np.mean([pair.in_order for pair in pairs])
    sides = np.mean([pair.on_both_sides for pair in pairs])
    right, wrong = np.mean([[pair.right, pair.wrong] for pair in pairs], axis=0)
    return f"| {name} | {len(pairs)} | {order:.1%} | {sides:.1%} | {right:.2f} | {wrong:.2f} |"


def table(judged: list[Judged]) -> str:
    """By language, by kind and of all: share in order, share on both sides of one half, mean probabilities."""
    lines = [
        "| near misses | pairs | in order | both sides of 1/2 | right | wrong |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for language in dict.fromkeys(pair.language for pair in judged):
        lines.append(table_line(language, [pair for pair in judged if pair.language == language]))
    for kind in dict.fromkeys(pair.kind for pair in judged):
        lines.append(table_line(kind, [pair for pair in judged if pair.kind == kind]))
    return "\n".join([*lines, table_line("all", judged)])
