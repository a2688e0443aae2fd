"""Divide a list of transforms into those applied once, before the cache, and those applied at each reading."""

import json
import math
from dataclasses import dataclass, replace
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version

import albumentations as A
import cv2
import numpy as np

from imgcls.data.transforms import resize
from imgcls.data.transforms.needed_size import first_random_crop, needed_side
from imgcls.data.transforms.pipeline import Pipeline, Transform
from imgcls.images import Pixels

_FORMAT = 3  # increase it when load_image returns other pixels for a file, or the format of the cache changes
_DECODERS = ("imgcls", "pillow", "opencv-python-headless", "simplejpeg")

# deterministic transforms; not their subclasses, which may do something else
_FIXED = {
    A.NoOp,
    A.Resize,
    A.SmallestMaxSize,
    A.LongestMaxSize,
    A.CenterCrop,
    A.Crop,
    A.Pad,
    A.PadIfNeeded,
    resize.CenterCrop,
    resize.Resize,
    resize.ResizeShortestEdge,
}


@dataclass(frozen=True)
class CacheSteps:
    """The transforms before and after the cache, and the size of cached images.

    Args:
        once: Applied before an image is cached.
        each_time: Applied when it is read, with the same random choices as in the whole list.
        shorter_side: Cached images are shrunk to this shorter side in pixels, never enlarged; None keeps their size.
        description: What is cached, for messages.
        scaled: Whether images may be decoded at a smaller size.
    """

    once: Pipeline
    each_time: Pipeline
    shorter_side: int | None
    description: str
    scaled: bool

    @property
    def min_side(self) -> int | None:
        """Shorter side in pixels to which decoding may shrink an image; None: decode exactly."""
        if not self.scaled:
            return None
        return needed_side(self.once) if self.once.transforms else self.shorter_side

    def before_cache(self, image: Pixels) -> Pixels:
        """Return the pixels to cache, uint8, ``(H, W, 3)``."""
        pixels = self.once(image, seed=0)
        return np.ascontiguousarray(pixels if self.shorter_side is None else _shrink(pixels, self.shorter_side))

    def uncopied_width(self) -> float:
        """Return the width in pixels above which an image need not be copied before ``each_time`` is applied.

        A transform may write into its input, but a RandomResizedCrop returns a new array: it returns a view only if the
        crop has the size of the output, and copies even that unless it spans the whole width.
        """
        crop = first_random_crop(self.each_time)
        return math.inf if crop is None or crop.size[0] == 1 else float(crop.size[1])

    def key(self) -> str:
        """Return a hash of the transforms, size and versions that decide the cached pixels besides the image."""
        content = {
            "format": _FORMAT,
            "items": [A.to_dict(transform) for transform in self.once.transforms],
            "shorter_side": self.shorter_side,
            "min_side": self.min_side,
            "versions": [_version(name) for name in (*_DECODERS, *(["torch"] if self.once.transforms else []))],
        }
        return blake2b(json.dumps(content, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()


def train_steps(pipeline: Pipeline, cache_size: int | None = None) -> CacheSteps:
    """Divide a training list; images are shrunk to the smallest size that loses no detail.

    ``cache_size`` sets the shorter side in pixels.
    """
    steps = eval_steps(pipeline, scaled=True)
    if cache_size is not None:
        return _shrunk(steps, cache_size, "from cache_size")
    crop, side = first_random_crop(steps.each_time), needed_side(steps.each_time)
    if crop is not None and side is not None:
        name = f"RandomResizedCrop({max(crop.size)}, scale from {crop.scale[0]:g})"
        return _shrunk(steps, side, f"enough for {name}; --data.cache_size N for another")
    return steps


def eval_steps(pipeline: Pipeline, scaled: bool = False) -> CacheSteps:
    """Divide a list after its leading deterministic transforms; if ``scaled``, images may be decoded smaller."""
    once, each_time = pipeline.divide(_count_fixed(pipeline.transforms))
    names = ", ".join(type(transform).__name__ for transform in once.transforms)
    return CacheSteps(once, each_time, None, f"the result of {names}" if names else "whole images", scaled)


def _shrunk(steps: CacheSteps, side: int, reason: str) -> CacheSteps:
    before = f"{steps.description}, " if steps.once.transforms else ""
    description = f"{before}shorter side at most {side} pixels, {reason}"
    return replace(steps, shorter_side=side, description=description)


def _count_fixed(transforms: list[Transform]) -> int:
    return next((number for number, t in enumerate(transforms) if not _is_fixed(t)), len(transforms))


def _is_fixed(transform: Transform) -> bool:
    if type(transform) not in _FIXED or transform.p < 1:
        return False
    sizes = getattr(transform, "max_size", None), getattr(transform, "max_size_hw", None)
    positions = getattr(transform, "position", None), getattr(transform, "pad_position", None)
    # a random one of several sizes
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
