"""Make glibc keep freed memory instead of returning it to the OS after each step."""

import ctypes
import os
from functools import cache

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h
_SET_BY_USER = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_")


@cache
def keep_freed_memory() -> None:
    """Make this process reuse the memory of freed tensors; no effect without glibc or if the user has configured it.

    By default glibc maps every block above 32 MiB separately and unmaps it when it is freed. The large activations of
    a batch are such blocks, so the kernel clears all their pages again in each step, about a quarter of a step on the
    CPU. The cost is that the process stays at its peak size, about a fifth larger because of fragmentation.
    (mallopt(3); PyTorch's tuning guide recommends another allocator for the same reason.)

    Free memory is returned before a fork, since a loader worker would keep the pages for its whole life.
    """
    if "CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", {}) or _is_set_by_user():
        return
    library = ctypes.CDLL(None)
    library.mallopt(_MMAP_MAX, 0)
    library.mallopt(_TRIM_THRESHOLD, -1)
    os.register_at_fork(before=lambda: library.malloc_trim(0))


def _is_set_by_user() -> bool:
    return any(name in os.environ for name in _SET_BY_USER) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
