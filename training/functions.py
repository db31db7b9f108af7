"""Python functions as training pairs: the first sentence of a docstring asks for the function without it.

Labelled questions about code are few. The functions are read from what is installed wherever this recipe runs:
Python's own library (PSF-2.0), NumPy and SciPy (BSD-3-Clause).
"""

from __future__ import annotations

import ast
import re
import sysconfig
import textwrap
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

FUNCTIONS = "python_functions_en"
PACKAGES = ("numpy", "scipy")
SKIPPED = {"test", "tests", "idlelib", "lib2to3", "site-packages", "__pycache__"}
LINES = range(3, 61)
WORDS = range(3, 26)
# People who search for code name the language; a part of the queries does so too.
NAMED_EVERY = 3
FIRST_SENTENCE = re.compile(r".+?(?:\.(?=\s|$)|(?=\n\s*\n)|$)", re.DOTALL)


def python_files() -> list[Path]:
    roots = [Path(sysconfig.get_paths()["stdlib"])]
    for name in PACKAGES:
        found = find_spec(name)
        if found is None or found.origin is None:
            raise ModuleNotFoundError(f"{name} is missing: pip install rerankd[train]")
        roots.append(Path(found.origin).parent)
    files = [(root, path) for root in roots for path in sorted(root.rglob("*.py"))]
    return [path for root, path in files if not SKIPPED.intersection(path.relative_to(root).parts)]


def split_docstring(lines: list[str], function: ast.FunctionDef) -> tuple[str, str, str] | None:
    """(first sentence, function without it, whole function), or nothing where there is too little of either."""
    docstring = ast.get_docstring(function, clean=False)
    if not docstring or not docstring.isascii():
        return None
    whole = textwrap.dedent("\n".join(lines[function.lineno - 1 : function.end_lineno]))
    match = FIRST_SENTENCE.match(docstring.strip())
    sentence = match.group() if match else ""
    if len(sentence.split()) not in WORDS or whole.count("\n") + 1 not in LINES or sentence not in whole:
        return None
    rest = re.sub(r'^\s*[rR]?("""|\'\'\')\s*("""|\'\'\')\n', "", whole.replace(sentence, "", 1), flags=re.MULTILINE)
    return " ".join(sentence.split()).rstrip("."), rest, whole


def functions_of(path: Path) -> Iterator[tuple[str, str, str]]:
    source = path.read_text(encoding="utf-8", errors="replace")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(source)
    lines = source.split("\n")
    for node in ast.walk(tree):
        found = split_docstring(lines, node) if isinstance(node, ast.FunctionDef) else None
        if found is not None:
            yield found


def function_rows() -> Iterator[dict[str, Any]]:
    """Rows like those of a training file; ``original`` is the function with its docstring, for the leak check."""
    pairs = (pair for path in python_files() for pair in functions_of(path))
    for place, (sentence, rest, whole) in enumerate(pairs):
        query = f"python {sentence}" if place % NAMED_EVERY == 0 else sentence
        yield {"query": query, "positive": rest, "original": whole, "lang": "en"}
