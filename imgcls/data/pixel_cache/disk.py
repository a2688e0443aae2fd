"""What can go wrong with the folder of the cache, in words that say what to type."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imgcls.errors import ConfigError, FullDiskError, size_in_words
from imgcls.runtime.atomic_files import FULL

_MARGIN = 1.1  # of an estimate
_WAYS_OUT = (
    "remove older ones, or give --data.cache_dir FOLDER on another disk, --data.cache_size N for a shorter side of N "
    "pixels in training, or --data.create_dataset false"
)


@contextmanager
def using(folder: Path) -> Iterator[None]:
    """Name the folder and the keys in errors of the system.

    Raises:
        ConfigError: If the folder cannot be read or written.
        FullDiskError: If there is no room.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            free = size_in_words(shutil.disk_usage(folder).free)
            raise FullDiskError(
                f"data.init_args.create_dataset: the disk of {folder} is full, {free} are free; {_WAYS_OUT}"
            ) from error
        raise ConfigError(
            f"data.init_args.cache_dir: {folder} cannot be used: {error.strerror or error}; give another folder, or "
            "--data.create_dataset false"
        ) from error


def refuse_small_disk(folder: Path, nbytes: float, images: int) -> None:
    """Refuse to begin what will not fit.

    Args:
        folder: Where it is to lie.
        nbytes: Estimated bytes that are still to be written.
        images: The number of images that they hold.

    Raises:
        ConfigError: Names the bytes that are needed and free.
    """
    free = shutil.disk_usage(folder).free
    if nbytes * _MARGIN > free:
        raise ConfigError(
            f"data.init_args.create_dataset: {images:,} images need about {size_in_words(nbytes * _MARGIN)} in "
            f"{folder}, {size_in_words(free)} are free; {_WAYS_OUT}"
        )
