"""Where sentences and paragraphs end, in any script.

The sentence breaks of Unicode (UAX 29, "Text Segmentation", section 5) without the parts that need tables of
every letter. A break follows ``。`` and its like (Sentence_Break=STerm beyond ASCII) wherever they stand; ``!``,
``?`` and full stops need a space behind them, or a letter of a script without spaces, and a full stop no lower-case
letter after that. Closing quotes and brackets belong to the sentence before. The end of a line ends a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_STERM = (
    "\u0589\u061d-\u061f\u06d4\u0700-\u0702\u07f9\u0964\u0965\u104a\u104b\u1362\u1367\u1368\u166e\u1735\u1736"
    "\u17d4\u17d5\u1803\u1809\u1944\u1945\u203c\u203d\u2047-\u2049\u2e2e\u3002\ua4ff\ua60e\ua60f\ua6f3\ua6f7\ua876"
    "\ua877\ua8ce\ua8cf\uaaf0\uaaf1\uabeb\ufe56\ufe57\uff01\uff1f\uff61"
)
"""Sentence_Break=STerm of the Basic Multilingual Plane, the common scripts."""
_ATERM = ".\u2024\ufe52\uff0e"
_CLOSE = "\"')\\]}\u00bb\u2019\u201d\u203a\u3009\u300b\u300d\u300f\u3011\u3015\u3017\uff09\uff3d\uff5d"
_MARKS = f"!?{_STERM}{_ATERM}"

# A run of marks is entered at its beginning alone and never given back: any text is read in linear time.
_END = re.compile(f"(?<![{_MARKS}])[{_MARKS}]++[{_CLOSE}]*+|[\n\u0085\u2028\u2029]")
_ALWAYS = re.compile(f"[{_STERM}\n\u0085\u2028\u2029]")
_ONLY_STOPS = re.compile(f"[{_ATERM}{_CLOSE}]*")
_UNSPACED = re.compile("[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_PARAGRAPH = re.compile(r"\n[^\S\n]*+\n|\u2029")


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where sentences and paragraphs end: ascending offsets in characters, int64; the blanks behind come after."""

    sentences: NDArray[np.int64]
    paragraphs: NDArray[np.int64]


def bounds(text: str) -> Bounds:
    """All places at which a sentence or a paragraph of a text ends."""
    paragraphs = (match.start() for match in _PARAGRAPH.finditer(text))
    return Bounds(np.fromiter(_sentence_ends(text), np.int64), np.fromiter(paragraphs, np.int64))


def _sentence_ends(text: str) -> Iterator[int]:
    for match in _END.finditer(text):
        marks, end = match[0], match.end()
        behind = text[end : end + 2]
        if (
            _ALWAYS.search(marks)
            or not behind
            or _UNSPACED.match(behind)
            or (behind[0].isspace() and not (behind[1:].islower() and _ONLY_STOPS.fullmatch(marks)))
        ):
            yield end
