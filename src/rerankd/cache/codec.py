"""A cached score as bytes: version, logit, tokens, truncated flag, and a check over all of it. Never pickle.

The check covers the key too, so a value that ended up under another key is corrupt, not a wrong score. Without a
secret it is a checksum (18 bytes a value), which finds accidents. With one it is a MAC (30 bytes): whoever can write
to the store cannot make a score up.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import struct
import zlib

from rerankd.cache.base import CachedScore

_CHECKSUM_VERSION, _MAC_VERSION = 1, 2
# The logit as a double holds a float32 exactly.
_BODY = struct.Struct("<BdI?")
_CHECKSUM = struct.Struct("<I")
_MAC_BYTES = 16


class CorruptValue(ValueError):
    """Bytes that are no score of this version under this key, or not of this secret."""


class Codec:
    """Scores to bytes and back.

    Args:
        secret: shared by all replicas; empty for a checksum alone.
    """

    def __init__(self, secret: str = "") -> None:
        self._secret = hashlib.sha256(b"rerankd score cache" + secret.encode()).digest() if secret else b""
        self._version = _MAC_VERSION if secret else _CHECKSUM_VERSION
        self.value_bytes = _BODY.size + (_MAC_BYTES if secret else _CHECKSUM.size)

    def encode(self, key: bytes, score: CachedScore) -> bytes:
        body = _BODY.pack(self._version, score.logit, score.tokens, score.truncated)
        return body + self._check(key + body)

    def decode(self, key: bytes, value: bytes) -> CachedScore:
        """The score, to the bit; raises CorruptValue for anything else than what ``encode`` made for this key."""
        if len(value) != self.value_bytes or value[0] != self._version:
            raise CorruptValue("wrong length or version")
        body = value[: _BODY.size]
        if not hmac.compare_digest(value[_BODY.size :], self._check(key + body)):
            raise CorruptValue("wrong checksum or secret")
        _, logit, tokens, truncated = _BODY.unpack(body)
        if not math.isfinite(logit):
            raise CorruptValue("not a finite score")
        return CachedScore(logit, tokens, truncated)

    def _check(self, message: bytes) -> bytes:
        if self._secret:
            return hmac.digest(self._secret, message, "sha256")[:_MAC_BYTES]
        return _CHECKSUM.pack(zlib.crc32(message))
