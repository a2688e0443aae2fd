"""Fill a folder of the cache: what is missing is decoded in parallel, and written by one process at a time."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch.utils.data import Dataset, Sampler

from imgcls.data.loading.batches import as_it_is, augment, start_worker
from imgcls.data.loading.workers import FORK, WatchedLoader, naming_files, note
from imgcls.data.pixel_cache.disk import refuse_small_disk, using
from imgcls.data.pixel_cache.fixed_steps import Steps
from imgcls.data.pixel_cache.store import Reader, Writer
from imgcls.data.splitting.split import Split
from imgcls.errors import ImageError
from imgcls.images import Pixels
from imgcls.runtime.progress import tracked
from imgcls.runtime.signals import waited

log = logging.getLogger(__name__)

LOCK = ".lock"
_SAMPLE = 64  # images at most by which the size of all is judged

_MESSAGE = 2**20  # bytes that a process sends at once, unless a single image has more
MOST = 64  # images in a message

Decoded = tuple[int, Pixels | str]  # place; pixels (H, W, 3), or the reason why there are none


class _Decoding(Dataset[Decoded]):
    """What is kept of each image of a split."""

    def __init__(self, split: Split, steps: Steps) -> None:
        self.split = split
        self.steps = steps

    def __getitem__(self, place: int) -> Decoded:
        path = self.split.path(place)
        note(path)
        try:
            pixels = self.split.read(place)
        except ImageError as error:
            return place, str(error).removeprefix(f"{path}: ")
        return place, augment(self.steps.keep, pixels, path, self.steps.once.where)


def fill(
    folder: Path, split: Split, names: list[str], steps: Steps, workers: int, timeout: float
) -> tuple[int, dict[str, str]]:
    """Decode the images of a split that are not in the folder yet; a second process waits, and finds them there.

    Args:
        folder: The folder of these steps.
        split: The images.
        names: The name of each image in the folder; copies of an image share it.
        steps: What is kept of an image.
        workers: Processes that decode; 0: this one alone.
        timeout: Seconds that an image may take in another process; 0 waits for ever.

    Returns:
        The number of images that were decoded, and those that cannot be read: name -> reason.

    Raises:
        ConfigError: If the folder cannot be used, the disk is too small, or a step fails.
        RunError: If a process is killed, or an image takes too long.
    """
    if not _missing(folder, names):
        return 0, {}
    with using(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _held(folder):
        missing = _missing(folder, names)
        messages = _Messages(_spread_first(missing))
        decoded = _decoded(_Decoding(split, steps), messages, workers, timeout)
        with naming_files():
            return _write(folder, names, decoded, messages)


def _missing(folder: Path, names: list[str]) -> list[int]:
    """Return the places to decode, each image once."""
    with using(folder):
        places = Reader(folder, names).missing
    return list({names[place]: place for place in places}.values())


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    lock = FileLock(folder / LOCK)
    with using(folder):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("cache: another process fills %s; waiting for it", folder)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


class _Messages(Sampler[list[int]]):
    """The places to decode, by message: one by one until it is known how large images are, then about a megabyte.

    A message costs the process that writes about as much as 40 small images; one of large photos would fill its memory.
    """

    def __init__(self, places: list[int]) -> None:
        self.places = places
        self.images = 1  # in the next message

    def __iter__(self) -> Iterator[list[int]]:
        start = 0
        while start < len(self.places):
            yield self.places[start : (start := start + self.images)]

    def fit(self, image_bytes: float) -> None:
        """Fit the messages to come to the size of images."""
        self.images = min(max(int(_MESSAGE / image_bytes), 1), MOST)


def _decoded(data: _Decoding, messages: _Messages, workers: int, timeout: float) -> Iterable[list[Decoded]]:
    loader: WatchedLoader[Any] = WatchedLoader(
        data,
        batch_sampler=messages,
        num_workers=workers,
        multiprocessing_context=FORK if workers else None,
        timeout=timeout if workers else 0,
        collate_fn=as_it_is,  # arrays, which go through a pipe: tensors would take a file of the shared memory each
        worker_init_fn=start_worker,
        generator=torch.Generator(),  # making an iterator must not draw from the global generator
    )
    return loader


def _spread_first(places: list[int]) -> list[int]:
    """Put a few that stand for all to the front."""
    chosen = np.linspace(0, len(places) - 1, _sample_size(len(places)), dtype=int)
    first = [places[number] for number in chosen]
    return first + sorted(set(places) - set(first))


def _sample_size(total: int) -> int:
    return min(_SAMPLE, -(-total // 4))


def _write(
    folder: Path, names: list[str], decoded: Iterable[list[Decoded]], messages: _Messages
) -> tuple[int, dict[str, str]]:
    faults: dict[str, str] = {}
    total = len(messages.places)
    with Writer(folder) as writer:
        for done, (place, result) in enumerate(
            tracked(chain.from_iterable(waited(decoded)), total, "decoding images"), 1
        ):
            if isinstance(result, str):
                faults[names[place]] = result
            else:
                writer.add(names[place], result)
            if done == _sample_size(total) and writer.count:
                messages.fit(writer.nbytes / writer.count)
                refuse_small_disk(folder, writer.nbytes / writer.count * (total - done), total - done)
    return writer.count, faults
