"""The engines side by side in one run, on the same texts and ids: what one request costs.

    python benchmarks/engine.py                          # 0.6B layout, random weights, workloads A and B
    python benchmarks/engine.py --layout small --repeat 5
    python benchmarks/engine.py --engines native:float32,usual:float32 --workloads A
    python benchmarks/engine.py --engines native:bfloat16,vllm:bfloat16,vllm-uncached:bfloat16,openvino:int8
    python benchmarks/engine.py --workloads 1x77+33,10x77+33,100x77+33,1000x77+33 --engines native:bfloat16

Each engine has a process of its own, under the Python that has it (``benchmarks/rivals/install.sh`` makes them). They
take turns, so that whatever else the machine does falls on all of them; the others stand still meanwhile. Each turn
is another request of the same lengths, so that no cache helps; each row is its engine's best turn.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

# Run as a file, Python looks beside the file alone.
sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.checkpoints import LAYOUTS, Layout, write_checkpoint
from benchmarks.machine import command, machine, print_table
from benchmarks.peak import peaks
from benchmarks.processes import RIVALS, ROOT, EngineProcess, Scored
from benchmarks.work import work
from benchmarks.workloads import WORKLOADS, Request, Texts, Workload

_TOKENIZER = ROOT.parent / "shared" / "tokenizer" / "qwen3"
ENGINES = "native:float32,native:bfloat16,native:int8,usual:float32,usual:bfloat16"
_ENVIRONMENTS = {"vllm": "vllm", "vllm-uncached": "vllm", "openvino": "openvino"}
_MOST_PAIR_TOKENS = 8192
_LEAST_PAIR_TOKENS = 1024


@dataclass
class Turns:
    """What was measured of one engine on one workload; ``void`` says why its row does not count."""

    scored: list[Scored] = field(default_factory=list)
    void: str = ""

    @property
    def best(self) -> Scored:
        return min(self.scored, key=lambda one: one.seconds)


def main() -> None:
    arguments = _arguments()
    layout = LAYOUTS[arguments.layout]
    folder = checkpoint(arguments.checkpoint or ROOT / "out" / "bench" / arguments.layout, layout)
    texts = Texts(folder / "tokenizer.json")
    workloads = {name: WORKLOADS.get(name) or _parse(name) for name in arguments.workloads.split(",")}
    longest = max(workload.prefix + workload.tail for workload in workloads.values())
    where = machine()
    print(json.dumps(where, indent=2), flush=True)
    with contextlib.ExitStack() as stack:
        engines = start(arguments.engines.split(","), folder, texts, _overrides(arguments.python), arguments.threads,
                        longest, stack)  # fmt: skip
        ceiling = {} if arguments.no_peak else peaks(arguments.threads)
        results = []
        for name, workload in workloads.items():
            requests = [texts.request(workload, number) for number in range(arguments.repeat)]
            turns = take_turns(engines, requests)
            results.append(_result(name, workload, turns, engines, layout, ceiling))
            print_table(f"{name}: {workload}, {arguments.layout} layout", shown(results[-1]["rows"]))
    if ceiling:
        print_table("The library's own matrix products", peak_rows(ceiling))
    record = {
        "kind": "engine",
        "machine": where,
        "command": command(),
        "layout": arguments.layout,
        "peaks": ceiling,
        "results": results,
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layout", choices=sorted(LAYOUTS), default="0.6B")
    parser.add_argument("--checkpoint", type=Path, help="a folder to use, or to write random weights to")
    parser.add_argument("--engines", default=ENGINES, help="engine:dtype, separated by commas")
    parser.add_argument("--python", action="append", default=[], metavar="ENGINE=PATH", help="an engine's Python")
    parser.add_argument("--workloads", default="A,B", help=f"of {', '.join(WORKLOADS)}, or DOCUMENTSxPREFIX+TAIL")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--no-peak", action="store_true", help="do not measure the machine's own products")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser.parse_args()


def _parse(name: str) -> Workload:
    documents, _, lengths = name.partition("x")
    prefix, _, tail = lengths.partition("+")
    return Workload(int(documents), int(prefix), int(tail))


def _overrides(given: Sequence[str]) -> dict[str, Path]:
    return {name: Path(path) for name, _, path in (one.partition("=") for one in given)}


def checkpoint(place: Path, layout: Layout) -> Path:
    """The folder, with random weights of this layout unless it has some, and a tokenizer."""
    if not (place / "config.json").is_file():
        write_checkpoint(place, layout, dtype=torch.bfloat16)
    if _TOKENIZER.is_dir() and not (place / "tokenizer.json").is_file():
        for file in _TOKENIZER.glob("*.json"):
            shutil.copyfile(file, place / file.name)
    if not (place / "tokenizer.json").is_file():
        sys.exit(f"put the tokenizer.json of a Qwen3 model into {place}: its texts are made of that vocabulary")
    return place


def start(
    names: Sequence[str],
    folder: Path,
    texts: Texts,
    pythons: Mapping[str, Path],
    threads: int,
    longest: int,
    stack: contextlib.ExitStack,
) -> dict[str, EngineProcess | str]:
    """The engines' processes by name, or why there is none."""
    engines: dict[str, EngineProcess | str] = {}
    for name in names:
        kind, _, dtype = name.partition(":")
        environment = _ENVIRONMENTS.get(kind)
        usual = RIVALS / environment / "bin" / "python" if environment else Path(sys.executable)
        options = {
            "engine": kind,
            "dtype": dtype,
            "folder": str(folder.absolute()),
            "positive": texts.head.positive,
            "negative": texts.head.negative,
            "threads": threads,
            "max_pair_tokens": max(_LEAST_PAIR_TOKENS, min(longest, _MOST_PAIR_TOKENS)),
        }
        try:
            engine = stack.enter_context(EngineProcess(pythons.get(kind, usual), options))
        except (OSError, RuntimeError) as error:
            engines[name] = str(error)
            print(f"{name}: {error}", flush=True)
        else:
            engines[name] = engine
            print(f"{name}: loaded in {engine.load_seconds:.1f} s; {engine.details}", flush=True)
    return engines


def take_turns(engines: Mapping[str, EngineProcess | str], requests: Sequence[Request]) -> dict[str, Turns]:
    """Every engine on every request; an engine that fails or reads other tokens is out."""
    turns = {name: Turns(void=engine if isinstance(engine, str) else "") for name, engine in engines.items()}
    for request in requests:
        message = _message(request)
        wanted = request.batch().pairs * len(request.prefix) + sum(map(len, request.tails))
        for name, engine in engines.items():
            if isinstance(engine, str) or turns[name].void:
                continue
            try:
                scored = engine.score(message)
            except (OSError, RuntimeError) as error:
                turns[name].void = str(error)
                continue
            turns[name].scored.append(scored)
            if scored.tokens != wanted:
                turns[name].void = f"it reads {scored.tokens} tokens instead of {wanted}"
    return turns


def _message(request: Request) -> dict[str, Any]:
    return {
        "query": request.query,
        "documents": list(request.documents),
        "instruction": request.instruction,
        "prefix": request.prefix.tolist(),
        "tails": [tail.tolist() for tail in request.tails],
    }


def _result(
    name: str,
    workload: Workload,
    turns: Mapping[str, Turns],
    engines: Mapping[str, EngineProcess | str],
    layout: Layout,
    ceiling: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    truth = next((turn for turn in turns.values() if not turn.void), Turns())
    rows = []
    for engine, turn in turns.items():
        process = engines[engine]
        row: dict[str, Any] = {"engine": engine, "void": turn.void}
        if not turn.void and isinstance(process, EngineProcess):
            rate = work(workload, layout) / turn.best.seconds / 1e9
            peak = ceiling.get(engine.partition(":")[2])
            row |= {
                "details": process.details,
                "load_seconds": process.load_seconds,
                "seconds": [one.seconds for one in turn.scored],
                "processor_seconds": [one.processor_seconds for one in turn.scored],
                "gflops": rate,
                "share_of_peak": rate / float(peak["rate"]) if peak else None,
                "idle_mb": process.idle_mb,
                "peak_mb_over_idle": max(one.peak_mb for one in turn.scored) - process.idle_mb,
                "max_difference": _difference(turn, truth),
            }
        rows.append(row)
    lengths = {"documents": workload.documents, "prefix": workload.prefix, "tail": workload.tail}
    return {"workload": name, **lengths, "tokens": workload.tokens, "rows": rows}


def _difference(turn: Turns, truth: Turns) -> float:
    pairs = zip(turn.scored, truth.scored, strict=True)
    return max(float(np.abs(np.subtract(ours.probabilities, theirs.probabilities)).max()) for ours, theirs in pairs)


def shown(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, object]]:
    """The rows as a page shows them; a void row keeps its reason and no figure."""
    counted = [row for row in rows if not row["void"]]
    slowest = max((min(row["seconds"]) for row in counted), default=0.0)
    table = []
    for row in rows:
        if row["void"]:
            figures: list[str] = [f"void: {row['void']}"] + [""] * 6
        else:
            share = row["share_of_peak"]
            figures = [
                f"{min(row['seconds']):.2f}",
                f"{slowest / min(row['seconds']):.2f}",
                f"{min(row['processor_seconds']):.1f}",
                f"{row['gflops']:.0f}",
                "" if share is None else f"{share:.0%}",
                f"{row['peak_mb_over_idle']:.0f}",
                f"{row['max_difference']:.1e}",
            ]
        columns = ("seconds", "times the slowest", "processor seconds", "GFLOP/s", "share of peak",
                   "peak MB over idle", "max difference of p")  # fmt: skip
        table.append({"engine": row["engine"], **dict(zip(columns, figures, strict=True))})
    return table


def peak_rows(ceiling: Mapping[str, Mapping[str, Any]]) -> list[dict[str, object]]:
    return [
        {"format": name, "GFLOP/s": f"{found['rate']:.0f}", "product": found["product"]}
        for name, found in ceiling.items()
    ]


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
