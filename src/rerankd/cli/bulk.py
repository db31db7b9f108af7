"""``rerankd rank --ray``: many pairs on a Ray cluster."""

from __future__ import annotations

from pathlib import Path

import click

from rerankd.settings import Settings


def rank_on_ray(
    source: Path,
    output: Path,
    settings: Settings,
    *,
    query_field: str,
    document_field: str,
    instruction: str | None,
    fresh: bool,
    part_rows: int,
) -> None:
    """Score the pairs of ``source`` into the folder ``output``; exit status 1 where some have no score."""
    from rerankd.cluster.bulk import Fields, rank_files

    tally = rank_files(
        source,
        output,
        settings,
        Fields(query_field, document_field),
        lambda line: click.echo(line, err=True),
        instruction=instruction,
        part_rows=part_rows,
        fresh=fresh,
    )
    failures = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in output.glob("failures/*.jsonl"))
    where = f", {failures:,} failed ({output / 'failures'})" if failures else ""
    click.echo(f"rerankd: {tally.rows:,} rows{where}", err=True)
    if failures:
        raise SystemExit(1)
