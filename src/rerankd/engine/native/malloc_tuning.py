"""glibc's malloc, told when to give freed pages back: while weights are loaded, but not between layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rerankd.memory import call_glibc, give_back_freed

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
"""Parameters of mallopt, as in glibc's malloc.h."""
_KEPT_BYTES: Final = 64 * 2**20
_RETURNED_BYTES: Final = 2**20


@contextmanager
def returned_while_loading() -> Iterator[None]:
    """Freed pages go back while weights are read; after that, however it ended, they are kept."""
    return_freed_pages()
    try:
        yield
    finally:
        keep_freed_pages()


def return_freed_pages() -> None:
    """Let large blocks go back to the system when they are freed, as suits loading.

    Left alone, glibc soon cuts them out of memory that it holds, and more of it with every matrix: 2 GB for the 0.6B
    in int8, all of which later passes would touch sooner or later.
    """
    _set_thresholds(_RETURNED_BYTES, _RETURNED_BYTES)


def keep_freed_pages() -> None:
    """Let the memory that one layer frees be reused by the next.

    Left alone, glibc hands blocks of some megabytes back to the system at once: 200,000 page faults, and a fifth of
    the time, in one pass over 2,600 tokens of the 0.6B. What loading has freed goes back before.
    """
    give_back_freed()
    _set_thresholds(_KEPT_BYTES, 2 * _KEPT_BYTES)


def _set_thresholds(mmap: int, trim: int) -> None:
    call_glibc("mallopt", _M_MMAP_THRESHOLD, mmap)
    call_glibc("mallopt", _M_TRIM_THRESHOLD, trim)
