"""What a step frees, kept for the next step."""

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h
_SET_BY_USER = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_")


def keep_freed_memory() -> None:
    """Let this process keep the memory that its tensors free, where the C library is glibc and nobody has set it up.

    By default glibc maps every block above 32 MiB by itself and unmaps it when it is freed. Most activations of a
    batch on the CPU are such blocks, so that in each step the system clears and maps all their pages anew: a third of
    the step. The price is that the process keeps the size of its greatest step until it ends. (mallopt(3); the tuning
    guide of PyTorch advises another allocator for the same reason.)
    """
    if "CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", {}) or _is_set_by_user():
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, -1)


def _is_set_by_user() -> bool:
    return any(name in os.environ for name in _SET_BY_USER) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
