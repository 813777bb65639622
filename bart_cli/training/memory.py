"""What a training process tells the C library about memory."""

from __future__ import annotations

import ctypes
import sys

# malloc.h: parameters of mallopt(3).
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Let freed tensors serve the next step instead of going back to the kernel; False: cannot.

    A step of BART-base on a CPU frees and asks again for more than 1 GB in pieces of up to 154 MB.
    By default glibc maps each anew, and the kernel clears every page: a third of the step.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl has none
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
