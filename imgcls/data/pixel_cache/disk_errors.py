"""Errors about the cache folder: too little space, or no access."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imgcls.errors import ConfigError, FullDiskError, size_in_words
from imgcls.runtime.atomic_files import FULL

_MARGIN = 1.1  # on top of an estimate
_REMEDIES = (
    "remove older caches, or use --data.cache_dir FOLDER on another disk, --data.cache_size N for a shorter side of N "
    "pixels in training, or --data.create_dataset false"
)


@contextmanager
def naming_folder(folder: Path) -> Iterator[None]:
    """Name the folder and the configuration keys in errors of the system.

    Raises:
        ConfigError: If the folder cannot be read or written.
        FullDiskError: If the disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            free = size_in_words(shutil.disk_usage(folder).free)
            raise FullDiskError(
                f"data.init_args.create_dataset: the disk of {folder} is full ({free} free); {_REMEDIES}"
            ) from error
        raise ConfigError(
            f"data.init_args.cache_dir: {folder} cannot be used: {error.strerror or error}; choose another folder, "
            "or use --data.create_dataset false"
        ) from error


def refuse_small_disk(folder: Path, nbytes: float, images: int) -> None:
    """Refuse to write so many more bytes and images to a disk that is too small.

    Raises:
        ConfigError: Gives the needed and the free space.
    """
    free = shutil.disk_usage(folder).free
    if nbytes * _MARGIN > free:
        raise ConfigError(
            f"data.init_args.create_dataset: {images:,} images need about {size_in_words(nbytes * _MARGIN)} in "
            f"{folder}, but {size_in_words(free)} are free; {_REMEDIES}"
        )
