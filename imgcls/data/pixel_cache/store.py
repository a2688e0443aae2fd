"""Append-only store of decoded images: a file of pixels, and an index with the offset of each image.

The process may be killed, or the machine lose power, at any moment: an image counts once its record is complete, and
records are written only after their pixels have reached the disk. The next writer truncates what follows the last valid
record. One process writes at a time (see ``fill``) while any number read. A record has a checksum, which is compared
when an image is first read; links and pipes instead of the files are refused.
"""

import mmap
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from imgcls.data.pixel_cache.disk_errors import naming_folder
from imgcls.errors import FullDiskError, RunError
from imgcls.images import Pixels
from imgcls.runtime.atomic_files import regular

PIXELS = "pixels.bin"  # uint8 RGB, one image after the other
INDEX = "index.bin"
NAME_LENGTH = 24

_RECORD = np.dtype(
    [("name", f"S{NAME_LENGTH}"), ("start", "<i8"), ("height", "<i4"), ("width", "<i4"), ("checksum", "<u8")]
)
_WORD = np.dtype("<u8")
COMMIT_SECONDS = 2.0  # of work that a killed process loses at most

Records = NDArray[Any]  # of _RECORD


def read_index(folder: Path) -> Records:
    """Return the records of complete images; none if nothing was written yet."""
    try:
        with open(folder / INDEX, "rb", opener=regular) as file:
            content = file.read()
        size = (folder / PIXELS).stat().st_size
    except FileNotFoundError:
        return np.empty(0, _RECORD)
    records = np.frombuffer(content, _RECORD, count=len(content) // _RECORD.itemsize)
    lengths = _lengths(records)
    ends = np.cumsum(lengths)
    valid = (records["start"] == ends - lengths) & (lengths > 0) & (ends <= size)
    return records if valid.all() else records[: int(np.argmin(valid))]


class Reader:
    """Reads images of a folder by their index in a list of names."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.file = folder / PIXELS
        records = read_index(folder)
        found = {name.decode(): number for number, name in enumerate(records["name"].tolist())}
        rows = np.array([found.get(name, -1) for name in names], dtype=np.intp)
        self.missing: list[int] = np.flatnonzero(rows < 0).tolist()
        self._records = np.append(records, np.zeros(1, _RECORD))[rows]  # the last one for missing images
        _ = self._compared  # created before workers are forked, which share it
        if len(records):
            _ = self._all  # opened now, before the file can be removed

    @property
    def nbytes(self) -> int:
        """Bytes of these images."""
        return int(_lengths(self._records).sum())

    def read(self, index: int) -> Pixels:
        """Return the pixels of an image, uint8, ``(H, W, 3)``, read-only.

        Raises:
            RunError: If they do not match their checksum.
        """
        _, start, height, width, checksum = self._records[index].item()
        pixels = self._all[start : start + 3 * height * width]
        if not self._compared[index]:  # once per run: 11 us for 260 kB, which take 140 us to read and augment
            if _checksum(pixels, start) != checksum:
                raise RunError(
                    f"cache: {self.file} is damaged at byte {start:,}; remove the folder {self.file.parent}, so that "
                    "its images are decoded again"
                )
            self._compared[index] = 1
        return pixels.reshape(height, width, 3)

    @cached_property
    def _compared(self) -> mmap.mmap:
        return mmap.mmap(-1, len(self._records) + 1)

    @cached_property
    def _all(self) -> Pixels:
        with open(self.file, "rb", opener=regular) as file:
            # an array, since slices of a memmap are slower
            return np.memmap(file, np.uint8, "r").view(np.ndarray)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out memory maps, which a spawned worker creates again."""
        return {key: value for key, value in vars(self).items() if key not in {"_all", "_compared"}}


class Writer:
    """Appends images; leaving the context commits the last ones, also after an error or Ctrl-C.

    If the disk is full, it removes all that it has added, since the run needs the space for its checkpoints.

    Args:
        folder: The folder; its lock must be held.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nbytes = 0
        self.count = 0

    def __enter__(self) -> Self:
        with naming_folder(self.folder):
            records = read_index(self.folder)
            self._end = int(_lengths(records).sum())
            self._pixels = _open_at(self.folder / PIXELS, self._end)
            self._index = _open_at(self.folder / INDEX, records.nbytes)
        self._begun = self._kept = self._end, records.nbytes  # sizes of both files
        self._waiting: list[tuple[bytes, int, int, int, int]] = []
        self._committed = time.monotonic()
        return self

    def add(self, name: str, pixels: Pixels) -> None:
        """Append an image, uint8, ``(H, W, 3)``.

        Raises:
            RunError: If the disk is full.
        """
        content = np.ascontiguousarray(pixels).reshape(-1)
        with naming_folder(self.folder):
            self._pixels.write(content.data)
        self._waiting.append((name.encode(), self._end, *pixels.shape[:2], _checksum(content, self._end)))
        self._end += pixels.nbytes
        self.nbytes += pixels.nbytes
        self.count += 1
        if time.monotonic() - self._committed > COMMIT_SECONDS:
            self._commit()

    def _commit(self) -> None:
        with naming_folder(self.folder):
            self._sync(self._pixels)
            written = self._index.write(np.array(self._waiting, _RECORD).tobytes())
            self._sync(self._index)
        self._waiting, self._kept = [], (self._end, self._kept[1] + written)
        self._committed = time.monotonic()

    def _sync(self, file: IO[bytes]) -> None:
        file.flush()
        os.fsync(file.fileno())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        is_full = isinstance(error, FullDiskError)
        try:
            if not is_full:
                self._commit()
        finally:
            for file in (self._pixels, self._index):
                with suppress(OSError):  # a full disk, already reported
                    file.close()
            with naming_folder(self.folder):
                for name, size in zip((PIXELS, INDEX), self._begun if is_full else self._kept, strict=True):
                    os.truncate(self.folder / name, size)


def _open_at(path: Path, size: int) -> IO[bytes]:
    """Open a file for appending, truncated to a size in bytes."""
    file = open(path, "ab", opener=regular)  # noqa: SIM115
    file.truncate(size)
    return file


def _checksum(content: Pixels, start: int) -> int:
    """Return the sum of the aligned 64-bit words of an image at an offset in the file, and of the bytes around them.

    It detects any change of a single word; CRC-32 takes six times as long.
    """
    first = min(-start % _WORD.itemsize, len(content))
    last = len(content) - (len(content) - first) % _WORD.itemsize
    words = int(content[first:last].view(_WORD).sum(dtype=_WORD))
    ends = (int.from_bytes(part.tobytes(), "little") for part in (content[:first], content[last:]))
    return sum(ends, words) % 2**64


def _lengths(records: Records) -> NDArray[np.int64]:
    lengths: NDArray[np.int64] = 3 * records["height"].astype(np.int64) * records["width"]
    return lengths
