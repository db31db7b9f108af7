"""Words of one kind, of which a near miss puts one in the place of another.

Units, dates, places, opposites, what functions do: ``words/*.txt``. Each line is one kind; a word of several parts is
joined by an underscore. All lower case.
"""

from __future__ import annotations

from pathlib import Path


def kinds(text: str) -> dict[str, list[str]]:
    """Word -> the other words of its kind (those of its first line, where it stands in several)."""
    found: dict[str, list[str]] = {}
    for line in text.strip().split("\n"):
        words = [word.replace("_", " ") for word in line.split()]
        for word in words:
            found.setdefault(word, [other for other in words if other != word])
    return found


FOLDER = Path(__file__).with_name("words")
ALTERNATIVES = {kind: kinds((FOLDER / f"{kind}.txt").read_text(encoding="utf-8")) for kind in ("en", "code", "zh")}
