"""How far a run is, how fast, and how long it will take, on standard error."""

from __future__ import annotations

import sys
import time

import click

_SECONDS_ON_A_TERMINAL = 0.25
_SECONDS_IN_A_FILE = 5.0


class Progress:
    """One line that moves on a terminal, one line every few seconds elsewhere.

    Args:
        size: the place of the input's end; None where it is not known.
        place: where this run begins.
        shown: None shows it on a terminal alone.
    """

    def __init__(self, size: int | None, place: int, shown: bool | None) -> None:
        self._moves = sys.stderr.isatty()
        self._shown = self._moves if shown is None else shown
        self._size = size
        self._began_at = place
        self._started = 0.0
        self._next = 0.0
        self._records = 0

    def start(self) -> None:
        """The first record is asked for: what was before, such as loading a model, is no part of the rate."""
        self._started = time.monotonic()

    @property
    def rate(self) -> float:
        """Records a second, since the start of this run."""
        return self._records / max(time.monotonic() - self._started, 1e-9)

    def advance(self, place: int, failed: int) -> None:
        """One more record is done; ``place`` is where the next begins."""
        self._records += 1
        if not self._shown:
            return
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + (_SECONDS_ON_A_TERMINAL if self._moves else _SECONDS_IN_A_FILE)
        self._say(self.line(place, failed), end=not self._moves)

    def line(self, place: int, failed: int) -> str:
        """The line itself: ``61 %, 12,345 records, 1,234/s, 0:05:12 left, 3 failed``."""
        parts = [records_said(self._records), f"{self.rate:,.0f}/s"]
        if self._size:
            parts.insert(0, f"{100 * place // self._size} %")
            done = place - self._began_at
            if done:
                left = (time.monotonic() - self._started) * (self._size - place) / done
                parts.append(f"{_clock(left)} left")
        if failed:
            parts.append(f"{failed:,} failed")
        return ", ".join(parts)

    def close(self) -> None:
        if self._shown and self._moves:
            self._say("", end=False)

    def _say(self, text: str, *, end: bool) -> None:
        # Carriage return and "erase to the end of the line" on a terminal.
        click.echo(text if end else f"\r\x1b[K{text}", err=True, nl=end)


def records_said(count: int) -> str:
    """A count of records in words: ``1 record``, ``12,345 records``."""
    return f"{count:,} record{'' if count == 1 else 's'}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
