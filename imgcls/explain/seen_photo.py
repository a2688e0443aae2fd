"""A photo, where the network's input is in it, and a heat map in its frame.

The frame is measured by applying the evaluation transforms to a picture of coordinates.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

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
    """Place a heat map ``(h, w)`` of grid cells onto a photo, in which an input of a height and width has a frame.

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


@dataclass(frozen=True)
class SeenPhoto:
    """A photo on its way into the network.

    Args:
        photo: uint8, ``(H, W, 3)``.
        pixels: The network's input ``(h, w, 3)``, uint8, or normalised floats.
        frame: Where that is in the photo; None if that is unknown.
        preprocessing: Mean and standard deviation of normalised floats.
    """

    photo: Pixels
    pixels: NDArray[Any]
    frame: Frame | None
    preprocessing: Preprocessing

    @classmethod
    def of(cls, photo: Pixels, transform: Callable[[Pixels], NDArray[Any]], preprocessing: Preprocessing) -> Self:
        """Apply the evaluation transforms to a photo."""
        frame = measure_frame(transform, photo.shape[0], photo.shape[1], preprocessing)
        return cls(photo, transform(photo), frame, preprocessing)

    def with_heat(
        self, heat: NDArray[np.float32], factor: Callable[[int, int], float]
    ) -> tuple[Pixels, NDArray[np.float32]]:
        """Return the photo, resized, and a heat map of the same height and width.

        Args:
            heat: ``(h, w)``, of the grid cells of a layer.
            factor: Returns the factor by which a picture of a height and width is resized.

        Returns:
            The photo, uint8 ``(H, W, 3)``, or the network's input if its frame in the photo is unknown; and the heat
            map ``(H, W)``, 0 to 1, NaN where the network does not see the photo.
        """
        photo, frame = self.photo, self.frame
        if frame is None:
            photo, frame = to_pixels(self.pixels, self.preprocessing), np.eye(2, 3)
        scale = factor(*photo.shape[:2])
        height, width = (max(1, round(each * scale)) for each in photo.shape[:2])
        kernel = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        resized = np.asarray(cv2.resize(photo, (width, height), interpolation=kernel), dtype=np.uint8)
        return resized, place(heat, self.pixels.shape[:2], scaled(frame, scale), height, width)
