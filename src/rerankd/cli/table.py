"""Tables on a terminal or in a file: plain text, columns aligned, nothing cut."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from rerankd.printable import printable


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: Sequence[int] = ()) -> str:
    """Lines of text; numbers stand right, the columns named in ``left`` and the last one left.

    Characters that a terminal would act on are shown as their escapes.
    """
    cells = [[printable(cell) for cell in row] for row in ([head] if head else []) + [*rows]]
    if not cells:
        return ""
    last = len(cells[0]) - 1
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        padded = [
            cell if place == last else _pad(cell, widths[place], place in left) for place, cell in enumerate(row)
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _pad(cell: str, width: int, is_left: bool) -> str:
    blanks = " " * (width - _width(cell))
    return cell + blanks if is_left else blanks + cell


def _width(text: str) -> int:
    """Columns of a terminal: wide characters, such as Chinese ones, take two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )
