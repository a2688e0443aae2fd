"""Number of processor cores available to this process."""

import os

CORES = "IMGCLS_CORES"  # set for each worker of a parallel search: its share of the cores


def available_cores() -> int:
    """Return the number of cores allowed by CPU affinity and the container's quota."""
    if CORES in os.environ:
        return int(os.environ[CORES])
    from joblib import cpu_count  # imported here, because it takes longer than the quick commands may

    return int(cpu_count())
