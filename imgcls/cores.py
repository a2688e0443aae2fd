"""The processor cores that this process may use."""

import os

CORES = "IMGCLS_CORES"  # set for each of several processes of a search: its share


def available_cores() -> int:
    """Number of processor cores that this process may use."""
    if CORES in os.environ:
        return int(os.environ[CORES])
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
