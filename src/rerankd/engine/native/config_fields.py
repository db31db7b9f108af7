"""Checked values of a checkpoint's config.json; what is refused is named in one short line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rerankd.errors import ConfigurationError
from rerankd.printable import shown

Json = Mapping[str, Any]

MAX_SIZE: Final = 2**31 - 1
"""Largest size that config.json may name: ids and offsets are int32."""


@dataclass(frozen=True, slots=True)
class Fields:
    """Checked numbers of a JSON object."""

    values: Json
    path: Path

    def size(self, name: str, default: int | None = None, most: int = MAX_SIZE) -> int:
        """A whole number from 1 to ``most``."""
        value = self.values.get(name)
        if value is None:
            value = default
        if value is None:
            raise ConfigurationError(f"{self.path} does not say {name!r}")
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise ConfigurationError(
                f"{self.path}: {name!r} has to be a whole number from 1 to {most}, not {shown(value)}"
            )
        return value

    def positive(self, name: str, default: float) -> float:
        """A finite number above 0."""
        value = self.values.get(name)
        if value is None:
            value = default
        if isinstance(value, bool) or not isinstance(value, int | float) or not _is_positive(value):
            raise ConfigurationError(f"{self.path}: {name!r} has to be a number above 0, not {shown(value)}")
        return float(value)


def _is_positive(value: int | float) -> bool:
    try:
        return 0 < float(value) < math.inf
    except OverflowError:
        return False
