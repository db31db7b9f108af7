"""The requests that servers are measured with: documents x tokens, no two requests alike."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, TypeAlias

Body: TypeAlias = dict[str, Any]

_WORDS = [
    "river",
    "mountain",
    "copper",
    "engine",
    "winter",
    "garden",
    "letter",
    "bridge",
    "market",
    "silver",
    "window",
    "harvest",
    "planet",
    "ladder",
    "signal",
    "forest",
    "mirror",
    "anchor",
    "pepper",
    "castle",
    "rocket",
    "valley",
    "thunder",
    "candle",
    "lantern",
    "compass",
    "island",
    "doctor",
]
"""One token each in the Qwen3 vocabulary, the space before them included."""


@dataclass(frozen=True, slots=True)
class Payload:
    """A set of requests of one shape."""

    documents: int
    tokens: int

    def body(self, number: int) -> Body:
        """The ``number``-th request of the set: its texts differ from all others, so that no cache helps."""
        source = random.Random(f"{self}/{number}")
        return {
            "query": " ".join(source.choices(_WORDS, k=8)),
            "documents": [" ".join(source.choices(_WORDS, k=self.tokens)) for _ in range(self.documents)],
            "return_documents": False,
        }

    def __str__(self) -> str:
        return f"{self.documents}x{self.tokens}"


PAYLOADS = {
    str(payload): payload
    for payload in (Payload(10, 64), Payload(50, 256), Payload(100, 512), Payload(1000, 64), Payload(1, 8000))
}
