"""What a tokenizer's normaliser makes of a text, read from its definition in tokenizer.json.

NFKC makes 18 characters of one, a ``Replace`` as many as its author likes. A definition beyond the bounds here is
refused when the checkpoint is opened; what may grow within them is measured text by text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rerankd.errors import ConfigurationError

_MAX_REPLACEMENT = 64
"""Characters of a replacement; SentencePiece's own are one or two."""
_MAX_STEPS = 32
_UNICODE_FORMS = frozenset({"NFC", "NFD", "NFKC", "NFKD"})
"""Each leaves ASCII as it is: Unicode Standard Annex 15, section 1.2."""


def grows_ascii(definition: Any) -> bool:
    """Whether plain ASCII text may become longer: some replacement is longer than what it replaces.

    Args:
        definition: ``normalizer`` of tokenizer.json.

    Raises:
        ConfigurationError: a replacement or the sequence of steps is absurdly long.
    """
    grows = False
    for step in _steps(definition):
        added = str(step.get("content") or step.get("prepend") or "")
        if len(added) > _MAX_REPLACEMENT:
            raise ConfigurationError(
                f"the tokenizer's normalizer puts in {len(added)} characters at once; {_MAX_REPLACEMENT} are taken"
            )
        pattern = step.get("pattern")
        replaced = pattern.get("String") if isinstance(pattern, dict) else None
        grows |= len(added) > (len(replaced) if isinstance(replaced, str) and replaced else 1)
        if replaced == "":
            raise ConfigurationError("the tokenizer's normalizer replaces the empty text, which is everywhere")
    return grows


def ascii_normalizer(definition: Any) -> Callable[[str], str] | None:
    """What the normaliser does to plain ASCII text, where one method of ``str`` does the same; else None.

    Args:
        definition: ``normalizer`` of tokenizer.json.
    """
    kinds = {str(step.get("type")) for step in _steps(definition)} - {"Sequence"} - _UNICODE_FORMS
    if kinds == {"Lowercase"}:
        return str.lower
    return None if kinds else str


def _steps(definition: Any) -> list[dict[str, Any]]:
    """All steps of nested sequences, in no particular order."""
    found: list[dict[str, Any]] = []
    waiting = [definition]
    while waiting:
        step = waiting.pop()
        if isinstance(step, dict):
            found.append(step)
            inner = step.get("normalizers")
            waiting += inner if isinstance(inner, list) else []
        if len(found) + len(waiting) > _MAX_STEPS:
            raise ConfigurationError(f"the tokenizer's normalizer has more than {_MAX_STEPS} steps")
    return found
