"""From places in a split to whole batches."""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any, Literal, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, get_worker_info

from imgcls.data.loading.samplers import FREE, MADE, SLOTS, Key
from imgcls.data.loading.workers import note, outlive_signals
from imgcls.data.splitting.split import Split
from imgcls.data.transforms.pipeline import Pipeline, reason_of
from imgcls.errors import ConfigError, ImageError
from imgcls.images import Pixels
from imgcls.types import Batch

OnError = Literal["raise", "skip", "keep"]

_Whole = TypeVar("_Whole")

_SHAPE = (512, 512, 3)  # of an image, where none can be read


class SplitBatches(Dataset[Batch]):
    """Reads, augments and collates whole batches of a split.

    Args:
        split: The samples.
        pipeline: Applied to each image.
        on_error: What becomes of an image that cannot be read: ``raise`` ends the run; ``skip`` leaves it out of its
            batch, which is then smaller, with its reason in ``skipped``; ``keep`` gives black pixels, with its reason
            in ``error``.
        may_vanish: Whether ``skip`` also holds for a file that is gone.
        pinned: Whether the loader copies batches to memory that a GPU reads by itself.
        shape: Shape of the black pixels, that of an image on which the pipeline works.
    """

    def __init__(
        self,
        split: Split,
        pipeline: Pipeline,
        on_error: OnError = "raise",
        may_vanish: bool = True,
        pinned: bool = False,
        shape: tuple[int, ...] = _SHAPE,
    ) -> None:
        self.split = split
        self.pipeline = pipeline
        self.on_error = on_error
        self.may_vanish = may_vanish
        self.shape = shape
        self._room = Room(pinned)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.split)

    def __getitems__(self, keys: Sequence[Key]) -> Batch:
        """Return the batch of the given ``(place, seed)`` keys."""
        reasons: dict[int, str] = {}
        places: list[int] = []
        image = stack(self._images(keys, places, reasons), len(keys), self.pipeline.where, self._room)
        note("")
        batch = Batch(
            image=image,
            label=labels_at(self.split, places),
            path=[self.split.path(place) for place in places],
        )
        if self.on_error == "keep":
            batch["error"] = [reasons.get(place, "") for place in places]
        elif reasons:
            batch["skipped"] = {self.split.path(place): reason for place, reason in reasons.items()}
        return batch

    def _images(self, keys: Sequence[Key], places: list[int], reasons: dict[int, str]) -> Iterator[NDArray[Any]]:
        """Make the images one by one; note the places of those that are given, and why one is not what it should be."""
        for place, seed in keys:
            pixels, reason = self._read(place)
            if reason:
                reasons[place] = reason
            if pixels is not None:
                places.append(place)
                yield augment(partial(self.pipeline, seed=seed), pixels, self.split.path(place), self.pipeline.where)

    def _read(self, place: int) -> tuple[Pixels | None, str]:
        """Return the pixels of a sample, and why they are not its own."""
        path = self.split.path(place)
        note(path)
        try:
            return self.split.read(place), ""
        except ImageError as error:
            if self.on_error == "raise":
                raise
            if self.on_error == "skip" and not self.may_vanish and self._is_gone(path):
                raise ConfigError(
                    f"{error}; it was there when the run began, and figures of fewer images cannot be compared: put it "
                    "back, or start anew"
                ) from error
            # anew each time: a step may write into it
            black = np.zeros(self.shape, dtype=np.uint8) if self.on_error == "keep" else None
            return black, str(error).removeprefix(f"{path}: ")

    def _is_gone(self, path: str) -> bool:
        return self.split.data.holds_files and not os.path.lexists(path)

    def __getitem__(self, key: Key) -> Batch:
        """Return a batch of one."""
        return self.__getitems__([key])


def example(split: Split) -> Pixels:
    """Return the first image of a split, to try a pipeline on; a black one where none can be read."""
    image = split.first_readable()
    return np.zeros(_SHAPE, dtype=np.uint8) if image is None else image


def labels_at(split: Split, places: list[int]) -> torch.Tensor:
    """Return the labels of the samples at some places, as a batch has them."""
    labels = torch.from_numpy(split.label_array[places])
    return labels.float() if split.multilabel else labels


class Room:
    """Memory for batches: fresh in the main process; in a worker shared, and used again when the batch is gone.

    The system takes longer to give fresh shared memory than an image of the cache takes to be cropped. The last byte of
    a slot says what is in it: ``BatchLoader`` marks a batch that it gives away, and clears it when nobody holds the
    batch any more. A batch that is not given away by the third after it never will be: its epoch was not read to the
    end (``limit_train_batches``). For a worker is asked for that third only when the loader is past the batch in
    question. Where batches are pinned, the loader copies them and marks nothing; there the slots take turns.

    Args:
        pinned: Whether batches are pinned.
    """

    def __init__(self, pinned: bool) -> None:
        self._slots: list[tuple[int, torch.Tensor]] = []  # the number of its batch, the slot; oldest first
        self._taken = 0
        self._takes_turns = pinned

    def take(self, shape: tuple[int, ...], like: np.dtype[Any]) -> torch.Tensor:
        """Return memory that holds anything."""
        dtype = torch.from_numpy(np.empty(0, like)).dtype
        if get_worker_info() is None:
            return torch.empty(shape, dtype=dtype)
        size = math.prod(shape) * like.itemsize
        slot = self._turn() if self._takes_turns else self._free()
        if slot is None or len(slot) <= size:
            slot = torch.empty(size + 1, dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call]
        slot[-1] = MADE
        self._slots.append((self._taken, slot))
        self._taken += 1
        return slot[:size].view(dtype).view(shape)

    def _turn(self) -> torch.Tensor | None:
        return self._slots.pop(0)[1] if len(self._slots) == SLOTS else None

    def _free(self) -> torch.Tensor | None:
        places = (place for place, (number, slot) in enumerate(self._slots) if self._is_free(number, int(slot[-1])))
        place = next(places, None)
        return None if place is None else self._slots.pop(place)[1]

    def _is_free(self, number: int, state: int) -> bool:
        return state == FREE or (state == MADE and self._taken - number >= SLOTS)


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


def stack(images: Iterable[NDArray[Any]], most: int, where: str, room: Room) -> torch.Tensor:
    """Make one tensor, ``(B, 3, H, W)``, of images ``(H, W, 3)``.

    Each is copied as it comes, so that the next takes its memory: fresh memory costs as much as a small resize.

    Args:
        images: The images, of one size and type.
        most: How many there may be.
        where: The config key of the steps that made them, for messages.
        room: Gives the memory.

    Raises:
        ConfigError: If they are of several sizes.
    """
    rest = iter(images)
    first = next(rest, None)
    if first is None:  # all of them were left out
        return torch.empty(0, 3, 1, 1, dtype=torch.uint8)
    batch = room.take((most, *first.shape), first.dtype)
    array, count = batch.numpy(), 0
    for image in chain([first], rest):
        if image.shape != first.shape:
            sizes = sorted({first.shape, image.shape})
            raise ConfigError(f"{where}: one batch holds images of {sizes}; end the list with a Resize")
        array[count] = image
        count += 1
    return batch[:count].permute(0, 3, 1, 2)


def as_it_is(whole: _Whole) -> _Whole:
    """Collate nothing: a batch comes whole from its dataset."""
    return whole


def start_worker(_: int) -> None:
    """Prepare a process that reads images."""
    cv2.setNumThreads(0)  # the workers are the parallelism
    outlive_signals()
