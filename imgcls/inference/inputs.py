"""The images that a user hands to a classifier: paths, arrays and Pillow images, in any mixture."""

import os
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from PIL import Image

from imgcls.datasets.dataset import ImageDataset
from imgcls.datasets.image_paths import expand_path
from imgcls.errors import ConfigError
from imgcls.images import MAX_PIXELS, Pixels, load_image, read_pillow

Item: TypeAlias = str | Pixels | Image.Image
Input: TypeAlias = Item | os.PathLike[str]
Inputs: TypeAlias = Input | Iterable[Input]

_EXPECTED = "expected paths, uint8 arrays (H, W, 3) or Pillow images"


class InputDataset(ImageDataset):
    """Images to predict, in the order in which they are given.

    Args:
        inputs: A path of an image, of a folder (its images, recursive and sorted) or of a CSV with a column ``path``
            (its rows); a uint8 array ``(H, W, 3)`` or ``(N, H, W, 3)``, RGB; a Pillow image; or several of these. Of
            several paths, one that does not exist is an image that cannot be read.
        max_pixels: The largest width x height that is decoded.

    Raises:
        ConfigError: If a single path does not exist, a folder or CSV has no image, or an array has another shape or
            dtype.
        TypeError: If an input is something else.
    """

    def __init__(self, inputs: Inputs, max_pixels: int = MAX_PIXELS) -> None:
        self.items = _items(inputs)
        self.max_pixels = max_pixels
        names = [item if isinstance(item, str) else f"image {index}" for index, item in enumerate(self.items)]
        self.samples = pd.DataFrame({"path": names, "label": None}, dtype=object)

    @property
    def paths(self) -> list[str]:
        """The path of each image; that of the file of a Pillow image; "" if there is none."""
        return [item if isinstance(item, str) else str(getattr(item, "filename", "")) for item in self.items]

    @property
    def may_fork(self) -> bool:
        """Whether loader workers may read the images; forks would share the position in the file of a Pillow image."""
        return not any(isinstance(item, Image.Image) for item in self.items)

    def read(self, index: int) -> Pixels:
        """Return the pixels of an image, uint8, ``(H, W, 3)``, RGB.

        Raises:
            ImageError: If it cannot be read.
        """
        return self.read_scaled(index, None)

    def read_scaled(self, index: int, min_side: int | None) -> Pixels:
        """Return the pixels of an image; those of a file with a shorter side of at least ``min_side``."""
        item = self.items[index]
        if isinstance(item, str):
            return load_image(item, self.max_pixels, min_side)
        if isinstance(item, Image.Image):
            return read_pillow(item, f"image {index}", self.max_pixels)
        return item.copy()  # a transform may write into it


def _items(inputs: Any) -> list[Item]:
    if isinstance(inputs, (str, os.PathLike, Image.Image)):
        return _given(inputs, alone=True)
    if isinstance(inputs, np.ndarray) and inputs.dtype.kind not in "OUT":  # of objects and texts: paths
        return [_checked(image) for image in inputs] if inputs.ndim == 4 else [_checked(inputs)]
    if not isinstance(inputs, Iterable) or isinstance(inputs, (bytes, Mapping, pd.DataFrame)):
        raise TypeError(f"{_EXPECTED}, got {_shown(inputs)}")
    return [item for given in inputs for item in _given(given)]


def _given(given: Any, alone: bool = False) -> list[Item]:
    """Return the images of an item of a list, or of the only one."""
    if isinstance(given, (str, os.PathLike)):
        name = os.path.expanduser(os.fsdecode(given))
        # of several, a missing file is a row with the reason, as one that cannot be read
        return [*expand_path(name)] if alone or os.path.lexists(name) else [name]
    if isinstance(given, Image.Image):
        return [given]
    if isinstance(given, np.ndarray):
        return [_checked(given)]
    raise TypeError(f"{_EXPECTED}, got {_shown(given)}")


def _checked(image: Pixels) -> Pixels:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ConfigError(
            "an array must be an RGB image, uint8 of shape (H, W, 3), or several of them, (N, H, W, 3), got "
            f"{image.dtype} of shape {image.shape}; for grey or transparent images: PIL.Image.fromarray(array)"
        )
    return image


def _shown(value: object) -> str:
    """Return the type of a value; of a tensor, also how to convert it."""
    kind = type(value).__name__
    return f"{kind}; convert it: tensor.permute(1, 2, 0).numpy()" if kind == "Tensor" else kind
