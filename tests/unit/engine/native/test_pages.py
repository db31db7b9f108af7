"""Where large blocks of memory come from, and where they go when they are freed."""

from __future__ import annotations

import ctypes
import sys

import pytest
import torch

from rerankd.engine.native.memory import keep_freed_pages, return_freed_pages

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc 2.33"
)


class MallocInfo(ctypes.Structure):
    """What glibc's malloc.h calls struct mallinfo2."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


def mapped_bytes() -> int:
    """Of blocks that have been taken from the system one by one."""
    call = ctypes.CDLL(None).mallinfo2
    call.restype = MallocInfo
    return int(call().hblkhd)


def large_block() -> torch.Tensor:
    return torch.empty(20 * 2**20, dtype=torch.uint8)


def test_what_loading_frees_goes_back_at_once() -> None:
    return_freed_pages()
    try:
        before = mapped_bytes()
        for _ in range(3):
            block = large_block()
            assert mapped_bytes() >= before + block.nbytes
            del block
            assert mapped_bytes() == before
    finally:
        keep_freed_pages()


def test_what_a_layer_frees_is_kept() -> None:
    keep_freed_pages()
    before = mapped_bytes()
    blocks = [large_block() for _ in range(3)]
    assert mapped_bytes() == before
    del blocks
