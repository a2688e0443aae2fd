"""What a step frees, kept for the next step."""

import ctypes
import os
from functools import cache

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h
_SET_BY_USER = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_")


@cache
def keep_freed_memory() -> None:
    """Let this process keep the memory that its tensors free, where the C library is glibc and nobody has set it up.

    By default glibc maps every block above 32 MiB by itself, and unmaps it when it is freed. Large activations of a
    batch are such blocks, so that in each step the system maps and clears all their pages anew: about a quarter of the
    step. The price is that the process keeps its greatest size, and grows by a fifth, for gaps between blocks are not
    given back. (mallopt(3); PyTorch's tuning guide advises another allocator for the same reason.)

    Before a fork all that is free is given back: a loader worker would hold the pages for as long as it lives.
    """
    if "CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", {}) or _is_set_by_user():
        return
    library = ctypes.CDLL(None)
    library.mallopt(_MMAP_MAX, 0)
    library.mallopt(_TRIM_THRESHOLD, -1)
    os.register_at_fork(before=lambda: library.malloc_trim(0))


def _is_set_by_user() -> bool:
    return any(name in os.environ for name in _SET_BY_USER) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
