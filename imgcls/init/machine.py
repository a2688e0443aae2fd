"""What this machine has: cores and GPUs, found without importing torch."""

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass

from imgcls.runtime.cores import available_cores
from imgcls.runtime.serialize import versions

_SECONDS = 10  # that nvidia-smi may take


@dataclass(frozen=True)
class Machine:
    """The machine to train on.

    Args:
        cores: Number of processor cores that this process may use.
        gpu: Name of the first GPU; None without one that torch can use.
        memory: Its memory in GB; None if unknown.
    """

    cores: int
    gpu: str | None = None
    memory: float | None = None

    def __str__(self) -> str:
        """Return the device in a few words."""
        if self.gpu is None:
            return f"CPU, {self.cores} core{'' if self.cores == 1 else 's'}"
        return self.gpu if self.memory is None else f"{self.gpu}, {self.memory:.0f} GB"


def this_machine() -> Machine:
    """Return cores and GPU of this machine."""
    cores = available_cores()
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return Machine(cores, "Apple GPU")
    if "+cpu" in versions().get("torch", "") or os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return Machine(cores)
    return Machine(cores, *_nvidia())


def _nvidia() -> tuple[str | None, float | None]:
    """Return name and memory in GB of the first GPU of NVIDIA."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None, None
    query = [program, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, timeout=_SECONDS, check=True)  # noqa: S603 - fixed
        name, memory = found.stdout.splitlines()[0].rsplit(",", 1)
        return name.strip(), float(memory) / 1024
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):  # no driver, or no GPU
        return None, None
