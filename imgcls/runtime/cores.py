"""The processor cores that this process may use."""

import os

CORES = "IMGCLS_CORES"  # set for each of several processes of a search: its share


def available_cores() -> int:
    """Number of processor cores that this process may use, by its affinity and its container's quota."""
    if CORES in os.environ:
        return int(os.environ[CORES])
    from joblib import cpu_count  # not above: its import takes longer than an instant answer

    return int(cpu_count())
