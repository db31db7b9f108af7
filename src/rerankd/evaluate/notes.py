"""What a run repaired or left out, counted by its reason, for the one line that ends it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(slots=True)
class Notes:
    """Counts by sentence; each shows the first place where it happened."""

    counts: dict[str, int] = field(default_factory=dict)
    _places: dict[str, str] = field(default_factory=dict)

    def add(self, what: str, file: Path | None = None, line: int = 0, count: int = 1) -> None:
        """Count something that was repaired or left out.

        Args:
            what: what happened and what was done, such as ``title that is no text, left out``.
            file, line: where; shown for the first one.
        """
        if not count:
            return
        self.counts[what] = self.counts.get(what, 0) + count
        if file is not None:
            self._places.setdefault(what, f"{file.name}:{line}" if line else file.name)

    def sentence(self) -> str:
        """One line; empty where nothing was touched."""
        parts = [
            f"{count} x {what}" + (f" (first at {self._places[what]})" if what in self._places else "")
            for what, count in self.counts.items()
        ]
        return f"Repaired or left out: {'; '.join(parts)}." if parts else ""
