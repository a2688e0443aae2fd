"""The confusion matrix of many classes as a small picture, one pixel per cell."""

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_COLOUR = (214, 84, 34)
_FAINTEST = 60  # of 255, of a cell with a single image


def confusion_picture(matrix: NDArray[np.int64], order: list[int]) -> str:
    """Return the picture as the data URL of a PNG, the diagonal and empty cells transparent.

    Args:
        matrix: ``(classes, classes)``, images by true class (row) and predicted class (column).
        order: The order of the classes.
    """
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    shares = shares[np.ix_(order, order)]
    np.fill_diagonal(shares, 0)
    pixels = np.zeros((*shares.shape, 4), np.uint8)
    pixels[..., :3] = _COLOUR
    strength = np.sqrt(shares / max(shares.max(), 1e-9))  # small shares stay visible
    pixels[..., 3] = np.where(shares > 0, _FAINTEST + (255 - _FAINTEST) * strength, 0).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
