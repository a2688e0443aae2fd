"""Properties of a sample of the images of each split: size, file, brightness, contrast, saturation and sharpness."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from imgcls.data.splitting.split import Split
from imgcls.datasets.dataset import ImageDataset, JoinedDataset
from imgcls.datasets.webdataset_stream import StreamImageDataset
from imgcls.errors import ImageError
from imgcls.images import Pixels, check_header
from imgcls.images.pillow_formats import open_image

COLUMNS = (
    "path",
    "split",
    "width",
    "height",
    "bytes",
    "format",
    "brightness",
    "contrast",
    "saturation",
    "sharpness",
)

_DTYPES = {
    "path": "object",
    "split": "object",
    "format": "object",
    "width": "int64",
    "height": "int64",
    "bytes": "Int64",
}
_IMAGES = 1000  # of a split
_BYTES = 60e6  # of a split: files, or pixels where there are no files; about a second
_AT_LEAST = 200  # images, however large
_SIDE = 128  # pixels, to which the shorter side is shrunk
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


def image_properties(splits: Mapping[str, Split], seed: int = 0) -> pd.DataFrame:
    """Return one row per image of a random sample of each split, in the order of the split.

    A sample has at most 1,000 images, and of large files fewer, but at least 200. Unreadable images and streams are
    left out.

    Args:
        splits: The splits by name.
        seed: Of the sample.

    Returns:
        The columns ``path``; ``split``; ``width`` and ``height`` in pixels; ``bytes`` and ``format`` of the file, empty
        where samples are no files; ``brightness`` and ``contrast``, mean and standard deviation of the luma, 0 to 255;
        ``saturation``, mean of HSV's, 0 to 1; ``sharpness``, mean absolute Laplacian of the luma, 0 to 1020.
    """
    rows = [row for name, split in splits.items() for row in _of_split(name, split, seed)]
    # objects, since pandas' texts must be UTF-8, and paths need not be
    columns = {name: pd.Series([row.get(name) for row in rows], dtype=_DTYPES.get(name, "float64")) for name in COLUMNS}
    return pd.DataFrame(columns)


def measure(pixels: Pixels) -> dict[str, float]:
    """Return brightness, contrast, saturation and sharpness of uint8 pixels ``(H, W, 3)``."""
    small = _shrunk(pixels)
    luma = small.astype(np.float32) @ _LUMA
    red, green, blue = small.transpose(2, 0, 1)  # reducing the last axis takes ten times as long
    most = np.maximum(np.maximum(red, green), blue)
    least = np.minimum(np.minimum(red, green), blue)
    saturation = (most - least) / np.maximum(most, 1)
    return {
        "brightness": float(luma.mean()),
        "contrast": float(luma.std()),
        "saturation": float(saturation.mean()),
        "sharpness": float(np.abs(_laplacian(luma)).mean()),
    }


def _of_split(name: str, split: Split, seed: int) -> list[dict[str, Any]]:
    if isinstance(split.data, StreamImageDataset):
        return []
    found: dict[int, dict[str, Any]] = {}
    read = 0.0
    for index in np.random.default_rng(seed).permutation(len(split)).tolist():
        if len(found) == _IMAGES or (read > _BYTES and len(found) >= _AT_LEAST):
            break
        try:
            row = _of_image(split, index)
        except ImageError:
            continue  # reported when its batch is read
        read += row.pop("read")
        found[index] = {"path": split.path(index), "split": name, **row}
    return [found[index] for index in sorted(found)]


def _of_image(split: Split, index: int) -> dict[str, Any]:
    """Return the properties of an image, and the number of bytes that were ``read``."""
    path, data = split.path(index), _dataset(split, index)
    if not data.holds_files:
        pixels = split.read(index)
        height, width = pixels.shape[:2]
        return {"width": width, "height": height, **measure(pixels), "read": pixels.nbytes}
    width, height = check_header(path, data.max_pixels)
    with open(path, "rb") as file:
        kind = open_image(file).format
    size = os.path.getsize(path)
    pixels = split.read(index, _SIDE)
    return {"width": width, "height": height, "bytes": size, "format": kind, **measure(pixels), "read": size}


def _dataset(split: Split, index: int) -> ImageDataset:
    data = split.data
    return data.find(int(split.rows[index]))[0] if isinstance(data, JoinedDataset) else data


def _shrunk(pixels: Pixels) -> Pixels:
    factor = min(pixels.shape[:2]) // _SIDE
    return pixels if factor < 2 else np.asarray(Image.fromarray(pixels).reduce(factor))


def _laplacian(luma: NDArray[np.float32]) -> NDArray[np.float32]:
    padded = np.pad(luma, 1, mode="edge")
    around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    return np.asarray(around - 4 * luma)
