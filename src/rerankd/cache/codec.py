"""A cached score as 18 bytes: version, logit, tokens, truncated flag, checksum. Never pickle.

The checksum covers the key too, so a value that ended up under another key is corrupt, not a wrong score.
"""

from __future__ import annotations

import math
import struct
import zlib

from rerankd.cache.base import CachedScore

_VERSION = 1
# The logit as a double holds a float32 exactly.
_BODY = struct.Struct("<BdI?")
_CHECK = struct.Struct("<I")
VALUE_BYTES = _BODY.size + _CHECK.size


class CorruptValue(ValueError):
    """Bytes that are no score of this version under this key."""


def encode(key: bytes, score: CachedScore) -> bytes:
    body = _BODY.pack(_VERSION, score.logit, score.tokens, score.truncated)
    return body + _CHECK.pack(zlib.crc32(key + body))


def decode(key: bytes, value: bytes) -> CachedScore:
    """The score, to the bit; raises CorruptValue for anything else than what ``encode`` made for this key."""
    if len(value) != VALUE_BYTES or value[0] != _VERSION:
        raise CorruptValue("wrong length or version")
    body = value[: _BODY.size]
    if _CHECK.unpack_from(value, _BODY.size)[0] != zlib.crc32(key + body):
        raise CorruptValue("wrong checksum")
    _, logit, tokens, truncated = _BODY.unpack(body)
    if not math.isfinite(logit):
        raise CorruptValue("not a finite score")
    return CachedScore(logit, tokens, truncated)
