"""Which replica a call is for.

The replica that the call's key names by rendezvous hashing: equal prompts' prefixes meet in one prefix cache, equal
pairs in one score cache, and when replicas come and go only the keys of those move. With several models, replicas
that hold the model come first. One that is busy is passed over for the next (bounded load).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """A replica as it said of itself lately: its name, the models that it holds, tokens that wait or run there."""

    replica: str
    models: frozenset[str] = frozenset()
    tokens: int = 0


def order_of_choice(
    candidates: Sequence[Candidate], *, key: bytes, model: str, busy_tokens: int, avoid: Collection[str] = ()
) -> list[Candidate]:
    """The candidates, the best first.

    Args:
        key: of the call.
        model: that the call is for.
        busy_tokens: a replica with so many tokens more than the idlest is busy.
        avoid: replicas that had no room for this call; they come last.
    """
    idlest = min((candidate.tokens for candidate in candidates), default=0)

    def rank(candidate: Candidate) -> tuple[bool, bool, bool, bytes]:
        holds = model in candidate.models
        # Before any replica holds the model, all of its calls agree on one to load it.
        weight = rendezvous(key if holds else model.encode(), candidate.replica)
        return candidate.replica in avoid, candidate.tokens > idlest + busy_tokens, not holds, weight

    return sorted(candidates, key=rank)


def rendezvous(key: bytes, replica: str) -> bytes:
    """The replica with the least of these has the key."""
    return hashlib.blake2b(key + replica.encode(), digest_size=8).digest()


def prefix_key(model: str, instruction: str | None, query: str) -> bytes:
    """The key of a prompt's prefix; each field with its length before it."""
    digest = hashlib.blake2b(digest_size=16)
    for text in (model, instruction or "", query):
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.digest()
