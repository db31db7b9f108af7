"""The report as Markdown tables, for a model card or a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from rerankd.evaluate.measures import MAIN

_MARKUP = re.compile(r"[\\`*_\[\]|#$~]")

Report: TypeAlias = Mapping[str, Any]
Row: TypeAlias = Sequence[str]


def markdown(report: Report) -> str:
    """The whole report; the command that made it stands at its head."""
    parts = ["# Evaluation", _fenced(report["command"]), explanation(report)]
    if len(report["systems"]) > 1:
        parts += ["## Comparison", table(*comparison(report)), table(*against_first_rows(report))]
    for system in report["systems"]:
        parts += [f"## {_escaped(system['label'])}", identity_line(system)]
        parts += [table(*main_rows(system)), table(*measure_rows(system)), table(*fusion_rows(system))]
        parts += [table(*cost_rows(system))]
    return "\n\n".join(parts) + "\n"


def explanation(report: Report) -> str:
    weight = report["fusion_weight"]
    return (
        f"The first {report['top_k']} candidates of every query are put in a new order; candidates, reranked and "
        f"fused hold the same documents. Fused: {weight:g} x the model's z-score + {1 - weight:g} x the "
        "candidates'. In brackets: "
        f"95 % bootstrap interval of the paired difference, {report['resamples']:,} resamples; p: paired "
        "randomisation test."
    )


def identity_line(system: Mapping[str, Any]) -> str:
    facts = [f"{name} {_code(value)}" for name, value in system["identity"].items()]
    if system["instruction"] is not None:
        facts.append(f"instruction {_code(system['instruction'])}")
    return ", ".join(facts)


def comparison(report: Report) -> tuple[Row, Sequence[Row]]:
    """One row a set, one column a system, in the main measure; fused figures behind a stroke."""
    systems = report["systems"]
    head = [f"{MAIN} (fused)", "candidates", *(system["label"] for system in systems)]
    rows = [
        [
            name,
            _figure(found["candidates"][MAIN]),
            *_best_marked(
                [(system["sets"][name]["reranked"][MAIN], _both(system["sets"][name])) for system in systems]
            ),
        ]
        for name, found in systems[0]["sets"].items()
    ]
    for group, mean in _means(systems[0]):
        cells = [(system["mean"][group]["reranked"][MAIN], _both(system["mean"][group])) for system in systems]
        rows.append([_mean_name(group, mean), _figure(mean["candidates"][MAIN]), *_best_marked(cells)])
    return head, rows


def against_first_rows(report: Report) -> tuple[Row, Sequence[Row]]:
    """One row a system beside the first: its gain, and whether that is more than chance."""
    head = [f"against {report['systems'][0]['label']}", MAIN, "p", "p (Holm)", "more than chance"]
    rows = [
        [
            found["label"],
            _gain(found),
            f"{found['p']:.4f}",
            f"{found['p_holm']:.4f}",
            "no" if found["is_chance"] else "yes",
        ]
        for found in report["against_first"]
    ]
    return head, rows


def main_rows(system: Mapping[str, Any]) -> tuple[Row, Sequence[Row]]:
    """The main measure: candidates, reranked and fused with interval, p, wins and losses."""
    head = [
        "set",
        "queries",
        f"candidates {MAIN}",
        "reranked",
        "difference",
        "p",
        "won / lost",
        "fused",
        "difference",
    ]
    rows = [[name, str(found["queries"]), *_main_cells(found)] for name, found in system["sets"].items()]
    rows += [[_mean_name(group, mean), "", *_main_cells(mean)] for group, mean in _means(system)]
    return head, rows


def measure_rows(system: Mapping[str, Any]) -> tuple[Row, Sequence[Row]]:
    """Every measure: candidates, reranked, fused."""
    names = list(next(iter(system["sets"].values()))["candidates"])
    rows = [[name, *(_three(found, measure) for measure in names)] for name, found in system["sets"].items()]
    rows += [
        [_mean_name(group, mean), *(_three(mean, measure) for measure in names)] for group, mean in _means(system)
    ]
    return ["candidates / reranked / fused", *names], rows


def fusion_rows(system: Mapping[str, Any]) -> tuple[Row, Sequence[Row]]:
    """The model's share of a fused score that is best, and what a share found on other queries gives."""
    rows = [
        [
            name,
            _figure(found["candidates"][MAIN]),
            _figure(found["reranked"][MAIN]),
            _figure(found["fused"][MAIN]),
            *_fitted(found["fusion"]),
        ]
        for name, found in system["sets"].items()
    ]
    head = ["fusion", "candidates", "reranked", "default weight", "weight found elsewhere", "best weight"]
    return head, rows


def _fitted(fit: Mapping[str, Any] | None) -> Row:
    return ["too few queries", ""] if fit is None else [_figure(fit["cross_validated"]), f"{fit['weight']:.2f}"]


def cost_rows(system: Mapping[str, Any]) -> tuple[Row, Sequence[Row]]:
    """Pairs, tokens and seconds of scoring."""
    columns = ("documents", "pairs", "tokens", "truncated_pairs", "failed_pairs")
    rows = [
        [name, *(f"{found[column]:,}" for column in columns), f"{found['seconds']:,.1f}", _rate(found)]
        for name, found in system["sets"].items()
    ]
    return ["set", *(column.replace("_", " ") for column in columns), "seconds", "pairs a second"], rows


def table(head: Row, rows: Iterable[Row]) -> str:
    # The first column holds names, the others numbers.
    rule = ["---"] + ["---:"] * (len(head) - 1)
    body = ([_escaped(row[0]), *row[1:]] for row in rows)
    lines = [[_escaped(cell) for cell in head], rule, *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escaped(text: str) -> str:
    """A name as Markdown shows it: nothing in it is markup, and it stays on its line."""
    return _MARKUP.sub(r"\\\g<0>", " ".join(text.split())).replace("<", "&lt;")


def _code(value: Any) -> str:
    """A value between backticks, of which it may have none itself."""
    return f"`{' '.join(str(value).split()).replace('`', chr(0x2CB))}`"


def _fenced(text: str) -> str:
    """A block of code whose fence is longer than any in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"


def _has_no_score(found: Mapping[str, Any]) -> bool:
    """Whether every pair failed, so that what stands there as reranked is the candidates' own order."""
    return bool(found.get("pairs")) and found["failed_pairs"] == found["pairs"]


def _main_cells(found: Mapping[str, Any]) -> Row:
    if _has_no_score(found):
        return [_figure(found["candidates"][MAIN]), "no score", "", "", "", "no score", ""]
    reranked, fused = found["difference"]["reranked"][MAIN], found["difference"]["fused"][MAIN]
    return [
        _figure(found["candidates"][MAIN]),
        _figure(found["reranked"][MAIN]),
        _gain(reranked),
        f"{reranked['p']:.4f}",
        f"{reranked['wins']} / {reranked['losses']}",
        _figure(found["fused"][MAIN]),
        _gain(fused),
    ]


def _gain(difference: Mapping[str, Any]) -> str:
    return f"{difference['mean']:+.4f} [{difference['low']:+.4f}, {difference['high']:+.4f}]"


def _three(found: Mapping[str, Any], measure: str) -> str:
    if _has_no_score(found):
        return f"{_figure(found['candidates'][measure])} / no score"
    return " / ".join(_figure(found[ranking][measure]) for ranking in ("candidates", "reranked", "fused"))


def _both(found: Mapping[str, Any]) -> str:
    if _has_no_score(found):
        return "no score"
    return f"{_figure(found['reranked'][MAIN])} ({_figure(found['fused'][MAIN])})"


def _best_marked(cells: Sequence[tuple[float, str]]) -> Row:
    best = max(value for value, _ in cells)
    return [f"**{text}**" if value == best else text for value, text in cells]


def _means(system: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Means by group; a single set is its own mean."""
    return system["mean"].items() if len(system["sets"]) > 1 else ()


def _mean_name(group: str, mean: Mapping[str, Any]) -> str:
    count = len(mean["sets"])
    return f"mean of {count}" if group == "all" else f"mean of {count} (candidates {group.replace('_', ' ')})"


def _figure(value: float) -> str:
    return f"{value:.4f}"


def _rate(found: Mapping[str, Any]) -> str:
    return f"{found['pairs'] / found['seconds']:,.0f}" if found["seconds"] else ""
