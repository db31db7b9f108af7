"""The engines side by side in one run, on the same texts and ids: what one request costs.

    python benchmarks/engine.py                          # 0.6B layout, random weights, workloads A and B
    python benchmarks/engine.py --layout small --repeat 5
    python benchmarks/engine.py --engines native:float32,usual:float32 --workloads A
    python benchmarks/engine.py --engines native:bfloat16,vllm:bfloat16,vllm-uncached:bfloat16,openvino:int8
    python benchmarks/engine.py --workloads 1x77+33,10x77+33,100x77+33,1000x77+33 --engines native:bfloat16
    python benchmarks/engine.py --workloads 1x77+158 --engines native:bfloat16,native-uncached:bfloat16 --repeat 6
    python benchmarks/engine.py --checkout before=../rerankd-1.2 --engines before:float32,native:float32
    python benchmarks/engine.py --wheel wheel=dist/rerankd-1.4-py3-none-manylinux_2_17_x86_64.whl \\
        --engines native:float32,wheel:float32

Each engine has a process of its own, under the Python that has it (``benchmarks/rivals/install.sh`` makes them). One
is in memory at a time; they take turns, so that whatever else the machine does falls on all of them. In each of its
turns an engine is loaded, warmed with one small request and given ``--repeat`` requests of each workload. No two
requests have the same words, but all have the same template and instruction: an engine that keeps those from earlier
requests saves up to 58 tokens a request, its ``-uncached`` kind computes them. A row is its engine's quickest request
of all rounds.

A comparison that takes hours can be made in pieces: with ``--turns FILE`` every turn is written to that file when it
is over, and a run that finds turns there goes on from them. It can be stopped at any time and given again as it was,
with more ``--rounds``, or with other ``--engines``, two at a time; the tables have all engines of the file.

A ``--wheel`` is installed into an environment of its own and runs where no compiler is found.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

# Run as a file, Python looks beside the file alone.
sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.checkpoints import LAYOUTS, Layout, write_checkpoint

from benchmarks.engine_process import RIVALS, ROOT, EngineProcess
from benchmarks.flops import request_flops
from benchmarks.machine import command, machine, print_table
from benchmarks.matmul_peak import peaks
from benchmarks.turn_log import TurnLog, Turns
from benchmarks.wheel_environment import install_wheel
from benchmarks.workloads import WORKLOADS, Request, Texts, Workload

_TOKENIZER = ROOT.parent / "shared" / "tokenizer" / "qwen3"
ENGINES = "native:float32,native:bfloat16,native:int8,usual:float32,usual:bfloat16"
_ENVIRONMENTS = {"vllm": "vllm", "vllm-uncached": "vllm", "openvino": "openvino"}
_MOST_PAIR_TOKENS = 8192
_LEAST_PAIR_TOKENS = 1024


_WARM = Workload(4, 77, 33)

Results = dict[str, dict[str, Turns]]
"""By workload and engine."""


@dataclass(frozen=True, slots=True)
class Setting:
    """All that the engines of one run share."""

    folder: Path
    texts: Texts
    longest: int
    threads: int = 0
    pythons: Mapping[str, Path] = field(default_factory=dict)
    checkouts: Mapping[str, Path] = field(default_factory=dict)
    """Native engines of other checkouts, by the name that stands for them."""
    wheels: Mapping[str, Path] = field(default_factory=dict)
    """Pythons with native engines of installed wheels, likewise."""

    def start(self, name: str) -> EngineProcess:
        """The engine, loaded.

        Raises:
            OSError: it is not installed.
            RuntimeError: it cannot be loaded.
        """
        kind, _, dtype = name.partition(":")
        environment = _ENVIRONMENTS.get(kind)
        usual = RIVALS / environment / "bin" / "python" if environment else Path(sys.executable)
        options = {
            "engine": "native" if kind in self.checkouts or kind in self.wheels else kind,
            "dtype": dtype,
            "folder": str(self.folder.absolute()),
            "positive": self.texts.head.positive,
            "negative": self.texts.head.negative,
            "threads": self.threads,
            "max_pair_tokens": max(_LEAST_PAIR_TOKENS, min(self.longest, _MOST_PAIR_TOKENS)),
        }
        if kind in self.wheels:
            return EngineProcess(self.wheels[kind], options, is_installed=True)
        return EngineProcess(self.pythons.get(kind, usual), options, self.checkouts.get(kind, ROOT))


def main() -> None:
    arguments = _arguments()
    layout = LAYOUTS[arguments.layout]
    folder = checkpoint(arguments.checkpoint or ROOT / "out" / "bench" / arguments.layout, layout)
    workloads = {name: WORKLOADS.get(name) or _parse(name) for name in arguments.workloads.split(",")}
    longest = max(workload.prefix + workload.tail for workload in workloads.values())
    texts = Texts(folder / "tokenizer.json")
    pythons, checkouts = _overrides(arguments.python), _overrides(arguments.checkout)
    wheels = {name: _installed(name, wheel) for name, wheel in _overrides(arguments.wheel).items()}
    setting = Setting(folder, texts, longest, arguments.threads, pythons, checkouts, wheels)
    where = machine()
    print(json.dumps(where, indent=2), flush=True)
    ceiling = {} if arguments.no_peak else peaks(arguments.threads)
    same = {"layout": arguments.layout, "workloads": {name: asdict(it) for name, it in workloads.items()},
            "threads": arguments.threads, "repeat": arguments.repeat, "processor": where["processor"]}  # fmt: skip
    try:
        log = TurnLog(arguments.turns, same)
    except ValueError as error:
        sys.exit(str(error))
    found = measure(arguments.engines.split(","), workloads, setting, arguments.rounds, arguments.repeat, log)
    results = [_result(name, workload, found[name], layout, ceiling) for name, workload in workloads.items()]
    for result, workload in zip(results, workloads.values(), strict=True):
        print_table(f"{result['workload']}: {workload}, {arguments.layout} layout", shown(result["rows"]))
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
    parser.add_argument(
        "--checkout", action="append", default=[], metavar="NAME=PATH", help="the native engine of another checkout"
    )
    parser.add_argument(
        "--wheel", action="append", default=[], metavar="NAME=FILE", help="the native engine of an installed wheel"
    )
    parser.add_argument("--python", action="append", default=[], metavar="ENGINE=PATH", help="an engine's Python")
    parser.add_argument("--workloads", default="A,B", help=f"of {', '.join(WORKLOADS)}, or DOCUMENTSxPREFIX+TAIL")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each engine")
    parser.add_argument("--repeat", type=int, default=2, help="requests of each workload in a turn")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--no-peak", action="store_true", help="do not measure the machine's own products")
    parser.add_argument(
        "--turns", type=Path, metavar="FILE", help="keep every turn in this file and go on from those"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser.parse_args()


def _parse(name: str) -> Workload:
    documents, _, lengths = name.partition("x")
    prefix, _, tail = lengths.partition("+")
    return Workload(int(documents), int(prefix), int(tail))


def _overrides(given: Sequence[str]) -> dict[str, Path]:
    return {name: Path(path).absolute() for name, _, path in (one.partition("=") for one in given)}


def _installed(name: str, wheel: Path) -> Path:
    try:
        return install_wheel(wheel, ROOT / "out" / "bench" / f"wheel-{name}")
    except subprocess.CalledProcessError:
        sys.exit(f"{wheel} cannot be installed")


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


def measure(
    names: Sequence[str],
    workloads: Mapping[str, Workload],
    setting: Setting,
    rounds: int = 1,
    repeat: int = 1,
    log: TurnLog | None = None,
) -> Results:
    """Every engine on every workload, those of the log too; one that fails or reads other tokens is out."""
    log = log or TurnLog(None, {})
    engines = [*dict.fromkeys([*log.engines, *names])]
    found: Results = {workload: {name: Turns() for name in engines} for workload in workloads}
    for number in range(rounds):
        requests = {
            name: [setting.texts.request(workload, number * repeat + each) for each in range(repeat)]
            for name, workload in workloads.items()
        }
        for name in engines:
            turns = log.get(name, number)
            if turns is None:
                if name not in names or all(found[workload][name].void for workload in workloads):
                    continue
                turns = _turn(name, setting, setting.texts.request(_WARM, number), requests)
                log.add(name, number, turns)
            for workload, turn in turns.items():
                found[workload][name].add(turn)
    return found


def _turn(name: str, setting: Setting, warm: Request, requests: Mapping[str, Sequence[Request]]) -> dict[str, Turns]:
    turns = {workload: Turns() for workload in requests}
    try:
        with setting.start(name) as engine:
            print(f"{name}: loaded in {engine.load_seconds:.1f} s; {engine.details}", flush=True)
            take_turn(engine, warm, requests, turns)
    except (OSError, RuntimeError) as error:
        print(f"{name}: {error}", flush=True)
        for each in turns.values():
            each.void = each.void or str(error)
    return turns


def take_turn(
    engine: EngineProcess, warm: Request, requests: Mapping[str, Sequence[Request]], turns: Mapping[str, Turns]
) -> None:
    """One engine on all requests, by workload; what it does is added to ``turns``."""
    engine.score(_message(warm))
    for workload, each in requests.items():
        turn = turns[workload]
        turn.details, turn.load_seconds, turn.idle_mb = engine.details, engine.load_seconds, engine.idle_mb
        for request in each:
            scored = engine.score(_message(request))
            wanted = len(request.tails) * len(request.prefix) + sum(map(len, request.tails))
            if scored.tokens != wanted:
                turn.void = f"it reads {scored.tokens} tokens instead of {wanted}"
                break
            turn.scored.append(scored)
            turn.over_idle_mb = max(turn.over_idle_mb, scored.peak_mb - engine.idle_mb)


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
    layout: Layout,
    ceiling: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    truth = next((turn for turn in turns.values() if not turn.void), Turns())
    rows = []
    for engine, turn in turns.items():
        row: dict[str, Any] = {"engine": engine, "void": turn.void}
        if not turn.void:
            rate = request_flops(workload, layout) / turn.best.seconds / 1e9
            peak = ceiling.get(engine.partition(":")[2])
            row |= {
                "details": turn.details,
                "load_seconds": turn.load_seconds,
                "seconds": [one.seconds for one in turn.scored],
                "processor_seconds": [one.processor_seconds for one in turn.scored],
                "gflops": rate,
                "share_of_peak": rate / float(peak["rate"]) if peak else None,
                "idle_mb": turn.idle_mb,
                "peak_mb_over_idle": turn.over_idle_mb,
                "max_difference": _difference(turn, truth),
            }
        rows.append(row)
    lengths = {"documents": workload.documents, "prefix": workload.prefix, "tail": workload.tail}
    return {"workload": name, **lengths, "tokens": workload.tokens, "rows": rows}


def _difference(turn: Turns, truth: Turns) -> float:
    # The requests are the same in the same order; one of the two may have had more turns.
    pairs = zip(turn.scored, truth.scored, strict=False)
    return max(float(np.abs(np.subtract(ours.probabilities, theirs.probabilities)).max()) for ours, theirs in pairs)


def shown(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, object]]:
    """The rows as a page shows them; a void row keeps its reason and no figure."""
    counted = [row for row in rows if not row["void"]]
    slowest = max((min(row["seconds"]) for row in counted), default=0.0)
    table = []
    for row in rows:
        if row["void"]:
            figures: list[str] = [f"void: {row['void']}"] + [""] * 7
        else:
            share = row["share_of_peak"]
            figures = [
                f"{min(row['seconds']):.2f}",
                f"{slowest / min(row['seconds']):.2f}",
                f"{min(row['processor_seconds']):.1f}",
                f"{row['gflops']:.0f}",
                "" if share is None else f"{share:.0%}",
                f"{row['idle_mb']:.0f}",
                f"{row['peak_mb_over_idle']:.0f}",
                f"{row['max_difference']:.1e}",
            ]
        columns = ("seconds", "times the slowest", "processor seconds", "GFLOP/s", "share of peak",
                   "idle MB", "peak MB over idle", "max difference of p")  # fmt: skip
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
