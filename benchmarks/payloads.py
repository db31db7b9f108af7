"""The requests that servers are measured with: documents x tokens, no two requests alike."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, TypeAlias

from rerankd.cli.load import WORDS

Body: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Payload:
    """A set of requests of one shape."""

    documents: int
    tokens: int

    def body(self, number: int) -> Body:
        """The ``number``-th request of the set: its texts differ from all others, so that no cache helps."""
        source = random.Random(f"{self}/{number}")
        return {
            "query": " ".join(source.choices(WORDS, k=8)),
            "documents": [" ".join(source.choices(WORDS, k=self.tokens)) for _ in range(self.documents)],
            "return_documents": False,
        }

    def __str__(self) -> str:
        return f"{self.documents}x{self.tokens}"


PAYLOADS = {
    str(payload): payload
    for payload in (Payload(10, 64), Payload(50, 256), Payload(100, 512), Payload(1000, 64), Payload(1, 8000))
}
