"""From places in a split to whole batches."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, get_worker_info

from imgcls.augment import Pipeline, reason_of
from imgcls.batch import Batch
from imgcls.errors import ConfigError, ImageError
from imgcls.images import Pixels
from imgcls.sampling import SLOTS, Key
from imgcls.splits import Split

_Whole = TypeVar("_Whole")

BLACK: Pixels = np.zeros((512, 512, 3), dtype=np.uint8)  # in place of an image that cannot be read


class SplitBatches(Dataset[Batch]):
    """Reads, augments and collates whole batches of a split.

    Args:
        split: The samples.
        pipeline: Applied to each image.
        keep_errors: An image that cannot be read comes as black pixels with its reason in ``error``, instead of
            ending the run.
    """

    def __init__(self, split: Split, pipeline: Pipeline, keep_errors: bool = False) -> None:
        self.split = split
        self.pipeline = pipeline
        self.keep_errors = keep_errors
        self._room = _Room()

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.split)

    def __getitems__(self, keys: Sequence[Key]) -> Batch:
        """Return the batch of the given ``(place, seed)`` keys."""
        errors = [""] * len(keys)
        batch = Batch(
            image=self._stack(self._images(keys, errors), len(keys)),
            label=torch.from_numpy(self.split.label_array[[place for place, _ in keys]]),
            path=[self.split.path(place) for place, _ in keys],
        )
        if self.keep_errors:
            batch["error"] = errors
        return batch

    def __getitem__(self, key: Key) -> Batch:
        """Return a batch of one."""
        return self.__getitems__([key])

    def _images(self, keys: Sequence[Key], errors: list[str]) -> Iterator[NDArray[Any]]:
        for number, (place, seed) in enumerate(keys):
            try:
                pixels = self.split.read(place)
            except ImageError as error:
                if not self.keep_errors:
                    raise
                errors[number] = str(error).removeprefix(f"{self.split.path(place)}: ")
                pixels = BLACK
            yield augment(partial(self.pipeline, seed=seed), pixels, self.split.path(place), self.pipeline.where)

    def _stack(self, images: Iterator[NDArray[Any]], count: int) -> torch.Tensor:
        # each is copied as it comes, so that the next takes its memory: fresh memory costs as much as a small resize
        first = next(images)
        batch = self._room.take((count, *first.shape), first.dtype)
        array = batch.numpy()
        for number, image in enumerate(chain([first], images)):
            if image.shape != first.shape:
                raise ConfigError(
                    f"{self.pipeline.where}: one batch holds images of {sorted({first.shape, image.shape})}; end the "
                    "list with a Resize"
                )
            array[number] = image
        return batch.permute(0, 3, 1, 2)


class _Room:
    """Memory for batches: fresh in the main process; in a worker shared, and used again after a while.

    The system takes longer to give fresh shared memory than an image of the cache takes to be cropped. A batch is
    overwritten by the third after it, which a worker is asked for only when the batch between them was asked for, that
    is, after ``BatchLoader`` has copied this one.
    """

    def __init__(self) -> None:
        self._slots = [torch.empty(0, dtype=torch.uint8)] * SLOTS
        self._next = 0

    def take(self, shape: tuple[int, ...], like: np.dtype[Any]) -> torch.Tensor:
        """Return memory that holds anything."""
        dtype = torch.from_numpy(np.empty(0, like)).dtype
        if get_worker_info() is None:
            return torch.empty(shape, dtype=dtype)
        size = math.prod(shape) * like.itemsize
        number = self._next % len(self._slots)
        self._next += 1
        if len(self._slots[number]) < size:
            self._slots[number] = torch.empty(size, dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call]
        return self._slots[number][:size].view(dtype).view(shape)


def augment(steps: Callable[[Pixels], NDArray[Any]], pixels: Pixels, path: str, where: str) -> NDArray[Any]:
    """Apply steps to an image.

    Args:
        steps: What is applied.
        pixels: uint8, ``(H, W, 3)``.
        path: The image's path, for messages.
        where: The config key of the steps, for messages.

    Raises:
        ConfigError: If a step fails.
    """
    try:
        return steps(pixels)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"{where}: fails on {path}, of shape {pixels.shape}: {reason_of(error)}") from error


def as_it_is(whole: _Whole) -> _Whole:
    """Collate nothing: a batch comes whole from its dataset."""
    return whole


def start_worker(_: int) -> None:
    """Prepare a process that reads images."""
    cv2.setNumThreads(0)  # the workers are the parallelism
