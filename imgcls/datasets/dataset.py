"""What a dataset is: a table of ids and labels, and a way to read the pixels of one."""

import os
import struct
import tarfile
import zlib
from functools import cached_property, partial
from hashlib import blake2b, file_digest
from typing import IO, BinaryIO

import numpy as np
import pandas as pd
from PIL import Image

from imgcls.errors import ConfigError, ImageError, first_line
from imgcls.images import MAX_PIXELS, Pixels, load_image

_hasher = partial(blake2b, digest_size=8)
_END = 64 * 1024  # bytes
_DAMAGED = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    struct.error,
    zlib.error,
    tarfile.TarError,
    Image.DecompressionBombError,
)


class ImageDataset:
    """Base of every dataset class: a table of samples, and the pixels of one of them.

    A class of your own sets ``samples`` (in ``__init__``, or as a property) and, where samples are not image files,
    overrides ``read``.
    """

    max_pixels: int = MAX_PIXELS
    """The largest width x height that is decoded; larger images are refused."""

    @cached_property
    def samples(self) -> pd.DataFrame:
        """One row a sample: ``path`` (unique text; the file's path where there is a file) and ``label`` where known.

        Where a sample may have several labels, a label is a tuple of names, empty where it has none of the classes.
        Further columns are kept, such as a patient's id to group samples by.
        """
        raise NotImplementedError(f"{type(self).__name__} must set 'samples', a DataFrame with 'path' and 'label'")

    @property
    def ignored(self) -> dict[str, str]:
        """Files that are not samples by a stated rule: path -> rule."""
        return {}

    @property
    def holds_files(self) -> bool:
        """Whether samples are image files, each at its ``path``; false for a class that reads pixels in its own way."""
        return type(self).read is ImageDataset.read

    def read(self, index: int) -> Pixels:
        """Return the pixels of row ``index`` of ``samples``, uint8, ``(H, W, 3)``, RGB.

        One thread of a process calls it at a time. Loader workers are forks, which share the position of a file that
        was opened before them: open it in ``read``, once for each ``os.getpid()``.

        Raises:
            ImageError: If the sample cannot be read; ``OSError``, ``ValueError`` and what else decoders raise of
                damaged files say that, too.
        """
        return load_image(self.sample_paths[index], self.max_pixels)

    def fingerprint(self, index: int) -> str:
        """Return a short hash of the content of row ``index``, the same wherever the sample lies; else of its id.

        Where there is no content, reading says why.
        """
        path = self.sample_paths[index]
        try:
            if os.path.isfile(path):
                with open(path, "rb") as file:  # not as a whole: several of some GB would not fit
                    return fingerprint_of_file(file)
            pixels = read_sample(self, index)
            return fingerprint_of(repr(pixels.shape).encode() + pixels.tobytes())
        except (ImageError, OSError):
            return fingerprint_of_id(path)

    def sampled_fingerprint(self, index: int) -> str:
        """Return a short hash of the size and both ends of the file of row ``index``; of no file, ``fingerprint``."""
        path = self.sample_paths[index]
        if type(self).fingerprint is not ImageDataset.fingerprint or not os.path.isfile(path):
            return self.fingerprint(index)
        try:
            with open(path, "rb") as file:
                return fingerprint_of_ends(file, os.fstat(file.fileno()).st_size)
        except OSError:
            return fingerprint_of_id(path)

    @cached_property
    def sample_paths(self) -> list[str]:
        """The column ``path`` as a list: a column takes a twentieth of a decoding to give one value."""
        return list(map(str, self.samples["path"]))

    def __str__(self) -> str:
        """Return what messages call the dataset, and what a run's folder is named after."""
        return type(self).__name__


def read_sample(data: ImageDataset, index: int) -> Pixels:
    """Return the pixels of a sample of any dataset class, uint8, ``(H, W, 3)``, RGB.

    Raises:
        ImageError: If it cannot be read: also where the class lets through what a reader raises at a damaged image.
        ConfigError: If the class returns anything else.
    """
    try:
        pixels = data.read(index)
    except (ImageError, ConfigError):
        raise
    except _DAMAGED as error:
        raise ImageError(f"{data.sample_paths[index]}: {type(error).__name__}: {first_line(error)}") from error
    if not _are_pixels(pixels):
        raise ConfigError(
            f"{type(data).__name__}.read({index}) gave {_named(pixels)}; it must be uint8 of shape (H, W, 3)"
        )
    return pixels


def _are_pixels(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 3 and value.shape[2] == 3


def _named(value: object) -> str:
    return f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


class JoinedDataset(ImageDataset):
    """The samples of several datasets, one after the other, with the columns of all.

    Args:
        parts: The datasets.
    """

    def __init__(self, parts: list[ImageDataset]) -> None:
        self.parts = parts
        self.samples = pd.concat([part.samples for part in parts], ignore_index=True)

    @property
    def ignored(self) -> dict[str, str]:
        """Files of all parts that are not samples: path -> rule."""
        return {path: rule for part in self.parts for path, rule in part.ignored.items()}

    @property
    def holds_files(self) -> bool:
        """Whether the samples of all parts are image files."""
        return all(part.holds_files for part in self.parts)

    def read(self, index: int) -> Pixels:
        """Return the pixels of row ``index``, uint8, ``(H, W, 3)``, RGB."""
        return read_sample(*self.find(index))  # whose messages name the part

    def fingerprint(self, index: int) -> str:
        """Return a short hash of the content of row ``index``."""
        part, place = self.find(index)
        return part.fingerprint(place)

    def sampled_fingerprint(self, index: int) -> str:
        """Return a short hash of the size and of both ends of row ``index``."""
        part, place = self.find(index)
        return part.sampled_fingerprint(place)

    def find(self, index: int) -> tuple[ImageDataset, int]:
        """Return the part that row ``index`` is of, and its row there."""
        for part in self.parts:
            if index < len(part.samples):
                return part, index
            index -= len(part.samples)
        raise IndexError(index)


class PathListDataset(ImageDataset):
    """Unlabelled image files, one row each, in the order given.

    Args:
        paths: The files.
        ignored: Files that are left out by a stated rule: path -> rule.
    """

    def __init__(self, paths: list[str], ignored: dict[str, str] | None = None) -> None:
        self.samples = pd.DataFrame({"path": paths, "label": None}, dtype=object)
        self._ignored = ignored or {}

    @property
    def ignored(self) -> dict[str, str]:
        """Files that are left out."""
        return self._ignored


def fingerprint_of(content: bytes) -> str:
    """Return a short hash of a sample's bytes."""
    return _hasher(content).hexdigest()


def fingerprint_of_file(file: IO[bytes]) -> str:
    """Return the same of an open file, without reading it as a whole."""
    return file_digest(file, _hasher).hexdigest()  # type: ignore[arg-type]


def fingerprint_of_ends(file: BinaryIO, size: int, start: int = 0) -> str:
    """Return a short hash of the size of a sample, and of its first and last 64 kB.

    Args:
        file: What the sample's bytes are read from.
        size: How many there are.
        start: Where they begin.
    """
    file.seek(start)
    first = file.read(min(size, _END))
    file.seek(start + max(size - _END, 0))
    return fingerprint_of(size.to_bytes(8, "little") + first + file.read(min(size, _END)))


def fingerprint_of_id(path: str) -> str:
    """Return what stands for the hash of a sample whose bytes cannot be read; they may be readable the next time."""
    return fingerprint_of(os.fsencode(path))
