"""The base class of datasets, and the datasets that imgcls makes itself."""

import os
import struct
import tarfile
import zlib
from collections.abc import Sequence
from functools import cached_property
from typing import BinaryIO

import numpy as np
import pandas as pd
from PIL import Image

from imgcls.datasets.fingerprint import fingerprint_of, fingerprint_of_ends, fingerprint_of_file, fingerprint_of_id
from imgcls.datasets.packed_texts import PackedTexts
from imgcls.errors import ConfigError, ImageError, first_line
from imgcls.images import MAX_PIXELS, Pixels, load_image

_DAMAGED = (  # exceptions of decoders that a user's ``read`` may let through
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
    """Base of every dataset class: a table of samples, and a method that reads the pixels of one.

    A subclass sets ``samples`` (in ``__init__``, or as a property) and overrides ``read`` if samples are not image
    files.
    """

    max_pixels: int = MAX_PIXELS
    """The largest width x height that is decoded; larger images are refused."""

    @cached_property
    def samples(self) -> pd.DataFrame:
        """One row per sample: ``path`` (unique text; a file path if the sample is a file) and ``label`` if known.

        In a multi-label dataset a label is a tuple of class names, empty if none of the classes applies. Other columns
        are kept, for example a patient id for grouped splits.
        """
        raise NotImplementedError(f"{type(self).__name__} must set 'samples', a DataFrame with 'path' and 'label'")

    @property
    def ignored(self) -> dict[str, str]:
        """Files that a rule excludes: path -> rule."""
        return {}

    @property
    def holds_files(self) -> bool:
        """Whether each sample is an image file at its ``path``; false for a class that overrides ``read``."""
        return type(self).read is ImageDataset.read

    def read(self, index: int) -> Pixels:
        """Return the pixels of row ``index`` of ``samples``, uint8, ``(H, W, 3)``, RGB.

        One thread per process calls it at a time. Loader workers are forks, which share the position of a file opened
        before the fork: open files in ``read``, once per ``os.getpid()``.

        Raises:
            ImageError: If the sample cannot be read; ``OSError``, ``ValueError`` and other exceptions of decoders count
                as unreadable, too.
        """
        return load_image(self.sample_paths[index], self.max_pixels)

    def read_scaled(self, index: int, min_side: int) -> Pixels:
        """Return the pixels of row ``index`` with a shorter side of at least ``min_side`` where decoding can shrink.

        Training crops and ``data.decode: scaled`` use it. A class that overrides ``read`` is read by that unless it
        overrides this method, too. The pixels must follow from the file and ``min_side`` alone.
        """
        return load_image(self.sample_paths[index], self.max_pixels, min_side)

    def _open_encoded(self, index: int) -> BinaryIO | None:
        """Open the encoded image of row ``index``; None if there is none, so that the pixels are hashed."""
        path = self.sample_paths[index]
        return open(path, "rb") if os.path.isfile(path) else None

    def fingerprint(self, index: int) -> str:
        """Return a content hash of row ``index``: of its encoded image, else of its pixels, else of its id."""
        try:
            if (file := self._open_encoded(index)) is not None:
                with file:
                    return fingerprint_of_file(file)
            pixels = read_sample(self, index)
            return fingerprint_of(repr(pixels.shape).encode() + pixels.tobytes())
        except (ImageError, OSError):
            return fingerprint_of_id(self.sample_paths[index])

    def sampled_fingerprint(self, index: int) -> str:
        """Return a hash of the size and both ends of the encoded image of row ``index``, else ``fingerprint``."""
        try:
            file = self._open_encoded(index) if type(self).fingerprint is ImageDataset.fingerprint else None
            if file is not None:
                with file:
                    return fingerprint_of_ends(file, file.seek(0, os.SEEK_END))
        except (ImageError, OSError):
            return fingerprint_of_id(self.sample_paths[index])
        return self.fingerprint(index)

    @cached_property
    def sample_paths(self) -> Sequence[str]:
        """The column ``path`` as a list, since indexing a column takes a twentieth of the time of decoding."""
        return list(map(str, self.samples["path"]))

    def __str__(self) -> str:
        """Return the dataset's name in messages and in the name of the run folder."""
        return type(self).__name__


def can_scale(kind: type[ImageDataset]) -> bool:
    """Whether ``read_scaled`` of a class belongs to its ``read``: no subclass has overridden ``read`` alone."""
    reads, scales = (next(base for base in kind.__mro__ if name in vars(base)) for name in ("read", "read_scaled"))
    return issubclass(scales, reads)


def read_sample(data: ImageDataset, index: int, min_side: int | None = None) -> Pixels:
    """Return the pixels of a row of any dataset, uint8, ``(H, W, 3)``, RGB; ``min_side`` as for ``load_image``.

    Raises:
        ImageError: If the sample cannot be read.
        ConfigError: If ``read`` returns anything but such an array.
    """
    try:
        if min_side is None or not can_scale(type(data)):
            pixels = data.read(index)
        else:
            pixels = data.read_scaled(index, min_side)
    except (ImageError, ConfigError):
        raise
    except _DAMAGED as error:
        raise ImageError(f"{data.sample_paths[index]}: {type(error).__name__}: {first_line(error)}") from error
    if not (isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3):
        got = f"{pixels.dtype} of shape {pixels.shape}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise ConfigError(f"{type(data).__name__}.read({index}) must return uint8 of shape (H, W, 3), got {got}")
    return pixels


class JoinedDataset(ImageDataset):
    """The samples of several datasets, concatenated, with the columns of all."""

    def __init__(self, parts: list[ImageDataset]) -> None:
        self.parts = parts
        self.samples = pd.concat([part.samples for part in parts], ignore_index=True)

    @property
    def ignored(self) -> dict[str, str]:
        """Files that a rule of their dataset excludes: path -> rule."""
        return {path: rule for part in self.parts for path, rule in part.ignored.items()}

    @property
    def holds_files(self) -> bool:
        """Whether the samples of all parts are image files."""
        return all(part.holds_files for part in self.parts)

    def read(self, index: int) -> Pixels:
        """Return the pixels of row ``index``, uint8, ``(H, W, 3)``, RGB."""
        return read_sample(*self.find(index))

    def read_scaled(self, index: int, min_side: int) -> Pixels:
        """Return the pixels of row ``index``, shrunk by decoding if its part can."""
        return read_sample(*self.find(index), min_side)

    def fingerprint(self, index: int) -> str:
        """Return the ``fingerprint`` of row ``index``."""
        part, row = self.find(index)
        return part.fingerprint(row)

    def sampled_fingerprint(self, index: int) -> str:
        """Return the ``sampled_fingerprint`` of row ``index``."""
        part, row = self.find(index)
        return part.sampled_fingerprint(row)

    def find(self, index: int) -> tuple[ImageDataset, int]:
        """Return the part that holds row ``index``, and the row within that part."""
        for part in self.parts:
            if index < len(part.samples):
                return part, index
            index -= len(part.samples)
        raise IndexError(index)


class PathListDataset(ImageDataset):
    """Unlabelled image files in the given order, and the rule that excludes each other file."""

    def __init__(self, paths: list[str], ignored: dict[str, str] | None = None) -> None:
        self.sample_paths = PackedTexts(paths)
        self._ignored = ignored or {}

    @property
    def samples(self) -> pd.DataFrame:  # made when it is asked for, and not kept
        """One row per image."""
        return pd.DataFrame({"path": list(self.sample_paths), "label": None}, dtype=object)

    @property
    def ignored(self) -> dict[str, str]:
        """Files that a rule excludes: path -> rule."""
        return self._ignored
