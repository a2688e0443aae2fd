"""From places in a split to whole batches."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, default_collate

from imgcls.augment import Pipeline, reason_of
from imgcls.batch import Batch
from imgcls.errors import ConfigError, ImageError
from imgcls.images import Pixels
from imgcls.sampling import Key
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

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.split)

    def __getitems__(self, keys: Sequence[Key]) -> Batch:
        """Return the batch of the given ``(place, seed)`` keys."""
        errors = [""] * len(keys)
        images = []
        for number, (place, seed) in enumerate(keys):
            try:
                pixels = self.split.read(place)
            except ImageError as error:
                if not self.keep_errors:
                    raise
                errors[number] = str(error).removeprefix(f"{self.split.path(place)}: ")
                pixels = BLACK
            one = partial(self.pipeline, seed=seed)
            images.append(augment(one, pixels, self.split.path(place), self.pipeline.where))
        batch = Batch(
            image=_stack(images, self.pipeline.where),
            label=torch.from_numpy(self.split.label_array[[place for place, _ in keys]]),
            path=[self.split.path(place) for place, _ in keys],
        )
        if self.keep_errors:
            batch["error"] = errors
        return batch

    def __getitem__(self, key: Key) -> Batch:
        """Return a batch of one."""
        return self.__getitems__([key])


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


def _stack(images: list[NDArray[Any]], where: str) -> torch.Tensor:
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        raise ConfigError(f"{where}: one batch holds images of {sorted(shapes)}; end the list with a Resize")
    # in a worker this stacks into shared memory, so that no copy is made on the way to the main process
    batch: torch.Tensor = default_collate([torch.from_numpy(np.require(image, None, ["C", "W"])) for image in images])
    return batch.permute(0, 3, 1, 2)


def as_it_is(whole: _Whole) -> _Whole:
    """Collate nothing: a batch comes whole from its dataset."""
    return whole


def start_worker(_: int) -> None:
    """Prepare a process that reads images."""
    cv2.setNumThreads(0)  # the workers are the parallelism
