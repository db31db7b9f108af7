"""Cache keys: a hash over everything that a score depends on, so that no stale or foreign score can be found.

Every field goes in with its length before it: ("ab", "c") and ("a", "bc") are different keys. Texts are hashed
as they came, because tokenising them first would cost more than the look-up saves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


class ModelScope:
    """What all scores of one loaded model depend on.

    Args:
        model: the checkpoint as it was asked for.
        revision: a hash over the checkpoint's own files.
        template: :attr:`Template.revision`.
        dtype: number format of the weights; scores differ in their last digits.
        engine: which engine scores, for the same reason.
        device: the kind of processor it scores on, ``cpu`` or ``cuda``, for the same reason.
    """

    def __init__(self, *, model: str, revision: str, template: str, dtype: str, engine: str, device: str) -> None:
        self._digest = hashlib.sha256()
        _update(self._digest, model, revision, template, dtype, engine, device)

    def of(self, instruction: str, query: str, truncation: str, tenant: str = "") -> bytes:
        """A digest of all that the pairs of one request have in common, 32 bytes.

        Args:
            instruction: as it stands in the prompt.
            query: as the client sent it.
            truncation: every limit that may cut a pair.
            tenant: a salt that keeps callers apart; empty shares the cache.
        """
        digest = self._digest.copy()
        _update(digest, instruction, query, truncation, tenant)
        return digest.digest()


def _update(digest: hashlib._Hash, *fields: str) -> None:
    parts: list[bytes] = []
    for field in fields:
        data = field.encode("utf-8", "surrogatepass")
        parts += (len(data).to_bytes(8, "little"), data)
    digest.update(b"".join(parts))


def keys_for(scope: bytes, documents: Sequence[str]) -> list[bytes]:
    """One 32-byte key a document. The scope has a fixed length, and the document is all that comes after it."""
    common = hashlib.sha256(scope)
    keys = []
    for document in documents:
        digest = common.copy()
        digest.update(document.encode("utf-8", "surrogatepass"))
        keys.append(digest.digest())
    return keys
