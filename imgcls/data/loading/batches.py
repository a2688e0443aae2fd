"""Read, augment and collate the batches of a split."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from imgcls.data.loading.samplers import Key
from imgcls.data.loading.shared_memory import BatchMemory
from imgcls.data.loading.workers import note
from imgcls.data.splitting.split import Split
from imgcls.data.transforms.pipeline import Pipeline, reason_of
from imgcls.errors import ConfigError, ImageError
from imgcls.images import Pixels
from imgcls.types import Batch

OnError = Literal["raise", "skip", "keep"]

_Batch = TypeVar("_Batch")

_SHAPE = (512, 512, 3)  # of a placeholder, if no image can be read


class SplitBatches(Dataset[Batch]):
    """Reads, augments and collates whole batches of a split.

    Args:
        split: The samples.
        pipeline: Applied to each image.
        on_error: How an unreadable image is handled: ``raise`` ends the run; ``skip`` leaves it out of its batch, which
            is then smaller, with the reason in ``skipped``; ``keep`` replaces it by black pixels, with the reason in
            ``error``.
        may_vanish: Whether ``skip`` also applies to files that no longer exist.
        pinned: Whether the loader copies batches to pinned memory.
        shape: Shape of the black pixels, ``(H, W, 3)``, on which the pipeline must work.
        min_side: Shorter side in pixels to which decoding may shrink an image; None: exactly.
    """

    def __init__(
        self,
        split: Split,
        pipeline: Pipeline,
        on_error: OnError = "raise",
        may_vanish: bool = True,
        pinned: bool = False,
        shape: tuple[int, ...] = _SHAPE,
        min_side: int | None = None,
    ) -> None:
        self.split = split
        self.pipeline = pipeline
        self.on_error = on_error
        self.may_vanish = may_vanish
        self.shape = shape
        self.min_side = min_side
        self._memory = BatchMemory(pinned)

    def __len__(self) -> int:
        return len(self.split)

    def __getitems__(self, keys: Sequence[Key]) -> Batch:
        """Return the batch of the given ``(index, seed)`` keys."""
        reasons: dict[int, str] = {}
        indices: list[int] = []
        image = stack(self._images(keys, indices, reasons), len(keys), self.pipeline.where, self._memory)
        note("")
        paths = [self.split.path(index) for index in indices]
        batch = Batch(image=image, label=labels_at(self.split, indices), path=paths)
        if self.on_error == "keep":
            batch["error"] = [reasons.get(index, "") for index in indices]
        elif reasons:
            batch["skipped"] = {self.split.path(index): reason for index, reason in reasons.items()}
        return batch

    def _images(self, keys: Sequence[Key], indices: list[int], reasons: dict[int, str]) -> Iterator[NDArray[Any]]:
        """Yield the images one by one; append their indices, and the reasons why images are unreadable."""
        for index, seed in keys:
            pixels, reason = self._read(index)
            if reason:
                reasons[index] = reason
            if pixels is not None:
                indices.append(index)
                yield augment(partial(self.pipeline, seed=seed), pixels, self.split.path(index), self.pipeline.where)

    def _read(self, index: int) -> tuple[Pixels | None, str]:
        """Return the pixels of a sample, or of its placeholder, and the reason for that."""
        path = self.split.path(index)
        note(path)
        try:
            return self.split.read(index, self.min_side), ""
        except ImageError as error:
            if self.on_error == "raise":
                raise
            if self.on_error == "skip" and not self.may_vanish and self._is_missing(path):
                raise ConfigError(
                    f"{error}; it existed when the run began, and metrics of fewer images cannot be compared: restore "
                    "it, or start a new run"
                ) from error
            # a new array each time, since a transform may write into it
            black = np.zeros(self.shape, dtype=np.uint8) if self.on_error == "keep" else None
            return black, str(error).removeprefix(f"{path}: ")

    def _is_missing(self, path: str) -> bool:
        return self.split.data.holds_files and not os.path.lexists(path)

    def __getitem__(self, key: Key) -> Batch:
        return self.__getitems__([key])


def example(split: Split) -> Pixels:
    """Return the first readable image of a split, to check a pipeline with; a black one if none can be read."""
    image = split.first_readable()
    return np.zeros(_SHAPE, dtype=np.uint8) if image is None else image


def labels_at(split: Split, indices: list[int]) -> torch.Tensor:
    """Return the labels of samples: ``(B,)`` int64, or ``(B, C)`` float32 in a multi-label dataset."""
    labels = torch.from_numpy(split.label_array[indices])
    return labels.float() if split.multilabel else labels


def augment(steps: Callable[[Pixels], NDArray[Any]], pixels: Pixels, path: str, where: str) -> NDArray[Any]:
    """Apply transforms to the pixels, uint8, ``(H, W, 3)``, of the image at a path.

    Raises:
        ConfigError: If a transform fails; it names the path, and the config key ``where``.
    """
    try:
        return steps(pixels)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"{where}: fails on {path}, of shape {pixels.shape}: {reason_of(error)}") from error


def stack(images: Iterable[NDArray[Any]], most: int, where: str, memory: BatchMemory) -> torch.Tensor:
    """Stack at most ``most`` images ``(H, W, 3)`` to a tensor ``(B, 3, H, W)``, channels-last, in that memory.

    Each image is copied before the next one is made, which then reuses its memory: fresh memory costs as much as a
    small resize.

    Raises:
        ConfigError: If they differ in size; it names the config key ``where``.
    """
    rest = iter(images)
    first = next(rest, None)
    if first is None:  # all images were skipped
        return torch.empty(0, 3, 1, 1, dtype=torch.uint8)
    batch = memory.allocate((most, *first.shape), first.dtype)
    array, count = batch.numpy(), 0
    for image in chain([first], rest):
        if image.shape != first.shape:
            sizes = sorted({first.shape, image.shape})
            raise ConfigError(f"{where}: one batch has images of {sizes}; end the list with a Resize")
        array[count] = image
        count += 1
    return batch[:count].permute(0, 3, 1, 2)


def identity(batch: _Batch) -> _Batch:
    """Collate nothing, since the dataset returns whole batches."""
    return batch
