"""Texts from outside, made harmless for a terminal and short enough for a message."""

from __future__ import annotations

import re

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but the tab, what turns the direction of writing, and halves of surrogate pairs."""

_LONGEST_VALUE = 60
"""Characters of a refused value that a message shows."""

_CONTROL_BUT_LINES = re.compile(_CONTROL.pattern.replace("\\x0a", "\\x0b"))


def printable(text: str) -> str:
    """The text with what a terminal would obey shown as ``\\x1b`` and the like.

    Escape sequences can retitle a window, move the cursor over what was printed, or paste commands.
    """
    return _CONTROL.sub(lambda match: _escaped(ord(match.group())), text)


def printable_json(text: str) -> str:
    """JSON in which the same characters stand as JSON's own escapes, so that it says the same."""
    return _CONTROL_BUT_LINES.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def shown(value: object) -> str:
    """A refused value, as a message of one line names it."""
    # A whole number of a million digits is not written out: that takes quadratic time, and nobody reads it.
    if isinstance(value, int) and abs(value) >= 1 << 64:
        return "a number of more than 64 bits"
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def _escaped(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
