"""Keeps memory that PyTorch frees on a CPU: Linux's C library returns large blocks to the system at once.

    free(40 MB) ──usually──►  unmapped; the next 40 MB are new pages, each cleared by the system at its first touch
                ──here─────►  kept by the process; the next 40 MB are those

A UNet asks for the same few sizes hundreds of times a forward pass, so it works in memory that it has touched before.
The price: a process keeps its peak until it ends, though it can use that memory for anything else. It may grow a little
beyond the peak, since blocks of different sizes share one heap. Weights loaded before are not affected.

Reference: mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD.
"""

import ctypes
import os
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # malloc.h
LARGEST = 1 << 30  # bytes of a block that is kept; a larger one is mapped as before
USER_OPTIONS = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")  # how users choose for themselves


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, from now on. Returns whether that was possible.

    It is not where the C library is not glibc (Mac, Windows, Alpine), nor where the user has set glibc's own
    environment variables: `MALLOC_TRIM_THRESHOLD_=131072 minit2v …` restores the system's way.
    """
    if not sys.platform.startswith("linux") or any(name in os.environ for name in USER_OPTIONS):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(MMAP_THRESHOLD, LARGEST) and mallopt(TRIM_THRESHOLD, 2**31 - 1))
