"""Albumentations transforms that resize and crop as the image processors of transformers and timm do."""

from typing import Annotated, Any

import albumentations as A
import numpy as np
from albumentations.core.pydantic import check_range_bounds, nondecreasing
from albumentations.core.transforms_interface import BaseTransformInitSchema
from pydantic import AfterValidator, Field

from imgcls.images import Pixels
from imgcls.images.resize import Interpolation, Kernel, resize

_Side = Annotated[int, Field(ge=1)]


class ResizeShortestEdge(A.ImageOnlyTransform):  # type: ignore[misc]  # ships no types
    """Resize an image so that its shorter side has a given length, keeping the aspect ratio.

    The longer side is ``edge * longer // shorter``, truncated as by transformers and torchvision.

    Args:
        edge: Length of the shorter side in pixels.
        interpolation: ``nearest``, ``bilinear``, ``bicubic`` or ``lanczos``.
        kernel: ``torchvision``, antialiased as by transformers, or ``pillow``, as by timm.
        p: Probability of applying the transform.
    """

    class InitSchema(BaseTransformInitSchema):  # type: ignore[misc]
        """Types of the arguments."""

        edge: _Side
        interpolation: Interpolation
        kernel: Kernel

    def __init__(
        self, edge: int, interpolation: Interpolation = "bilinear", kernel: Kernel = "torchvision", p: float = 1.0
    ) -> None:
        super().__init__(p=p)
        self.edge, self.interpolation, self.kernel = edge, interpolation, kernel

    def apply(self, img: Pixels, **params: Any) -> Pixels:
        """Resize an image, uint8, ``(H, W, 3)``."""
        height, width = img.shape[:2]
        short = min(height, width)
        sides = self.edge * height // short, self.edge * width // short
        return resize(img, *sides, self.interpolation, self.kernel)


class Resize(A.ImageOnlyTransform):  # type: ignore[misc]
    """Resize an image to a height and width, without keeping the aspect ratio.

    Args:
        height: Height in pixels.
        width: Width in pixels.
        interpolation: ``nearest``, ``bilinear``, ``bicubic`` or ``lanczos``.
        kernel: ``torchvision``, antialiased as by transformers, or ``pillow``, as by timm.
        p: Probability of applying the transform.
    """

    class InitSchema(BaseTransformInitSchema):  # type: ignore[misc]
        """Types of the arguments."""

        height: _Side
        width: _Side
        interpolation: Interpolation
        kernel: Kernel

    def __init__(
        self,
        height: int,
        width: int,
        interpolation: Interpolation = "bilinear",
        kernel: Kernel = "torchvision",
        p: float = 1.0,
    ) -> None:
        super().__init__(p=p)
        self.height, self.width, self.interpolation, self.kernel = height, width, interpolation, kernel

    def apply(self, img: Pixels, **params: Any) -> Pixels:
        """Resize an image, uint8, ``(H, W, 3)``."""
        return resize(img, self.height, self.width, self.interpolation, self.kernel)


class CenterCrop(A.ImageOnlyTransform):  # type: ignore[misc]
    """Crop the centre of an image; an image that is smaller is padded with zeros.

    Args:
        height: Height in pixels.
        width: Width in pixels.
        kernel: Where the crop begins if the border is odd: ``torchvision`` rounds down, as transformers does;
            ``pillow`` rounds half to even, as timm does.
        p: Probability of applying the transform.
    """

    class InitSchema(BaseTransformInitSchema):  # type: ignore[misc]
        """Types of the arguments."""

        height: _Side
        width: _Side
        kernel: Kernel

    def __init__(self, height: int, width: int, kernel: Kernel = "torchvision", p: float = 1.0) -> None:
        super().__init__(p=p)
        self.height, self.width, self.kernel = height, width, kernel

    def apply(self, img: Pixels, **params: Any) -> Pixels:
        """Crop an image, ``(H, W, 3)``."""
        missing = [max(wanted - given, 0) for wanted, given in zip((self.height, self.width), img.shape, strict=False)]
        if any(missing):
            img = np.pad(img, [*((length // 2, length - length // 2) for length in missing), (0, 0)])
        top, left = self._offset(img.shape[0] - self.height), self._offset(img.shape[1] - self.width)
        return img[top : top + self.height, left : left + self.width]

    def _offset(self, border: int) -> int:
        return round(border / 2) if self.kernel == "pillow" else border // 2


class RandomResizedCrop(A.ImageOnlyTransform):  # type: ignore[misc]
    """Crop a random part of an image and resize it; the parts are those of ``albumentations.RandomResizedCrop``.

    Args:
        size: Height and width of the result in pixels.
        scale: Smallest and largest area of the part, as a share of the image, 0 to 1.
        ratio: Smallest and largest width / height of the part.
        interpolation: ``nearest``, ``bilinear``, ``bicubic`` or ``lanczos``.
        kernel: ``torchvision``, antialiased, or ``pillow``.
        p: Probability of applying the transform.
    """

    class InitSchema(BaseTransformInitSchema):  # type: ignore[misc]
        """Types and ranges of the arguments."""

        size: tuple[_Side, _Side]
        scale: Annotated[tuple[float, float], AfterValidator(check_range_bounds(0, 1)), AfterValidator(nondecreasing)]
        ratio: Annotated[
            tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]], AfterValidator(nondecreasing)
        ]
        interpolation: Interpolation
        kernel: Kernel

    def __init__(
        self,
        size: tuple[int, int],
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        interpolation: Interpolation = "bilinear",
        kernel: Kernel = "torchvision",
        p: float = 1.0,
    ) -> None:
        super().__init__(p=p)
        self.size, self.scale, self.ratio = size, scale, ratio
        self.interpolation, self.kernel = interpolation, kernel

    get_params_dependent_on_data = A.RandomResizedCrop.get_params_dependent_on_data

    def apply(self, img: Pixels, crop_coords: tuple[int, int, int, int], **params: Any) -> Pixels:
        """Crop and resize an image, uint8, ``(H, W, 3)``."""
        left, top, right, bottom = crop_coords
        return resize(img[top:bottom, left:right], *self.size, self.interpolation, self.kernel)
