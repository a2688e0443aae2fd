"""From places in a split to whole batches."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from imgcls.augment import Pipeline, reason_of
from imgcls.batch import Batch
from imgcls.errors import ConfigError, ImageError
from imgcls.images import Pixels
from imgcls.sampling import Key
from imgcls.splits import Split

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
            images.append(self._augment(pixels, place, seed))
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

    def _augment(self, pixels: Pixels, place: int, seed: int) -> NDArray[Any]:
        try:
            return self.pipeline(pixels, seed)
        except ConfigError:
            raise
        except Exception as error:
            raise ConfigError(
                f"{self.pipeline.where}: fails on {self.split.path(place)}, of shape {pixels.shape}: {reason_of(error)}"
            ) from error


def _stack(images: list[NDArray[Any]], where: str) -> torch.Tensor:
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        raise ConfigError(f"{where}: one batch holds images of {sorted(shapes)}; end the list with a Resize")
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def as_it_is(batch: Batch) -> Batch:
    """Collate nothing: a batch comes whole from its dataset."""
    return batch


def start_worker(_: int) -> None:
    """Prepare a process that reads images."""
    cv2.setNumThreads(0)  # the workers are the parallelism
