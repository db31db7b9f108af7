"""One finding of ``rerankd doctor``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Status: TypeAlias = Literal["good", "warning", "bad", "skipped"]


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, and what was found.

    Attributes:
        name: one word, the same in every run.
        says: what was found, in a sentence.
        cause: a word for a program, where something is wrong; documented in docs/how-to/doctor.md.
        advice: what to do about it.
    """

    name: str
    status: Status
    says: str
    cause: str = ""
    advice: str = ""
