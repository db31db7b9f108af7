"""rerankd on a GPU beside transformers and vLLM, in stages that can be stopped and resumed.

    python benchmarks/gpu.py --out out/gpu                                       # everything
    python benchmarks/gpu.py --out out/gpu --stages engines --layouts 4B --seconds 240
    python benchmarks/gpu.py --out out/gpu --engines vllm:bfloat16:32768 --python vllm=out/rivals/vllm/bin/python

Every part of a stage runs in a process of its own and writes its own JSON under ``--out``; a part whose file is
there is not run again. ``--limit`` ends a part, ``--seconds`` lets no further part begin. At the end, and when all
files are there already, the tables are printed from them and written to ``report.md``.

| stage | what it writes |
| --- | --- |
| ``tests`` | ``tests.json``: what ``pytest -m gpu`` passed, failed and skipped |
| ``card`` | ``card.json``: driver, power limit, best products of each format, bandwidth |
| ``engines`` | ``LAYOUT/ENGINE.json``: every engine on every workload, from the same weights and ids |
| ``attention`` | ``attention.json``: one layer's attention beside FlashAttention's varlen kernel |
| ``servers`` | ``LAYOUT/servers.json``: rerankd and vLLM's own server under 64 clients |

Every turn of an engine is another request of the same shape, the same ones for all engines. They have nothing in
common, so that it helps no engine to keep anything, unless ``--alike 58`` gives all of them as many first tokens as a
template and its instruction have. Scores of the first pairs are compared with the reference's (transformers, float32,
one pair at a time), and a row that differs by more than `VOID` has no time.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

# Run as a file, Python looks beside the file alone.
sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.checkpoints import LAYOUTS, write_checkpoint

from benchmarks.flops import request_flops
from benchmarks.gpu_engine import REFERENCE, SHAPES, EngineRun, Turns
from benchmarks.machine import command, machine, table

ENGINES = "native:bfloat16,native:fp8,vllm:bfloat16,vllm-uncached:bfloat16,sdpa:bfloat16,flash_attention_2:bfloat16"
ROOT = Path(__file__).parents[1]
STAGES = ("tests", "card", "engines", "attention", "servers")
VOID = 0.05
"""A larger difference of a probability is no rounding of bfloat16: the engine computed something else."""
VOID_FP8 = 0.2
CLIENTS = 64
_NEEDS = {"vllm": "vllm", "flash_attention_2": "flash_attn"}
_TOKENIZER = ROOT.parent / "shared" / "tokenizer" / "qwen3"


@dataclass(frozen=True, slots=True)
class Part:
    """One process: what it is called, the file that it writes, and its command."""

    name: str
    out: Path
    words: Sequence[str]


def main() -> None:
    arguments = _arguments()
    began = time.monotonic()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    for part in parts(arguments):
        left = min(arguments.limit, arguments.seconds - (time.monotonic() - began))
        if part.out.is_file():
            print(f"{part.name}: kept, {part.out} is there", flush=True)
        elif left <= 0:
            print(f"{part.name}: not begun, the time is over", flush=True)
        else:
            _run(part, left)
    (out / "machine.json").write_text(json.dumps({"machine": machine(), "command": command()}, indent=1))
    written = report(out)
    (out / "report.md").write_text(written, encoding="utf-8")
    print("\n" + written)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/gpu"), help="where the stages write")
    parser.add_argument("--stages", default=",".join(STAGES), help=f"of {', '.join(STAGES)}")
    parser.add_argument("--layouts", default="0.6B,4B")
    parser.add_argument("--engines", default=ENGINES, help="KIND:FORMAT[:BATCH TOKENS], see benchmarks/gpu_engine.py")
    parser.add_argument("--workloads", default="A,B,large", help=f"of {', '.join(SHAPES)}")
    parser.add_argument("--repeat", type=int, default=10, help="timed turns")
    parser.add_argument("--alike", type=int, default=0, help="first tokens that all requests have in common")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--checkpoints", type=Path, help="where random weights are kept; OUT/checkpoints")
    parser.add_argument("--tokenizer", type=Path, default=_TOKENIZER, help="folder of tokenizer.json; vLLM needs it")
    parser.add_argument("--python", action="append", default=[], metavar="KIND=PATH", help="that has the engine")
    parser.add_argument("--limit", type=float, default=300, help="seconds that one part may take")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="after which no part begins")
    return parser.parse_args()


def parts(arguments: argparse.Namespace) -> Iterator[Part]:
    """Everything that is asked for and can run here, in order; checkpoints are written when they are needed."""
    out, stages = arguments.out, arguments.stages.split(",")
    if unknown := set(stages) - set(STAGES):
        sys.exit(f"no stage {', '.join(sorted(unknown))}: there are {', '.join(STAGES)}")
    python = sys.executable
    device = ["--device", arguments.device]
    if "tests" in stages:
        yield Part("tests", out / "tests.json", [python, "-m", "benchmarks.gpu_tests"])
    if "card" in stages:
        yield Part("card", out / "card.json", [python, "-m", "benchmarks.gpu_card", "peaks", *device])
    for layout in arguments.layouts.split(","):
        if "engines" in stages:
            yield from _engine_parts(arguments, layout)
    if "attention" in stages:
        yield Part("attention", out / "attention.json", [python, "-m", "benchmarks.gpu_card", "attention", *device])
    for layout in arguments.layouts.split(","):
        if "servers" in stages:
            yield _server_part(arguments, layout)


def _engine_parts(arguments: argparse.Namespace, layout: str) -> Iterator[Part]:
    pythons = dict(one.split("=", 1) for one in arguments.python)
    asked = ["--workloads", arguments.workloads, "--repeat", str(arguments.repeat)]
    asked += ["--alike", str(arguments.alike), "--device", arguments.device]
    for name in [REFERENCE, *arguments.engines.split(",")]:
        kind = name.partition(":")[0].removesuffix("-uncached")
        package = _NEEDS.get(kind)
        if package and kind not in pythons and importlib.util.find_spec(package) is None:
            print(f"{layout} {name}: left out, {package} is not installed", flush=True)
            continue
        folder = _checkpoint(arguments, layout)
        words = [pythons.get(kind, sys.executable), "-m", "benchmarks.gpu_engine", name, str(folder), *asked]
        yield Part(f"{layout} {name}", arguments.out / layout / f"{name.replace(':', '-')}.json", words)


def _server_part(arguments: argparse.Namespace, layout: str) -> Part:
    """rerankd's server, and vLLM's where there is one."""
    folder = _checkpoint(arguments, layout)
    words = [sys.executable, "benchmarks/serve.py", "--layout", layout, "--format", ""]
    words += ["--tokenizer", str(folder / "tokenizer.json"), "--concurrency", str(CLIENTS), "--limit", "60"]
    words += ["--payload", "10x64*2000", "--payload", "50x256*500"]
    serve = f"{sys.executable} -m rerankd serve --cache off --deadline-seconds 300 --port 8000 --model {folder}"
    words += ["--server", "rerankd=http://127.0.0.1:8000/rerank", "--start", f"rerankd={serve}"]
    pythons = dict(one.split("=", 1) for one in arguments.python)
    if "vllm" in pythons or importlib.util.find_spec("vllm"):
        rival = f"{pythons.get('vllm', sys.executable)} -m vllm.entrypoints.openai.api_server --model {folder}"
        rival += " --port 8002 --host 127.0.0.1 --runner pooling --dtype bfloat16 --max-model-len 8192"
        rival += " --max-num-batched-tokens 32768 --served-model-name rival"
        rival += f" --chat-template {ROOT / 'benchmarks/rivals/qwen3_reranker.jinja'}"
        overrides = {
            "architectures": ["Qwen3ForSequenceClassification"],
            "classifier_from_token": ["no", "yes"],
            "is_original_qwen3_reranker": True,
        }
        rival += f" --hf-overrides '{json.dumps(overrides)}'"
        words += [
            "--server",
            "vllm=http://127.0.0.1:8002/rerank",
            "--model",
            "vllm=rival",
            "--start",
            f"vllm={rival}",
        ]
    return Part(f"{layout} servers", arguments.out / layout / "servers.json", [*words, "--json"])


def _checkpoint(arguments: argparse.Namespace, layout: str) -> Path:
    folder: Path = (arguments.checkpoints or arguments.out / "checkpoints") / layout
    if not (folder / "config.json").is_file():
        write_checkpoint(folder, LAYOUTS[layout], dtype=torch.bfloat16, device=arguments.device)
    for file in arguments.tokenizer.glob("*.json"):
        if not (folder / file.name).is_file():
            shutil.copy(file, folder)
    return folder


def _run(part: Part, limit: float) -> None:
    """Run it; what went wrong is said, and the next part goes on."""
    part.out.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    print(f"{part.name}: begun", flush=True)
    words = [*part.words, str(part.out)] if part.words[-1] == "--json" else [*part.words, "--out", str(part.out)]
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    process = subprocess.Popen(words, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, start_new_session=True)
    try:
        status = str(process.wait(limit))
    except subprocess.TimeoutExpired:
        status = f"ended after {limit:.0f} s"
    finally:
        # Workers of an engine hold the card's memory: none may outlive its part.
        _end_session(process)
    wrote = "its figures are there" if part.out.is_file() else "it wrote nothing"
    print(f"{part.name}: exit status {status}, {time.monotonic() - began:.0f} s, {wrote}", flush=True)


def _end_session(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def report(out: Path) -> str:
    """The tables that the files under ``out`` give, in Markdown."""
    pieces = [f"# {json.dumps(_read(out / 'machine.json').get('machine', {}))}\n"]
    tests, card = _read(out / "tests.json"), _read(out / "card.json")
    if tests:
        pieces.append(
            f"pytest -m gpu: {tests['passed']} passed, {tests['skipped']} skipped, failed: {tests['failed']}\n"
        )
    if card:
        pieces.append(f"{json.dumps(card)}\n")
    for layout in LAYOUTS:
        runs = {run.engine: run for run in map(EngineRun.read, _engine_files(out / layout))}
        for workload in SHAPES:
            rows = engine_rows(runs, workload, layout, card.get("peaks", {}))
            if rows:
                pieces.append(table(f"{workload}: {SHAPES[workload]}, {layout} layout", rows))
        servers = _read(out / layout / "servers.json")
        if servers:
            from benchmarks.serve import row

            rows = [row(load) for load in servers["loads"]]
            pieces.append(table(f"servers, {layout} layout, {CLIENTS} clients", rows))
    attention = _read(out / "attention.json")
    if attention:
        rows = [{"layout, workload": name, **_numbers(found)} for name, found in attention.items()]
        pieces.append(table("attention of one layer, microseconds", rows))
    return "\n".join(pieces)


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _engine_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.json") if path.name != "servers.json")


def _numbers(found: Mapping[str, float | None]) -> dict[str, object]:
    return {name: "-" if value is None else f"{value:.0f}" for name, value in found.items()}


def engine_rows(
    runs: Mapping[str, EngineRun], workload: str, layout: str, peaks: Mapping[str, Any]
) -> list[dict[str, object]]:
    """One row an engine that ran the workload; none without the reference's scores, which give them their meaning."""
    found = {name: run.workloads[workload] for name, run in runs.items() if workload in run.workloads}
    reference = found.pop(REFERENCE, None)
    if reference is None:
        return []
    truth = _probability(reference.scores)
    off = {
        name: float(np.abs(_probability(turns.scores[: len(truth)]) - truth).max()) for name, turns in found.items()
    }
    void = {name for name in found if off[name] > (VOID_FP8 if "fp8" in name else VOID)}
    slowest = max((median(turns.seconds) for name, turns in found.items() if name not in void), default=0.0)
    return [
        _row(runs[name], turns, workload, layout, off[name], 0.0 if name in void else slowest, peaks)
        for name, turns in found.items()
    ]


def _row(
    run: EngineRun,
    turns: Turns,
    workload: str,
    layout: str,
    off: float,
    slowest: float,
    peaks: Mapping[str, Any],
) -> dict[str, object]:
    """One engine's line; without a ``slowest`` to compare with it is void."""
    shape, seconds = SHAPES[workload], median(turns.seconds)
    peak = peaks.get(run.engine.split(":")[1], {}).get("rate")
    share = request_flops(shape, LAYOUTS[layout]) / seconds / 1e12 / peak if peak else None
    draw = turns.draw
    return {
        "engine": run.engine,
        "milliseconds, median": f"{seconds * 1e3:.1f}" if slowest else "void",
        "best": f"{min(turns.seconds) * 1e3:.1f}" if slowest else "void",
        "pairs/s": f"{shape.documents / seconds:.0f}" if slowest else "void",
        "prompt tokens/s": f"{shape.tokens / seconds:.0f}" if slowest else "void",
        "times the slowest": f"{slowest / seconds:.2f}" if slowest else "void",
        "share of peak": f"{share:.0%}" if share and slowest else "-",
        "MB of torch, weights included": "-" if turns.peak_mb is None else f"{turns.peak_mb:.0f}",
        "MB of the card, W": "-" if draw is None else f"{draw.memory_mb:.0f}, {draw.watts:.0f}",
        "ready, s": f"{run.ready_seconds:.1f}",
        "max difference of p": f"{off:.1e}",
    }


def _probability(scores: Sequence[float]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = 1 / (1 + np.exp(-np.asarray(scores, dtype=np.float64)))
    return result


if __name__ == "__main__":
    main()
