"""A split whose images are read from the cache."""

import inspect
import logging
import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cached_property, partial
from hashlib import blake2b
from pathlib import Path

import numpy as np

from imgcls.data.pixel_cache.build import fill
from imgcls.data.pixel_cache.disk import using
from imgcls.data.pixel_cache.fixed_steps import Steps
from imgcls.data.pixel_cache.store import NAME_LENGTH, Reader
from imgcls.data.splitting.split import Split
from imgcls.datasets.dataset import ImageDataset, JoinedDataset
from imgcls.errors import ImageError, RunError, size_in_words
from imgcls.images import Pixels

log = logging.getLogger(__name__)

_FEW = 256  # values at most of a setting: those of a table for 8-bit pixels
_DEEPEST = 8  # levels of a setting, one within the other
_VALUES = (bool, int, float, complex, str, np.generic, Enum)


class CachedSplit(Split):
    """The samples of a split; their pixels are what the cache keeps of them.

    Args:
        split: The samples.
        reader: Their pixels, by place.
        steps: What is done to an image, before and after.
        faults: Place -> reason, of those that cannot be read.
    """

    def __init__(self, split: Split, reader: Reader, steps: Steps, faults: dict[int, str]) -> None:
        vars(self).update(vars(split))  # the same in all but the pixels
        self._reader = reader
        self._free_width = steps.free_width()
        self._faults = faults

    @property
    def faults(self) -> dict[str, str]:
        """The images that cannot be read: path -> reason."""
        return {self.path(place): reason for place, reason in self._faults.items()}

    def read(self, place: int) -> Pixels:
        """Return what is kept of the sample at ``place``.

        Raises:
            ImageError: If the sample cannot be read.
        """
        if place in self._faults:
            raise ImageError(f"{self.path(place)}: {self._faults[place]}")
        pixels = self._reader.read(place)
        return pixels if pixels.shape[1] > self._free_width else pixels.copy()


def use_cache(name: str, split: Split, steps: Steps, root: Path, workers: int, timeout: float) -> CachedSplit:
    """Return a split whose images come from the cache; what is missing there is decoded first.

    Args:
        name: The split's name, for messages.
        split: The images.
        steps: What is kept of an image.
        root: The folder of all that imgcls keeps.
        workers: Processes that decode.
        timeout: Seconds that an image may take; 0 waits for ever.

    Raises:
        ConfigError: If the folder cannot be used, or the disk is too small.
        RunError: If a process is killed, an image takes too long, or the folder is removed meanwhile.
    """
    log.info("cache: %s: %s", name, steps.why)
    folder = root / "pixels" / steps.key()
    names = image_names(split)
    count, faults = fill(folder, split, names, steps, workers, timeout)
    with using(folder):
        reader = Reader(folder, names)
    if any(names[place] not in faults for place in reader.missing):
        raise RunError(f"cache: {folder} was emptied while it was filled; run the command again")
    unreadable = {place: faults[names[place]] for place in reader.missing}
    if count:
        there, size = len(names) - len(unreadable), size_in_words(reader.nbytes)
        log.info("cache: %s: %s of %s images decoded now; %s in %s", name, f"{count:,}", f"{there:,}", size, folder)
    return CachedSplit(split, reader, steps, unreadable)


def image_names(split: Split) -> list[str]:
    """Name each image by its content, and by what beside the content decides the pixels that ``read`` returns."""
    ways = _ways(split.data)
    if split.kind != "full":  # two images of one size may have the same ends, and other pixels between them
        ways = [f"{way} {path}" for way, path in zip(ways, split.data.sample_paths, strict=True)]
    return [_short(f"{content} {ways[row]}") for content, row in zip(split.fingerprints, split.rows, strict=True)]


def _ways(data: ImageDataset) -> list[str]:
    """Return how each row of a dataset is read."""
    if isinstance(data, JoinedDataset):
        return [way for part in data.parts for way in _ways(part)]
    way = f"max_pixels {data.max_pixels}"
    if not type(data).read.__module__.startswith("imgcls."):  # then the same file may give other pixels
        way += _short(_sources(type(data)) + _text(_settings(data)))
    return [way] * len(data.samples)


def _settings(data: ImageDataset) -> dict[str, object]:
    """The attributes of a dataset, less what it has found by them."""
    found = {name for name in vars(data) if isinstance(getattr(type(data), name, None), cached_property)}
    return {name: value for name, value in vars(data).items() if name != "samples" and name not in found}


def _sources(class_: type) -> str:
    """The sources of a class and of its bases, as far as they are no part of imgcls."""
    return "\n".join(map(_source, [c for c in class_.__mro__[:-1] if not c.__module__.startswith("imgcls.")]))


def _source(class_: type) -> str:
    try:
        return f"{class_.__module__}.{class_.__qualname__}\n{inspect.getsource(class_)}"
    except (OSError, TypeError):  # typed at a prompt
        return f"{class_.__module__}.{class_.__qualname__}"


def _text(value: object, levels: int = _DEEPEST) -> str:
    """Write a setting, the same in every process; nothing of what has no value, or more than a setting would hold."""
    inner = partial(_text, levels=levels - 1)
    if not levels:  # objects may hold each other
        return ""
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    elif isinstance(value, np.ndarray) and value.size <= _FEW:
        value = value.tolist()
    if isinstance(value, Mapping) and len(value) <= _FEW:
        written = [(inner(key), inner(item)) for key, item in value.items()]
        return str([(key, item) for key, item in written if item])
    if isinstance(value, (list, tuple, bytes, range)) and len(value) <= _FEW:
        return str(list(map(inner, value)))
    if isinstance(value, (set, frozenset)) and len(value) <= _FEW:
        return str(sorted(map(inner, value)))
    if isinstance(value, os.PathLike):
        return str(os.path.abspath(value))
    return repr(value) if isinstance(value, _VALUES) else ""


def _short(text: str) -> str:
    return blake2b(text.encode(), digest_size=NAME_LENGTH // 2).hexdigest()
