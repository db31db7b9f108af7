"""Where large blocks of memory come from, and where they go when they are freed."""

from __future__ import annotations

import ctypes
import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress

import pytest
import torch

from rerankd.engine.native.malloc_tuning import keep_freed_pages, return_freed_pages, returned_while_loading

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc 2.33"
)


BLOCK = 20 * 2**20
"""Bytes."""


class MallocInfo(ctypes.Structure):
    """What glibc's malloc.h calls struct mallinfo2."""

    _fields_ = [("fields", ctypes.c_size_t * 10)]


def mapped_bytes() -> int:
    """Of blocks that have been taken from the system one by one."""
    call = ctypes.CDLL(None).mallinfo2
    call.restype = MallocInfo
    _arena, _chunks, _fast, _blocks, mapped, *_ = call().fields
    return int(mapped)


def large_block() -> torch.Tensor:
    return torch.empty(BLOCK, dtype=torch.uint8)


def mapped_by_blocks(prepare: Callable[[], None]) -> list[int]:
    """What is mapped beyond the beginning after each of three blocks is taken, and after it is freed."""
    prepare()
    before, found = mapped_bytes(), []
    for _ in range(3):
        block = large_block()
        found.append(mapped_bytes() - before)
        del block
        found.append(mapped_bytes() - before)
    return found


def in_a_new_process(prepare: Callable[[], None]) -> list[int]:
    """Where nothing has been freed that a block could be cut out of: forked from one that imported torch."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(mapped_by_blocks, prepare).result()


def test_what_loading_frees_goes_back_at_once() -> None:
    found = in_a_new_process(return_freed_pages)
    assert all(taken >= BLOCK for taken in found[::2])
    assert found[1::2] == [0, 0, 0]


def test_what_a_layer_frees_is_kept() -> None:
    assert in_a_new_process(keep_freed_pages) == [0] * 6


def fail_to_load() -> None:
    with suppress(OSError), returned_while_loading():
        raise OSError


def test_what_a_layer_frees_is_kept_after_a_load_that_failed() -> None:
    assert in_a_new_process(fail_to_load) == [0] * 6
