"""Fill the pixel cache: missing images are decoded in parallel, and written by one process at a time."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from torch.utils.data import Dataset, Sampler

from imgcls.data.loading.batches import augment, identity
from imgcls.data.loading.workers import WatchedLoader, naming_files, note, worker_arguments
from imgcls.data.pixel_cache.cached_transforms import CacheSteps
from imgcls.data.pixel_cache.disk_errors import naming_folder, refuse_small_disk
from imgcls.data.pixel_cache.store import Reader, Writer
from imgcls.data.scan.files import acquire
from imgcls.data.splitting.split import Split
from imgcls.errors import ImageError
from imgcls.images import Pixels
from imgcls.runtime.progress import tracked
from imgcls.runtime.signals import waited

LOCK = ".lock"
_FEW = 8  # images from which the size of all is estimated before it is decided to build a cache
_SAMPLE = 64  # images at most from which the size of all is estimated

_BATCH_BYTES = 2**20  # sent at once by a worker, unless a single image is larger
_LARGEST_BATCH = 64  # images

Decoded = tuple[int, Pixels | str]  # index; pixels (H, W, 3), or the reason why the image is unreadable


class _DecodedImages(Dataset[Decoded]):
    """The pixels to cache of each image of a split."""

    def __init__(self, split: Split, steps: CacheSteps) -> None:
        self.split = split
        self.steps = steps

    def __getitem__(self, index: int) -> Decoded:
        path = self.split.path(index)
        note(path)
        try:
            pixels = self.split.read(index, self.steps.min_side)
        except ImageError as error:
            return index, str(error).removeprefix(f"{path}: ")
        return index, augment(self.steps.before_cache, pixels, path, self.steps.once.where)


def fill(
    folder: Path, split: Split, names: list[str], steps: CacheSteps, workers: int, timeout: float
) -> tuple[int, dict[str, str]]:
    """Decode the images of a split that are not cached yet; another process that needs them waits.

    Args:
        folder: The cache folder of these transforms.
        split: The images.
        names: The name of each image in the cache; copies of an image have the same name.
        steps: The transforms before and after the cache.
        workers: Number of processes that decode; 0: this one.
        timeout: Seconds per image in a worker; 0 is unlimited.

    Returns:
        The number of decoded images, and the unreadable ones: name -> reason.

    Raises:
        ConfigError: If the folder cannot be used, the disk is too small, or a transform fails.
        RunError: If a process is killed, or an image takes too long.
    """
    if not _missing(folder, names):
        return 0, {}
    with naming_folder(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        missing = _missing(folder, names)
        batches = _AdaptiveBatches(_sample_first(missing))
        decoded = _decoded(_DecodedImages(split, steps), batches, workers, timeout)
        with naming_files():
            return _write(Writer(folder), names, decoded, batches)


def _missing(folder: Path, names: list[str]) -> list[int]:
    """Return the indices to decode, each image once."""
    with naming_folder(folder):
        indices = Reader(folder, names).missing
    return list({names[index]: index for index in indices}.values())


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = FileLock(folder / LOCK)
    with naming_folder(folder):
        acquire(lock, f"fills {folder}")
    try:
        yield
    finally:
        lock.release()


class _AdaptiveBatches(Sampler[list[int]]):
    """The indices to decode in batches: single images until their size is known, then about a megabyte.

    Sending a batch costs the writing process as much as 40 small images; a batch of large photos would fill its memory.
    """

    def __init__(self, indices: list[int]) -> None:
        self.indices = indices
        self.size = 1  # images in the next batch

    def __iter__(self) -> Iterator[list[int]]:
        start = 0
        while start < len(self.indices):
            yield self.indices[start : (start := start + self.size)]

    def adapt(self, image_bytes: float) -> None:
        """Set the size of the following batches from the mean size of an image."""
        self.size = min(max(int(_BATCH_BYTES / image_bytes), 1), _LARGEST_BATCH)


def _decoded(data: _DecodedImages, batches: _AdaptiveBatches, workers: int, timeout: float) -> Iterable[list[Decoded]]:
    # identity: arrays are sent through a pipe, but each tensor would take a file of shared memory
    arguments = worker_arguments(workers, timeout)
    loader: WatchedLoader[Any] = WatchedLoader(data, batch_sampler=batches, collate_fn=identity, **arguments)
    return loader


def _sample_first(indices: list[int]) -> list[int]:
    """Move a few indices, spread over all, to the front, to estimate the size of all images."""
    chosen = np.linspace(0, len(indices) - 1, _sample_size(len(indices)), dtype=int)
    first = [indices[number] for number in chosen]
    return first + sorted(set(indices) - set(first))


def _sample_size(total: int) -> int:
    return min(_SAMPLE, -(-total // 4))


def estimated_bytes(split: Split, steps: CacheSteps) -> float:
    """Return about how many bytes a split takes in the cache, from a few of its images that can be read."""
    images = _DecodedImages(split, steps)
    chosen = np.unique(np.linspace(0, len(split) - 1, _FEW, dtype=int)).tolist()
    sizes = [pixels.nbytes for _, pixels in map(images.__getitem__, chosen) if not isinstance(pixels, str)]
    return len(split) * float(np.mean(sizes)) if sizes else 0.0


def _write(
    opened: Writer, names: list[str], decoded: Iterable[list[Decoded]], batches: _AdaptiveBatches
) -> tuple[int, dict[str, str]]:
    faults: dict[str, str] = {}
    total = len(batches.indices)
    images = tracked(chain.from_iterable(waited(decoded)), total, "decoding images")
    with opened as writer:
        for done, (index, result) in enumerate(images, 1):
            if isinstance(result, str):
                faults[names[index]] = result
            else:
                writer.add(names[index], result)
            if done == _sample_size(total) and writer.count:
                mean_size = writer.nbytes / writer.count
                batches.adapt(mean_size)
                refuse_small_disk(writer.folder, mean_size * (total - done), total - done)
    return writer.count, faults
