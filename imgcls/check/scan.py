"""One look at every image: decoded in full, measured and hashed, by several processes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from imgcls.check import near_duplicates as near
from imgcls.check.inputs import Item
from imgcls.data.loading.batches import start_worker
from imgcls.data.loading.workers import FORK, WatchedLoader, naming_files, note
from imgcls.errors import ImageError
from imgcls.runtime.progress import tracked

_BATCH = 16
_Result = TypeVar("_Result")


class Look(NamedTuple):
    """What was seen of an image.

    ``reason`` says why it cannot be read; then the rest is empty. ``file`` and ``pixels`` are digests. ``views`` holds
    the perceptual hashes, None where the image is too small (``tiny``) or too even to be compared.
    """

    reason: str = ""
    width: int = 0
    height: int = 0
    file: str = ""
    pixels: str = ""
    tiny: bool = False
    views: NDArray[np.uint64] | None = None


def look_at(item: Item) -> Look:
    """Decode an image and return what is to be known of it."""
    try:
        pixels = item.read()
    except ImageError as error:
        return Look(reason=str(error).removeprefix(f"{item.path}: "))
    height, width = pixels.shape[:2]
    digest = blake2b(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes(), digest_size=16).hexdigest()
    tiny = min(height, width) < near.SMALLEST
    views = None
    if not tiny:
        square = near.shrink(pixels, near.FINE)
        views = None if near.is_even(square) else near.hashes(square)
    return Look("", width, height, item.data.fingerprint(item.row), digest, tiny, views)


def read_square(item: Item) -> near.Square:
    """Return an image as it is compared with others."""
    return near.shrink(item.read(), near.FINE)


class _Applied(Dataset[_Result], Generic[_Result]):
    """A function of each item."""

    def __init__(self, items: Sequence[Item], function: Callable[[Item], _Result]) -> None:
        self.items = items
        self.function = function

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, place: int) -> _Result:
        note(self.items[place].path)
        return self.function(self.items[place])


@dataclass(frozen=True)
class Crew:
    """The processes that look at images.

    Args:
        workers: How many; 0 for this one.
        timeout: Seconds that a few images may take; 0 waits for ever.
    """

    workers: int
    timeout: float


def apply(function: Callable[[Item], _Result], items: Sequence[Item], crew: Crew, doing: str) -> list[_Result]:
    """Return a function of each item, in order, computed by several processes.

    Args:
        function: The function.
        items: The items.
        crew: The processes.
        doing: What a terminal shows beside the progress.

    Raises:
        RunError: If a process is killed, or waits too long.
    """
    workers = min(crew.workers, len(items) // _BATCH)
    loader: WatchedLoader[Any] = WatchedLoader(
        _Applied(items, function),
        batch_size=_BATCH,
        num_workers=workers,
        multiprocessing_context=FORK if workers else None,
        timeout=crew.timeout if workers else 0,
        collate_fn=list,
        worker_init_fn=start_worker,
        generator=torch.Generator(),  # making an iterator must not draw from the global generator
    )
    with naming_files():
        return [result for batch in tracked(loader, len(loader), doing) for result in batch]
