"""Properties of a sample of the images of each split: size, file, brightness, contrast, saturation and sharpness."""

import os
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from imgcls.data.splitting.split import Split
from imgcls.datasets.dataset import ImageDataset, JoinedDataset
from imgcls.datasets.webdataset_stream import StreamImageDataset
from imgcls.errors import ImageError
from imgcls.images import Pixels, check_header
from imgcls.images.pillow_formats import open_image

_COLUMNS = {  # name -> dtype
    **{"path": "object", "split": "object", "width": "int64", "height": "int64", "bytes": "Int64", "format": "object"},
    **dict.fromkeys(("brightness", "contrast", "saturation", "sharpness"), "float64"),
}
_IMAGES = 1000  # of a split
_BYTES = 60e6  # of a split: files, or pixels where there are no files; about a second
_AT_LEAST = 200  # images, however large
_SIDE = 128  # pixels, to which the shorter side is shrunk


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
    return pd.DataFrame(
        {name: pd.Series([row.get(name) for row in rows], dtype=kind) for name, kind in _COLUMNS.items()}
    )


def measure(pixels: Pixels) -> dict[str, float]:
    """Return brightness, contrast, saturation and sharpness of uint8 pixels ``(H, W, 3)``."""
    small = _shrunk(pixels).astype(np.float32)
    luma = np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), dtype=np.float32)  # as of ITU-R BT.601
    saturation = np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2HSV)[:, :, 1])
    edges = np.asarray(cv2.Laplacian(luma, cv2.CV_32F, borderType=cv2.BORDER_REPLICATE))
    return {
        "brightness": float(luma.mean()),
        "contrast": float(luma.std()),
        "saturation": float(saturation.mean()),
        "sharpness": float(np.abs(edges).mean()),
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
