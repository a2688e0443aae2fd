"""Room for the features of a split: in memory where they fit, else in a file that vanishes with the process."""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from imgcls.errors import size_in_words

log = logging.getLogger(__name__)

_SHARE = 0.25  # of the free memory
_MARGIN = 1.1  # of the disk
_UNKNOWN = 4e9  # bytes that are taken to be free where the system does not tell
_MEMINFO = Path("/proc/meminfo")
_GROUPS = Path("/proc/self/cgroup")
_LIMITS = {  # a line's controllers -> folder, limit and use; none of version 2, which has a single tree
    "": (Path("/sys/fs/cgroup"), "memory.max", "memory.current"),
    "memory": (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes"),
}


class FeatureStore:
    """The features of every sample of a split, in every view.

    They lie in memory where they take at most a quarter of what is free there, else in a file in ``folder``, which is
    mapped into memory and has no name: the system frees it with the process, however that ends.

    Args:
        views: Number of views.
        samples: Number of samples.
        like: Features ``(B, ...)`` of any batch; shape, type and memory layout of the others.
        folder: Where the file lies, if it takes one.

    Raises:
        OSError: If they fit neither here nor there.
    """

    def __init__(self, views: int, samples: int, like: Tensor, folder: Path) -> None:
        # channels-last batches come out as they came in
        self._is_channels_last = like.ndim == 4 and like.is_contiguous(memory_format=torch.channels_last)
        shape = (views, samples, *self._laid_out(like).shape[1:])
        self.nbytes = prod(shape) * like.element_size()
        self.is_on_disk = self.nbytes > _SHARE * free_memory()
        self._values = _mapped(folder, shape, like.dtype) if self.is_on_disk else torch.empty(shape, dtype=like.dtype)
        self.there = torch.zeros(views, samples, dtype=torch.bool)

    def put(self, view: int, places: Sequence[int], features: Tensor) -> None:
        """Keep the features of some samples.

        Args:
            view: The view.
            places: The samples.
            features: One row a sample.
        """
        self._values[view, list(places)] = self._laid_out(features).cpu()
        self.there[view, list(places)] = True

    def take(self, view: int, places: Sequence[int]) -> Tensor:
        """Return the features of some samples, one row a sample."""
        rows = self._values[view, torch.tensor(list(places), dtype=torch.int64)]
        return rows.permute(0, 3, 1, 2) if self._is_channels_last else rows

    def forget(self) -> None:
        """Give the room back."""
        self._values = self._values.new_empty(0)

    def _laid_out(self, features: Tensor) -> Tensor:
        return features.permute(0, 2, 3, 1) if self._is_channels_last else features


def free_memory() -> float:
    """Bytes of memory that this process may still take, as far as the system tells."""
    found = [_UNKNOWN]
    if _MEMINFO.is_file():
        lines = dict(line.split(":") for line in _MEMINFO.read_text(encoding="ascii").splitlines())
        found = [1024.0 * int(lines["MemAvailable"].split()[0])]
    return min([*found, *_left_in_groups()])


def _left_in_groups() -> Iterator[float]:
    """Bytes that the control groups of this process leave it, from its own up to the root: a job of SLURM has one."""
    lines = _GROUPS.read_text(encoding="utf-8").splitlines() if _GROUPS.is_file() else []
    for kinds, path in (line.split(":", 2)[1:] for line in lines):
        if kinds not in _LIMITS:
            continue
        root, most, used = _LIMITS[kinds]
        own = root / path.lstrip("/")
        for folder in (root, own, *(above for above in own.parents if above.is_relative_to(root))):
            if (folder / most).is_file() and (limit := (folder / most).read_text(encoding="ascii").strip()) != "max":
                yield float(limit) - float((folder / used).read_text(encoding="ascii"))


def _mapped(folder: Path, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return a tensor whose memory is a file; all of its room is taken at once, for a full disk would kill a write."""
    folder.mkdir(parents=True, exist_ok=True)
    nbytes = prod(shape) * dtype.itemsize
    free = shutil.disk_usage(folder).free
    if nbytes * _MARGIN > free:
        raise OSError(f"{size_in_words(free)} are free in {folder}")
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        if not hasattr(os, "posix_fallocate"):
            raise OSError("this system reserves no room for a file")
        os.posix_fallocate(file.fileno(), 0, nbytes)
        return torch.from_file(file.name, shared=True, size=prod(shape), dtype=dtype).view(*shape)
