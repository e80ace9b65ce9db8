"""Keeping freed memory, for a process whose work is to read a large run."""

from __future__ import annotations

import ctypes
import sys

_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD, _M_ARENA_MAX = -3, -1, -8  # malloc.h
_ARRAYS = 32 * 2**20
"""Larger blocks still come straight from the system (glibc allows no higher threshold) and go back to it."""
_KEPT = 2**30


def keep_freed_memory() -> None:
    """Tells glibc to reuse what is freed instead of giving it back; does nothing elsewhere.

    A batch's columns are a megabyte each: by default they are given back to the system and faulted in again
    batch after batch, two thirds of all page faults of an analysis. For the whole process, so for commands,
    not for libraries; call it before threads start.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return
    mallopt(_M_ARENA_MAX, 1)
    mallopt(_M_MMAP_THRESHOLD, _ARRAYS)
    mallopt(_M_TRIM_THRESHOLD, _KEPT)
