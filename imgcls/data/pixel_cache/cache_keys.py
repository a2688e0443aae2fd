"""Names of images in the pixel cache: hashes of everything that decides the pixels."""

import inspect
import pickle
from collections.abc import Sized
from functools import cached_property
from hashlib import blake2b

import joblib
import numpy as np

from imgcls.data.pixel_cache.store import NAME_LENGTH
from imgcls.data.splitting.split import Split
from imgcls.datasets.dataset import ImageDataset, JoinedDataset

_LARGEST_SETTING = 256  # values; for example a lookup table of 8-bit pixels


def image_names(split: Split) -> list[str]:
    """Return a name for each image: a hash of its content and of how the dataset class reads it."""
    readers = reader_keys(split.data)
    if split.kind != "full":  # sampled hashes of different images may be equal
        readers = [f"{reader} {path}" for reader, path in zip(readers, split.data.sample_paths, strict=True)]
    return [_hash(f"{content} {readers[row]}") for content, row in zip(split.fingerprints, split.rows, strict=True)]


def reader_keys(data: ImageDataset) -> list[str]:
    """Return for each row how it is read: ``max_pixels``, and the source and settings of a user's class."""
    if isinstance(data, JoinedDataset):
        return [key for part in data.parts for key in reader_keys(part)]
    key = f"max_pixels {data.max_pixels}"
    if is_own_class(data):
        key += _hash(_source(type(data)) + _settings(data))
    return [key] * len(data.samples)


def is_own_class(data: ImageDataset) -> bool:
    """Whether images are read by code that is not imgcls', which may depend on more than the content of a file."""
    if isinstance(data, JoinedDataset):
        return any(map(is_own_class, data.parts))
    return any(not read.__module__.startswith("imgcls.") for read in (type(data).read, type(data).read_scaled))


def _source(class_: type) -> str:
    """Return the source code of a class and of its bases outside of imgcls."""
    texts = []
    for base in class_.__mro__[:-1]:
        if not base.__module__.startswith("imgcls."):
            try:
                source = inspect.getsource(base)
            except (OSError, TypeError):  # defined interactively
                source = ""
            texts.append(f"{base.__module__}.{base.__qualname__}\n{source}")
    return "\n".join(texts)


def _settings(data: ImageDataset) -> str:
    """Return the hashes of a dataset's attributes.

    Without cached properties, which follow from the others; attributes larger than a setting, such as the images
    themselves, whose content is hashed already; and attributes that cannot be pickled, such as open files.
    """
    hashes = []
    for name, value in sorted(vars(data).items()):
        size = value.size if isinstance(value, np.ndarray) else len(value) if isinstance(value, Sized) else 0
        is_cached = isinstance(getattr(type(data), name, None), cached_property)
        if name == "samples" or value is None or is_cached or (size > _LARGEST_SETTING and not isinstance(value, str)):
            continue
        try:
            hashes.append(f"{name} {joblib.hash(value)}")
        except (pickle.PicklingError, TypeError, AttributeError):
            continue
    return "\n".join(hashes)


def _hash(text: str) -> str:
    return blake2b(text.encode(), digest_size=NAME_LENGTH // 2).hexdigest()
