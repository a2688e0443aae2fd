"""Storage of a split's features: in memory if they fit, else in an unnamed file that the system frees."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from imgcls.errors import size_in_words

_MEMORY_SHARE = 0.25  # of the available memory
_DISK_MARGIN = 1.1  # of the size of the file
_UNKNOWN = 4e9  # bytes assumed to be available where the system does not report it
_MEMINFO = Path("/proc/meminfo")
_CGROUPS = Path("/proc/self/cgroup")
_CGROUP_LIMITS = {  # controllers of a line -> folder, limit and usage; version 2 has one tree, without controllers
    "": (Path("/sys/fs/cgroup"), "memory.max", "memory.current"),
    "memory": (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes"),
}


class FeatureStore:
    """The features of every sample of a split, in every augmented version.

    They are kept in memory if they take at most a quarter of what is available, else in a memory-mapped file in
    ``folder`` without a name, which the system frees when the process ends.

    Args:
        versions: Number of augmented versions per sample.
        samples: Number of samples.
        like: Features ``(B, ...)`` of any batch, with the shape, dtype and memory layout of the others.
        folder: Folder of the file, if one is needed.

    Raises:
        OSError: If they fit neither into memory nor on the disk.
    """

    def __init__(self, versions: int, samples: int, like: Tensor, folder: Path) -> None:
        # channels-last features are returned channels-last
        self._is_channels_last = like.ndim == 4 and like.is_contiguous(memory_format=torch.channels_last)
        shape = (versions, samples, *self._to_rows(like).shape[1:])
        self.nbytes = prod(shape) * like.element_size()
        self.is_on_disk = self.nbytes > _MEMORY_SHARE * available_memory()
        self._values = _mapped(folder, shape, like.dtype) if self.is_on_disk else torch.empty(shape, dtype=like.dtype)
        self.present = torch.zeros(versions, samples, dtype=torch.bool)

    def put(self, version: int, indices: Sequence[int], features: Tensor) -> None:
        """Store the features ``(B, ...)`` of samples in an augmented version."""
        self._values[version, list(indices)] = self._to_rows(features).cpu()
        self.present[version, list(indices)] = True

    def get(self, version: int, indices: Sequence[int]) -> Tensor:
        """Return the features of samples, ``(B, ...)``."""
        rows = self._values[version, torch.tensor(list(indices), dtype=torch.int64)]
        return rows.permute(0, 3, 1, 2) if self._is_channels_last else rows

    def release(self) -> None:
        """Free the memory or file."""
        self._values = self._values.new_empty(0)

    def _to_rows(self, features: Tensor) -> Tensor:
        return features.permute(0, 2, 3, 1) if self._is_channels_last else features


def available_memory() -> float:
    """Return the bytes of memory that this process may still use, as far as the system reports it."""
    found = [_UNKNOWN]
    if _MEMINFO.is_file():
        lines = dict(line.split(":") for line in _MEMINFO.read_text(encoding="ascii").splitlines())
        found = [1024.0 * int(lines["MemAvailable"].split()[0])]
    return min([*found, *_left_in_cgroups()])


def _left_in_cgroups() -> Iterator[float]:
    """Yield the bytes left by each control group of this process, as containers and SLURM jobs have, up to the root."""
    lines = _CGROUPS.read_text(encoding="utf-8").splitlines() if _CGROUPS.is_file() else []
    for controllers, path in (line.split(":", 2)[1:] for line in lines):
        if controllers not in _CGROUP_LIMITS:
            continue
        root, limit_file, usage_file = _CGROUP_LIMITS[controllers]
        own = root / path.lstrip("/")
        for folder in (root, own, *(above for above in own.parents if above.is_relative_to(root))):
            file = folder / limit_file
            if file.is_file() and (limit := file.read_text(encoding="ascii").strip()) != "max":
                yield float(limit) - float((folder / usage_file).read_text(encoding="ascii"))


def _mapped(folder: Path, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return a tensor in a file; its space is reserved, since writing to a full disk would kill the process."""
    folder.mkdir(parents=True, exist_ok=True)
    nbytes = prod(shape) * dtype.itemsize
    free = shutil.disk_usage(folder).free
    if nbytes * _DISK_MARGIN > free:
        raise OSError(f"{size_in_words(free)} are free in {folder}")
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        if not hasattr(os, "posix_fallocate"):
            raise OSError("this system cannot reserve space for a file")
        os.posix_fallocate(file.fileno(), 0, nbytes)
        return torch.from_file(file.name, shared=True, size=prod(shape), dtype=dtype).view(*shape)
