"""FeatureFile: a .npy file with the pooled features of each image, written batch by batch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from torch import Tensor

from imgcls.runtime.atomic_files import PartialFile
from imgcls.runtime.process_parts import concatenate
from imgcls.runtime.resumable_output import Output


class FeatureFile:
    """Write a float32 array ``(images, D)``, in the order of the inputs; rows of unreadable images are NaN.

    Args:
        path: The file.
        total: Number of images.
    """

    def __init__(self, path: Path, total: int) -> None:
        self.output = Output(path, concatenate)
        self.total = total
        self._file: PartialFile | None = None
        self._is_first = False

    def begin(self, file: PartialFile, is_first: bool) -> None:
        """Start to write, after the rows that an open file has; ``is_first``: whether it is the start of the array."""
        self._file, self._is_first = file, is_first

    def add(self, features: Tensor, errors: Sequence[str]) -> None:
        """Write the rows of features ``(B, D)``; an image that could not be read has an error, the others have ""."""
        assert self._file is not None  # noqa: S101 - begun before
        rows = features.float().cpu().numpy().astype("<f4")
        rows[[bool(error) for error in errors]] = np.nan
        if self._is_first and not self._file.tell():
            shape = (self.total, rows.shape[1])
            npy.write_array_header_1_0(self._file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        self._file.write(rows.tobytes())
        self._file.check()
