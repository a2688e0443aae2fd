"""A photo, what the network sees of it, and a heat map in its frame."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from imgcls.explain.frame import Frame, measure_frame, place, scaled, to_pixels
from imgcls.images import Pixels
from imgcls.types import Preprocessing


@dataclass(frozen=True)
class SeenPhoto:
    """A photo on its way into the network.

    Args:
        photo: uint8, ``(H, W, 3)``.
        pixels: The network's input ``(h, w, 3)``, uint8, or normalised floats.
        frame: Where that is in the photo; None if that is unknown.
    """

    photo: Pixels
    pixels: NDArray[Any]
    frame: Frame | None

    @classmethod
    def of(cls, photo: Pixels, transform: Callable[[Pixels], NDArray[Any]], preprocessing: Preprocessing) -> Self:
        """Apply the evaluation transforms to a photo.

        Args:
            photo: uint8, ``(H, W, 3)``.
            transform: The evaluation transforms.
            preprocessing: Mean and standard deviation of normalised floats.
        """
        frame = measure_frame(transform, photo.shape[0], photo.shape[1], preprocessing)
        return cls(photo, transform(photo), frame)

    def with_heat(
        self, heat: NDArray[np.float32], side: Callable[[int, int], float], preprocessing: Preprocessing
    ) -> tuple[Pixels, NDArray[np.float32]]:
        """Return the photo, resized, and a heat map of the same height and width.

        Args:
            heat: ``(h, w)``, of the grid cells of a layer.
            side: Returns the factor by which a picture of a height and width is resized.
            preprocessing: Mean and standard deviation of normalised floats.

        Returns:
            The photo, uint8 ``(H, W, 3)``, or the network's input if its frame in the photo is unknown; and the heat
            map ``(H, W)``, 0 to 1, NaN where the network does not see the photo.
        """
        photo, frame = self.photo, self.frame
        if frame is None:
            photo, frame = to_pixels(self.pixels, preprocessing), np.eye(2, 3)
        scale = side(*photo.shape[:2])
        height, width = (max(1, round(each * scale)) for each in photo.shape[:2])
        kernel = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        resized = np.asarray(cv2.resize(photo, (width, height), interpolation=kernel), dtype=np.uint8)
        return resized, place(heat, self.pixels.shape[:2], scaled(frame, scale), height, width)
