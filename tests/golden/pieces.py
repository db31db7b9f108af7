"""Random texts, of what a seam between texts in a prompt could go wrong on."""

from __future__ import annotations

import random

# What a seam between texts could go wrong on: spaces, line ends, marks that combine, other scripts, punctuation.
PIECES = [
    *(" ", "  ", "\n", "\r\n", "\t", "\u3000", "\xa0", "\u200b", "\u2028", "\x85", "\x00"),
    *(".", "...", ":", ">:", "<", ">", "'s", "'", '"', "{query}", "{}", "%s", "//", "/*", "&amp;", "3.14"),
    *("a", "B", "the", "ing", "12", "Document", "<Document>: ", "<Query>: ", "def f(x):\n    return x"),
    *("é", "e\u0301", "\u0301", "\u0308", "ﬁ", "Ⅷ", "中文", "，", "。", "かな", "한국어", "\u1112", "\u1161"),
    *("हिन्दी", "ि", "עברית", "العربية", "ไทย", "😀", "🤷\u200d♂️", "\U0001f1ea\U0001f1fa"),
]  # fmt: skip


def text_of(rng: random.Random, most: int) -> str:
    return "".join(rng.choices(PIECES, k=rng.randint(0, most)))
