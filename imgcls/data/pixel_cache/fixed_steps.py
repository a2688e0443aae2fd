"""What of an augmentation list is done once, before an image is kept, and what is left for each reading."""

import json
import math
from dataclasses import dataclass
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version

import albumentations as A
import cv2
import numpy as np

from imgcls.data.transforms.pipeline import Item, Pipeline
from imgcls.images import Pixels

_FORMAT = 2  # raise it when load_image gives other pixels of a file, or the files of the cache are written otherwise
_DECODERS = ("imgcls", "pillow", "opencv-python-headless", "simplejpeg")

# do the same to an image whenever they are applied; not their subclasses, which may do something else
_FIXED = {
    A.NoOp,
    A.Resize,
    A.SmallestMaxSize,
    A.LongestMaxSize,
    A.CenterCrop,
    A.Crop,
    A.Pad,
    A.PadIfNeeded,
}


@dataclass(frozen=True)
class Steps:
    """The two halves of an augmentation list, and the size of what lies between.

    Args:
        once: Applied before an image is kept.
        each_time: Applied whenever it is read; with the same seeds it draws what the whole list would draw.
        shorter_side: What is kept is shrunk to this shorter side in pixels, never enlarged; None leaves it as it is.
        why: What is kept, in words.
    """

    once: Pipeline
    each_time: Pipeline
    shorter_side: int | None
    why: str

    def keep(self, image: Pixels) -> Pixels:
        """Return what is kept of an image, uint8, ``(H, W, 3)``."""
        kept = self.once(image, seed=0)
        return np.ascontiguousarray(kept if self.shorter_side is None else _shrink(kept, self.shorter_side))

    def free_width(self) -> float:
        """Return the width in pixels above which an image need not be copied before ``each_time`` is applied.

        Any step may write into the array that it gets, but a RandomResizedCrop makes one of its own: it gives on a part
        of its input only where that is the size of the output, and even that it copies unless it spans the whole width.
        """
        crop = _first_crop(self.each_time)
        return math.inf if crop is None or crop.size[0] == 1 else float(crop.size[1])

    def key(self) -> str:
        """Return a short name of all that decides the pixels beside the image itself: steps, size and versions."""
        content = {
            "format": _FORMAT,
            "items": [A.to_dict(item) for item in self.once.items],
            "shorter_side": self.shorter_side,
            "versions": [_version(name) for name in _DECODERS],
        }
        return blake2b(json.dumps(content, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()


def train_steps(pipeline: Pipeline, cache_size: int | None = None) -> Steps:
    """Divide a training list; images are shrunk to the smallest size that the list can use.

    Args:
        pipeline: The list.
        cache_size: The shorter side in pixels; None chooses it.
    """
    steps = eval_steps(pipeline)
    if cache_size is not None:
        return _shrunk(steps, cache_size, "as cache_size says")
    crop = _first_crop(steps.each_time)
    if crop is not None and crop.scale[0] > 0:
        # the smallest crop has as many pixels as the size that it is brought to
        side = math.ceil(max(crop.size) / math.sqrt(crop.scale[0]))
        name = f"RandomResizedCrop({max(crop.size)}, scale from {crop.scale[0]:g})"
        return _shrunk(steps, side, f"as {name} can use; --data.cache_size N for another")
    return steps


def eval_steps(pipeline: Pipeline) -> Steps:
    """Divide a list after the steps at its head that do the same to an image whenever they are applied."""
    once, each_time = pipeline.divide(_count_fixed(pipeline.items))
    if once.items:
        return Steps(once, each_time, None, f"the result of {', '.join(type(item).__name__ for item in once.items)}")
    return Steps(once, each_time, None, "whole images")


def _shrunk(steps: Steps, side: int, why: str) -> Steps:
    before = f"{steps.why}, " if steps.once.items else ""
    return Steps(steps.once, steps.each_time, side, f"{before}shorter side {side} pixels at most, {why}")


def _first_crop(pipeline: Pipeline) -> A.RandomResizedCrop | None:
    first = next(iter(pipeline.items), A.NoOp())
    return first if type(first) is A.RandomResizedCrop and first.p >= 1 else None


def _count_fixed(items: list[Item]) -> int:
    return next((number for number, item in enumerate(items) if not _is_fixed(item)), len(items))


def _is_fixed(item: Item) -> bool:
    if type(item) not in _FIXED or item.p < 1:
        return False
    sizes = getattr(item, "max_size", None), getattr(item, "max_size_hw", None)
    positions = getattr(item, "position", None), getattr(item, "pad_position", None)
    # of several sizes one is drawn
    return not isinstance(sizes[0], (list, tuple)) and "random" not in positions


def _shrink(image: Pixels, side: int) -> Pixels:
    height, width = image.shape[:2]
    scale = side / min(height, width)
    if scale >= 1:
        return image
    size = max(side, round(width * scale)), max(side, round(height * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"no {package}"
