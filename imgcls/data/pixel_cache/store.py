"""Decoded images of any sizes in one file, and an index that says where each lies; both only ever grow.

A process may be killed, or the machine lose its power, at any moment: an image counts once its record is whole, and
records are written only after their pixels have reached the disk. What follows the last good record is cut off by the
next writer. One process writes at a time (see ``fill``); any number may read meanwhile.
"""

import os
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from imgcls.data.pixel_cache.disk import using
from imgcls.images import Pixels

PIXELS = "pixels.bin"  # uint8 RGB, one image after the other
INDEX = "index.bin"
NAME_LENGTH = 24

_RECORD = np.dtype([("name", f"S{NAME_LENGTH}"), ("start", "<i8"), ("height", "<i4"), ("width", "<i4")])
COMMIT_SECONDS = 2.0  # what a killed process loses at most

Records = NDArray[Any]  # of _RECORD


def read_index(folder: Path) -> Records:
    """Return the records of the images that are whole; there are none where nothing was written yet."""
    try:
        content = (folder / INDEX).read_bytes()
        size = (folder / PIXELS).stat().st_size
    except FileNotFoundError:
        return np.empty(0, _RECORD)
    records = np.frombuffer(content, _RECORD, count=len(content) // _RECORD.itemsize)
    lengths = _lengths(records)
    ends = np.cumsum(lengths)
    good = (records["start"] == ends - lengths) & (lengths > 0) & (ends <= size)
    return records if good.all() else records[: int(np.argmin(good))]


class Reader:
    """Some images of a folder, by place.

    Args:
        folder: The folder.
        names: The name of each image.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.file = folder / PIXELS
        records = read_index(folder)
        found = {name.decode(): number for number, name in enumerate(records["name"].tolist())}
        rows = np.array([found.get(name, -1) for name in names], dtype=np.intp)
        self.missing: list[int] = np.flatnonzero(rows < 0).tolist()
        self._kept = np.append(records, np.zeros(1, _RECORD))[rows]  # the last one stands for those that are missing
        if len(records):
            _ = self._all  # opened now, before anyone can remove the file

    @property
    def nbytes(self) -> int:
        """Bytes of these images."""
        return int(_lengths(self._kept).sum())

    def read(self, place: int) -> Pixels:
        """Return the pixels at ``place``, uint8, ``(H, W, 3)``, read-only."""
        _, start, height, width = self._kept[place].item()
        return self._all[start : start + 3 * height * width].reshape(height, width, 3)

    @cached_property
    def _all(self) -> Pixels:
        # a plain array, whose slices cost less than those of a memmap
        return np.memmap(self.file, np.uint8, "r").view(np.ndarray)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the mapped file out; a worker that is no fork maps it anew."""
        return {key: value for key, value in vars(self).items() if key != "_all"}


class Writer:
    """Appends images; leaving the context makes the last ones count, also after an error or Ctrl-C.

    Args:
        folder: The folder; its lock must be held.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nbytes = 0
        self.count = 0

    def __enter__(self) -> Self:
        with using(self.folder):
            records = read_index(self.folder)
            self._end = int(_lengths(records).sum())
            self._pixels = _open_at(self.folder / PIXELS, self._end)
            self._index = _open_at(self.folder / INDEX, records.nbytes)
        self._waiting: list[tuple[bytes, int, int, int]] = []
        self._committed = time.monotonic()
        return self

    def add(self, name: str, pixels: Pixels) -> None:
        """Append an image, uint8, ``(H, W, 3)``.

        Raises:
            ConfigError: If the disk is full.
        """
        with using(self.folder):
            self._pixels.write(np.ascontiguousarray(pixels).data)
        self._waiting.append((name.encode(), self._end, *pixels.shape[:2]))
        self._end += pixels.nbytes
        self.nbytes += pixels.nbytes
        self.count += 1
        if time.monotonic() - self._committed > COMMIT_SECONDS:
            self._commit()

    def _commit(self) -> None:
        with using(self.folder):
            self._sync(self._pixels)
            self._index.write(np.array(self._waiting, _RECORD).tobytes())
            self._sync(self._index)
        self._waiting = []
        self._committed = time.monotonic()

    def _sync(self, file: IO[bytes]) -> None:
        file.flush()
        os.fsync(file.fileno())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._pixels, self._index:
            self._commit()


def _open_at(path: Path, size: int) -> IO[bytes]:
    """Open a file to append, cut to a size."""
    file = path.open("ab")
    file.truncate(size)
    return file


def _lengths(records: Records) -> NDArray[np.int64]:
    lengths: NDArray[np.int64] = 3 * records["height"].astype(np.int64) * records["width"]
    return lengths
