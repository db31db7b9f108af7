"""Mutation testing: change one rule, one limit, one step of a kernel, and see whether a test goes red.

    python -m tests.meta.mutants --count 5 --seed 1 [part of a path]

It ends with a table of sources: changes made, noticed, and the lines of those that survived.

For each source in `TARGETS` some small changes are drawn (a comparison, a number, an operator, a negation), each is
made in a copy of the tree, and the source's own tests run there, up to the first that is red. A change that no test
notices is a survivor: it is printed. Those that do what the original does are listed in `EQUIVALENT` and not made;
the others are tests to be written.

The tests run in forks of this process, which has imported what takes long and is the same for all of them.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COPIED = (
    "src",
    "tests",
    "benchmarks",
    "training",
    "docs",
    "pyproject.toml",
    "build_kernels.py",
    "README.md",
    "CHANGELOG.md",
)
MOST_SECONDS = 600.0
"""By the clock, for the tests of a source as it is."""
LEAST_SECONDS, TIMES = 10.0, 4.0
"""A run that takes so many times as long as the tests do without a change counts as red: a change may have made an
endless loop, or somebody wait for what never comes. It is given so many seconds at least."""
IMPORTED = ("numpy", "httpx", "uvicorn", "fastapi", "structlog", "tokenizers", "prometheus_client")
"""What the tests need and no change touches; none of it starts threads, which a fork would lose."""

OUTPUT = "output.txt"
CPU = "src/rerankd/engine/native/cpu/"
CORE = "tests/unit/core/"
DRIVER = [
    "tests/unit/engine/native/cpu/test_compiled.py",
    "-m",
    "compiled",
    "-k",
    "sanitizers and avx2",
    "--noconftest",
]
TARGETS: dict[str, Sequence[str]] = {
    "src/rerankd/core/fair_queue.py": [f"{CORE}test_fair_queue.py", f"{CORE}test_engine_core.py"],
    "src/rerankd/core/batch_builder.py": [f"{CORE}test_batch_builder.py", f"{CORE}test_engine_core.py"],
    "src/rerankd/core/prefix_tree.py": [f"{CORE}test_prefix_tree.py"],
    "src/rerankd/core/prefix_cache.py": [f"{CORE}test_prefix_cache.py", f"{CORE}test_prefix_tree.py"],
    "src/rerankd/core/recovery.py": [f"{CORE}test_recovery.py", "tests/faults/test_isolation.py"],
    "src/rerankd/core/token_budget.py": [f"{CORE}test_token_budget.py", "tests/faults/test_isolation.py"],
    "src/rerankd/prompt/truncate.py": ["tests/unit/prompt/test_truncate.py", "tests/unit/prompt/test_build.py"],
    "src/rerankd/prompt/fair_semaphore.py": ["tests/unit/prompt/test_fair_semaphore.py"],
    "src/rerankd/service/admission.py": ["tests/unit/service/test_admission.py", "tests/faults/test_admission.py"],
    "src/rerankd/service/ranking.py": [
        "tests/unit/service/test_ranking.py",
        "tests/unit/service/test_calibration.py",
        "tests/unit/service/test_fusion_and_cascade.py",
        "tests/unit/service/test_experiments.py",
    ],
    "src/rerankd/limits/quota.py": ["tests/unit/limits"],
    "src/rerankd/http/body_limit.py": ["tests/unit/http/test_body_limit.py"],
    "src/rerankd/http/in_flight.py": ["tests/unit/http/test_in_flight.py"],
    "src/rerankd/resilience/breaker.py": ["tests/unit/resilience/test_breaker.py"],
    "src/rerankd/wire/json_guard.py": ["tests/unit/wire/test_json_guard.py"],
    "src/rerankd/cache/memory.py": ["tests/unit/cache/test_memory.py"],
    "src/rerankd/cache/codec.py": ["tests/unit/cache/test_codec.py"],
    f"{CPU}library.py": ["tests/unit/engine/native/cpu/test_library.py"],
    f"{CPU}csrc/elementwise.c": DRIVER,
    f"{CPU}csrc/attention_f32.c": DRIVER,
    f"{CPU}csrc/attention.h": DRIVER,
    f"{CPU}csrc/gemm_avx2.c": DRIVER,
    f"{CPU}csrc/fast_exp.h": DRIVER,
}
"""Sources, and the pytest arguments that choose their tests, the likeliest to notice first."""

EQUIVALENT: dict[str, dict[str, str]] = {
    "src/rerankd/wire/json_guard.py": dict.fromkeys(
        ("_CHUNK = 65 * 1024", "_CHUNK = 64 * 1025", "_CHUNK = 64 + 1024"),
        "a body is looked at in parts of whatever size",
    ),
    "src/rerankd/service/admission.py": {
        "if wait >= deadline - time.monotonic():": "an estimate may end at the very deadline",
    },
    "src/rerankd/core/fair_queue.py": {
        "return 3 * _CLASSES_PER_DOUBLING * doublings + (size >> doublings)": "classes need no more than to differ",
    },
    "src/rerankd/core/prefix_cache.py": {
        "self._has_more = False": "the first batch sets it anew",
    },
    "src/rerankd/core/prefix_tree.py": {
        "self._batch = 1": "batches are told apart by their numbers, wherever these begin",
        "self.cache = cache or PrefixCache(1)": "nothing is kept that has so few tokens",
    },
}
"""Changes that change nothing that anybody could ask for, as their lines read then, and why, by source."""

SWAPS: dict[type[ast.AST], ast.AST] = {
    ast.Lt: ast.LtE(), ast.LtE: ast.Lt(), ast.Gt: ast.GtE(), ast.GtE: ast.Gt(), ast.Eq: ast.NotEq(),
    ast.NotEq: ast.Eq(),
    ast.Is: ast.IsNot(), ast.IsNot: ast.Is(), ast.In: ast.NotIn(), ast.NotIn: ast.In(), ast.Add: ast.Sub(),
    ast.Sub: ast.Add(), ast.Mult: ast.Add(), ast.FloorDiv: ast.Mult(), ast.And: ast.Or(), ast.Or: ast.And(),
}  # fmt: skip
C_SWAPS = [
    (r" < ", " <= "), (r" > ", " >= "), (r" \+ ", " - "), (r" - ", " + "), (r" \+= ", " -= "), (r" \* ", " + "),
    (r" == ", " != "), (r" && ", " || "), (r"\b1\.0f\b", "1.01f"), (r"\b0\.0f\b", "0.01f"), (r"\b(\d+)\b", "NUMBER"),
]  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    source: str
    line: int
    before: str
    after: str
    text: str
    """The whole file, changed."""


def python_mutants(source: str, text: str) -> Iterator[Mutant]:
    """One change each, put back into the file's own text, so that everything else stays as it is."""
    lines = text.splitlines(keepends=True)
    for node in ast.walk(ast.parse(text)):
        changed = _changed(node)
        if changed is None or node.lineno != node.end_lineno:  # type: ignore[attr-defined]
            continue
        row, begin, end = node.lineno - 1, node.col_offset, node.end_col_offset  # type: ignore[attr-defined]
        raw = lines[row].encode()
        line = (raw[:begin] + ast.unparse(changed).encode() + raw[end:]).decode()
        yield Mutant(source, row + 1, lines[row], line, "".join([*lines[:row], line, *lines[row + 1 :]]))


def _changed(node: ast.AST) -> ast.AST | None:
    match node:
        case ast.Compare(left, [operator], [right]) if type(operator) in SWAPS:
            return ast.Compare(left, [SWAPS[type(operator)]], [right])  # type: ignore[list-item]
        case ast.BinOp(left, operator, right) if type(operator) in SWAPS:
            return ast.BinOp(left, SWAPS[type(operator)], right)  # type: ignore[arg-type]
        case ast.BoolOp(operator, values):
            return ast.BoolOp(SWAPS[type(operator)], values)  # type: ignore[arg-type]
        case ast.UnaryOp(ast.Not(), operand):
            return operand
        case ast.Constant(bool() as value):
            return ast.Constant(not value)
        case ast.Constant(int() | float() as value):
            return ast.Constant(value + 1)
    return None


def c_mutants(source: str, text: str) -> Iterator[Mutant]:
    lines = text.splitlines(keepends=True)
    inside_comment = False
    for row, line in enumerate(lines):
        starts = line.lstrip().startswith(("/*", "#", "//")) or inside_comment
        inside_comment = (inside_comment or "/*" in line) and "*/" not in line
        if starts:
            continue
        for pattern, replacement in C_SWAPS:
            for found in re.finditer(pattern, line.split("/*")[0]):
                new = str(int(found.group(1)) + 1) if replacement == "NUMBER" else replacement
                changed = line[: found.start()] + new + line[found.end() :]
                yield Mutant(source, row + 1, line, changed, "".join([*lines[:row], changed, *lines[row + 1 :]]))


@dataclass
class Outcome:
    """What became of the changes of one source."""

    source: str
    changes: int = 0
    survivors: list[Mutant] = field(default_factory=list)
    error: str = ""
    """Why none was made: its tests are red as they are."""

    @property
    def row(self) -> str:
        lines = ", ".join(f"{self.source.rpartition('/')[2]}:{mutant.line}" for mutant in self.survivors)
        left = len(self.survivors)
        return f"{self.source:52} {self.changes:7} {self.changes - left:7} {left:8}  {self.error or lines}".rstrip()


def is_noticed(mutant: Mutant, tree: Path, original: str, limit: float) -> bool:
    """Whether a test goes red; the copy of the tree is as before then."""
    file = tree / mutant.source
    file.write_text(mutant.text, encoding="utf-8")
    try:
        return run_tests(tree, TARGETS[mutant.source], limit) != 0
    finally:
        file.write_text(original, encoding="utf-8")


def run_tests(tree: Path, tests: Sequence[str], limit: float, *, writes_bytecode: bool = False) -> int:
    """The exit status of pytest; 1 where it took longer than ``limit``, in seconds by the clock or of a processor."""
    child = os.fork()
    if not child:
        # Of sources as they are alone: a change within a second of another would be taken for it.
        sys.dont_write_bytecode = not writes_bytecode
        os._exit(_in_fork(tree, tests, limit))
    began = time.monotonic()
    while time.monotonic() - began < limit:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return 1


def _in_fork(tree: Path, tests: Sequence[str], limit: float) -> int:
    os.setpgrp()
    resource.setrlimit(resource.RLIMIT_CPU, (int(limit) + 1, int(limit) + 1))
    os.chdir(tree)
    os.environ.update(PYTHONPATH=str(tree / "src"), PYTHONDONTWRITEBYTECODE="1")
    sys.path[:0] = [str(tree / "src"), str(tree)]
    # The copy's modules are tested, not those of this tree.
    for name in [name for name in sys.modules if name.split(".")[0] in ("rerankd", "tests", "build_kernels")]:
        del sys.modules[name]
    with (tree / OUTPUT).open("w", encoding="utf-8") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    imported = "ignore::pytest.PytestAssertRewriteWarning"
    return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-W", imported, *tests]))


def outcome_of(source: str, tree: Path, count: int, seed: int) -> Outcome:
    """Changes of one source, each with its tests, told as they come."""
    found = Outcome(source)
    began = time.monotonic()
    if run_tests(tree, TARGETS[source], MOST_SECONDS, writes_bytecode=True):
        print(f"{source}: its tests are red without a change\n{(tree / OUTPUT).read_text()[-4000:]}", flush=True)
        found.error = "its tests are red without a change"
        return found
    limit = max(LEAST_SECONDS, TIMES * (time.monotonic() - began))
    text = (tree / source).read_text(encoding="utf-8")
    known = EQUIVALENT.get(source, {})
    changes = (python_mutants if source.endswith(".py") else c_mutants)(source, text)
    every = [mutant for mutant in changes if mutant.after.strip() not in known]
    for mutant in random.Random(f"{seed} {source}").sample(every, min(count, len(every))):
        found.changes += 1
        if not is_noticed(mutant, tree, text, limit):
            found.survivors.append(mutant)
            print(f"{source}:{mutant.line} survived", flush=True)
            print(f"  - {mutant.before.strip()}\n  + {mutant.after.strip()}", flush=True)
    print(found.row, flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Mutation testing: changes that no test notices.")
    parser.add_argument("--count", type=int, default=5, help="changes of each source")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("only", nargs="?", default="", help="sources whose path has this in it")
    options = parser.parse_args()
    sys.dont_write_bytecode = True
    for name in IMPORTED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
            copy(ROOT / name, tree / name)
        outcomes = [
            outcome_of(source, tree, options.count, options.seed) for source in TARGETS if options.only in source
        ]
    print(f"\n{'source':52} {'changes':>7} {'noticed':>7} {'survived':>8}")
    for found in outcomes:
        print(found.row)
    changes, survived = sum(one.changes for one in outcomes), sum(len(one.survivors) for one in outcomes)
    print(f"{'all':52} {changes:7} {changes - survived:7} {survived:8}")
    return int(any(one.error for one in outcomes))


if __name__ == "__main__":
    sys.exit(main())
