"""Heat maps beside the thumbnails of a report."""

import logging
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from imgcls.data.datamodule import ImageDataModule
from imgcls.data.splitting.split import Split
from imgcls.data.transforms.needed_size import needed_side
from imgcls.explain.heat_maps import HeatMaps
from imgcls.explain.overlay import overlay
from imgcls.explain.seen_photo import SeenPhoto
from imgcls.models.inference import InferenceModule
from imgcls.results.predictions import EvaluatedSplit
from imgcls.runtime.optional_part import optional_part

log = logging.getLogger(__name__)

SplitIndex = tuple[Split, int]
"""A split, and the index of an image in it."""

_BATCH = 8
_SECONDS = 20.0  # after which no further batch is begun


class Wanted(NamedTuple):
    """A thumbnail that gets a heat map.

    Args:
        split: The split of its image.
        number: Its index in the split.
        target: The class that is explained.
        against: For a mistake the true class; else None.
    """

    split: Split
    number: int
    target: int
    against: int | None


def wanted_maps(found: EvaluatedSplit, images: Mapping[str, SplitIndex]) -> dict[str, Wanted]:
    """Return path -> what its heat map shows: why this class, and not the true one.

    Args:
        found: The evaluated images; those without a prediction get no heat map.
        images: Path -> split and index of the images with a thumbnail.
    """
    wanted = {}
    for row, path in enumerate(found.paths):
        if path in images and np.isfinite(found.probs[row]).all():
            target = int(found.probs[row].argmax())
            true = None if found.multilabel else int(found.labels[row])
            wanted[path] = Wanted(*images[path], target, None if true in (None, target, -1) else true)
    return {path: wanted[path] for path in images if path in wanted}


def heat_map_overlays(
    model: InferenceModule, device: torch.device, data: ImageDataModule, wanted: Sequence[Wanted], side: int
) -> list[NDArray[np.uint8]]:
    """Return images with their heat maps, as many as the time allows; none if that fails, which is logged.

    Args:
        model: The classifier, which is on the CPU again afterwards.
        device: Where it computes.
        data: The data of the run.
        wanted: The images, the most important first; at least one.
        side: Longer side of the pictures in pixels.

    Returns:
        uint8 ``(H, W, 3)`` each.
    """
    drawn: list[NDArray[np.uint8]] = []
    with optional_part("No heat maps in the report", "it has the images alone"):
        try:
            drawn = _overlays(model.to(device), data, wanted, side)
        finally:
            model.to("cpu")
    return drawn


def _overlays(
    model: InferenceModule, data: ImageDataModule, wanted: Sequence[Wanted], side: int
) -> list[NDArray[np.uint8]]:
    begun = time.monotonic()
    pipeline = data.pipelines.make("eval", wanted[0].split.read(wanted[0].number))
    maps = HeatMaps(model)
    drawn: list[NDArray[np.uint8]] = []
    for start in range(0, len(wanted), _BATCH):
        part = wanted[start : start + _BATCH]
        if time.monotonic() - begun > _SECONDS:
            log.info("Heat maps of the first %d of %d images: more would take too long", start, len(wanted))
            break
        photos = [
            SeenPhoto.of(
                each.split.read(each.number, needed_side(pipeline)), partial(pipeline, seed=0), model.preprocessing
            )
            for each in part
        ]
        images = torch.from_numpy(np.stack([photo.pixels for photo in photos])).permute(0, 3, 1, 2)
        if maps.layer((images.shape[2], images.shape[3])) is None:
            log.info("No heat maps in the report: this network has no layer with a usable spatial grid")
            break
        heat = maps.explain(images, [each.target for each in part], [each.against for each in part])
        drawn += [_drawn(photo, row, side) for photo, row in zip(photos, heat, strict=True)]
    return drawn


def _drawn(photo: SeenPhoto, heat: NDArray[np.float32], side: int) -> NDArray[np.uint8]:
    def factor(height: int, width: int) -> float:
        return side / max(height, width)

    return overlay(*photo.with_heat(heat, factor))
