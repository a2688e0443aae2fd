"""Images in local tar files in WebDataset's layout: ``0001.jpg`` and ``0001.cls`` are one sample."""

import glob
import os
import re
import sys
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from imgcls.datasets.dataset import ImageDataset
from imgcls.datasets.fingerprint import fingerprint_of_ends, fingerprint_of_id
from imgcls.datasets.shard_index import MemberKeys, ShardIndex, cached_index, class_name
from imgcls.errors import ConfigError, ImageError
from imgcls.images import MAX_PIXELS, Pixels, decode_image
from imgcls.runtime.progress import tracked

RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")  # of numbered shards
IMAGE_KEYS = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm", "jp2", "avif")


class ShardImageDataset(ImageDataset):
    """Images and labels in local tar shards, in WebDataset's layout.

    The members of a sample share a name up to its first dot: ``0001.jpg``, ``0001.cls``. Each shard is read once to
    index it; the index is kept in imgcls' cache folder, by the shard's path, size and time of change. Images are then
    read at their offsets in the shards, so that splits, order, resuming and checks work as with single files. Shards
    must be uncompressed tar files.

    Args:
        shards: A path, with ``*`` or ``{000..012}`` for several, or a list of these.
        label_key: The extension of labels, for example cls, txt or json; null is unlabelled.
        label_field: The field of a JSON label.
        image_keys: The extensions of images; null is the common ones.
        class_names: The names of numeric labels, from 0; null uses the label itself as the name.
        max_pixels: The largest width x height that is decoded; larger images are refused.
    """

    def __init__(
        self,
        shards: str | list[str] | os.PathLike[str],  # in this order: jsonargparse would turn a list into a text
        label_key: str | None = "cls",
        label_field: str | None = None,
        image_keys: list[str] | None = None,
        class_names: list[str] | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        given = [shards] if isinstance(shards, (str, os.PathLike)) else shards
        self.shards = [os.fspath(shard) for shard in given]
        self.member_keys = MemberKeys(tuple(image_keys or IMAGE_KEYS), label_key, label_field)
        self.class_names = class_names
        self.max_pixels = max_pixels

    def __str__(self) -> str:
        return ", ".join(self.shards)

    @cached_property
    def samples(self) -> pd.DataFrame:
        """One row per image, in the order of the shards: ``path`` is ``<shard>/<key>``."""
        paths = [f"{shard}/{key}" for shard, index in self._indices.items() for key in index.key]
        labels = [
            self._class_name(label, f"{shard}: {key}")
            for shard, index in self._indices.items()
            for key, label in zip(index.key, index.label, strict=True)
        ]
        return pd.DataFrame({"path": paths, "label": labels}, dtype=object)

    @property
    def ignored(self) -> dict[str, str]:
        """Members that belong to no sample: path -> rule."""
        members = [(shard, name) for shard, index in self._indices.items() for name in index.ignored]
        return {f"{shard}/{name}": "neither an image nor a label, by its extension" for shard, name in members}

    def read(self, index: int) -> Pixels:
        """Return the pixels of image ``index``, uint8, ``(H, W, 3)``, RGB."""
        return decode_image(self._content(index), self.sample_paths[index], self.max_pixels)

    def read_scaled(self, index: int, min_side: int) -> Pixels:
        """Return the pixels of image ``index``; a JPEG may be decoded smaller, as by ``load_image``."""
        return decode_image(self._content(index), self.sample_paths[index], self.max_pixels, min_side)

    def fingerprint(self, index: int) -> str:
        """Return the hash of the bytes of image ``index``, from the shard's index."""
        return self._hashes[index]

    def sampled_fingerprint(self, index: int) -> str:
        """Return a hash of the size and both ends of image ``index``."""
        offset, size = map(int, self._spans[index])
        try:
            with open(self._shard_of[index], "rb") as file:
                return fingerprint_of_ends(file, size, offset)
        except OSError:
            return fingerprint_of_id(self.sample_paths[index])

    def _content(self, index: int) -> bytes:
        """Return the bytes of an image, from a file opened for this call: forked workers would share its position."""
        offset, size = map(int, self._spans[index])
        try:
            with open(self._shard_of[index], "rb", buffering=0) as file:
                file.seek(offset)
                content = file.read(size)
        except OSError as error:
            raise ImageError(f"{self.sample_paths[index]}: {error.strerror}") from error
        if len(content) < size:
            raise ImageError(f"{self.sample_paths[index]}: the shard is truncated within it")
        return content

    @cached_property
    def _indices(self) -> dict[str, ShardIndex]:
        files: dict[str, str] = {}
        for shard in (shard for pattern in self.shards for shard in find_shards(pattern)):
            files.setdefault(os.path.realpath(shard), shard)  # each shard once, however often it is named
        shards = list(files.values())
        return {
            shard: cached_index(shard, self.member_keys) for shard in tracked(shards, len(shards), "indexing shards")
        }

    @cached_property
    def _shard_of(self) -> list[str]:
        """The shard of each image."""
        return [shard for shard, index in self._indices.items() for _ in index.key]

    @cached_property
    def _hashes(self) -> list[str]:
        """The hash of each image's bytes."""
        return [content for index in self._indices.values() for content in index.content]

    @cached_property
    def _spans(self) -> NDArray[np.int64]:
        """Offset and size of each image in its shard, in bytes, ``(N, 2)``."""
        spans = [np.array([index.offset, index.size], dtype=np.int64).T for index in self._indices.values()]
        return np.concatenate(spans)

    def _class_name(self, label: str | None, where: str) -> str | None:
        if label is None:
            return None
        return sys.intern(label) if self.class_names is None else class_name(label, self.class_names, where)


def find_shards(pattern: str) -> list[str]:
    """Return the files that match a path with ``*`` or ``{000..012}``.

    Raises:
        ConfigError: If no file matches, or one of a numbered range is missing.
    """
    if "://" in pattern:
        raise ConfigError(f"{pattern}: use imgcls.StreamImageDataset for shards at a URL")
    found = []
    for path in expand_range(os.path.expanduser(pattern)):
        files = [path] if os.path.isfile(path) else sorted(filter(os.path.isfile, glob.glob(path)))
        if not files:
            raise ConfigError(f"{path}: no such shard; 'shards' must be paths, with * or {{000..012}} for several")
        found += files
    return found


def expand_range(pattern: str) -> list[str]:
    """Expand ``a-{08..10}`` to ``a-08``, ``a-09``, ``a-10``; several ranges to all combinations."""
    start, *rest = RANGE.split(pattern)
    texts = [start]
    for first, last, after in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
        numbers = [f"{number:0{len(first)}d}{after}" for number in range(int(first), int(last) + 1)]
        texts = [text + number for text in texts for number in numbers]
    return texts
