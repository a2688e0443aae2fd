"""Where the network's input is in a photo, by applying the evaluation transforms to a picture of coordinates."""

from collections.abc import Callable
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from imgcls.images import Pixels
from imgcls.types import Preprocessing

Frame: TypeAlias = NDArray[np.float64]
"""``(2, 3)``: column and row in the photo are this matrix times (column, row, 1) in the network's input."""

_INSIDE = 250  # of the third channel, which is 255 in the photo and 0 in a padded border
_LEAST_INSIDE = 0.05  # share of the pixels
_MAX_ERROR = 0.01  # of a position, as a share of the longer side


def measure_frame(
    transform: Callable[[Pixels], NDArray[Any]], height: int, width: int, preprocessing: Preprocessing
) -> Frame | None:
    """Return where the network's input is in a photo.

    Args:
        transform: The evaluation transforms, from uint8 ``(H, W, 3)`` to uint8, or to normalised floats.
        height: Height of the photo in pixels.
        width: Its width.
        preprocessing: Mean and standard deviation of normalised floats.

    Returns:
        The frame; None if colours change, so that positions cannot be read, or the transforms bend the photo.
    """
    ramps = np.full((height, width, 3), 255, np.uint8)
    ramps[..., 0] = np.linspace(0, 255, width).round()
    ramps[..., 1] = np.linspace(0, 255, height).round()[:, None]
    found = to_pixels(transform(ramps), preprocessing).astype(np.float64)
    rows, columns = np.nonzero(found[..., 2] >= _INSIDE)
    if len(rows) < _LEAST_INSIDE * found[..., 2].size:
        return None
    positions = found[rows, columns, :2] / 255 * (width - 1, height - 1)
    corners = np.stack([columns, rows, np.ones(len(rows))], 1)
    frame = np.asarray(np.linalg.lstsq(corners, positions, rcond=None)[0].T, dtype=np.float64)
    error = np.sqrt(np.mean((corners @ frame.T - positions) ** 2))
    is_flat = abs(np.linalg.det(frame[:, :2])) < 1e-9
    return None if error > _MAX_ERROR * max(height, width) or is_flat else frame


def to_pixels(image: NDArray[Any], preprocessing: Preprocessing) -> Pixels:
    """Return the network's input ``(H, W, 3)`` as uint8; normalised floats are brought back to 0..255."""
    if image.dtype == np.uint8:
        return image
    values = (image * np.asarray(preprocessing.std) + np.asarray(preprocessing.mean)) * 255
    return np.asarray(values.round().clip(0, 255), dtype=np.uint8)


def place(
    heat: NDArray[np.float32], size: tuple[int, int], frame: Frame, height: int, width: int
) -> NDArray[np.float32]:
    """Place a heat map onto a photo.

    Args:
        heat: ``(h, w)``, of the grid cells of a layer.
        size: Height and width of the network's input.
        frame: Where that is in the photo.
        height: Height of the photo.
        width: Its width.

    Returns:
        ``(height, width)`` float32, 0 to 1; NaN where the network does not see the photo.
    """
    whole = cv2.resize(heat, size[::-1], interpolation=cv2.INTER_CUBIC).clip(0, 1)
    placed = cv2.warpAffine(whole, frame, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    seen = cv2.warpAffine(np.ones_like(whole), frame, (width, height), flags=cv2.INTER_NEAREST)
    return np.where(seen > 0, placed, np.nan).astype(np.float32)


def scaled(frame: Frame, scale: float) -> Frame:
    """Return the frame in a photo that is shrunk or enlarged by a factor."""
    centres = np.array([[frame[0, 2]], [frame[1, 2]]]) + 0.5
    return np.hstack([frame[:, :2] * scale, centres * scale - 0.5])
