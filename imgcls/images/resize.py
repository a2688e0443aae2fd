"""Resize pixels with the kernel that a pretrained model was trained with: torchvision's, or Pillow's."""

from typing import Literal

import numpy as np
import torch
from PIL import Image

from imgcls.images.pillow_decoder import Pixels

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Kernel = Literal["torchvision", "pillow"]

_PILLOW = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def resize(pixels: Pixels, height: int, width: int, interpolation: Interpolation, kernel: Kernel) -> Pixels:
    """Resize an image, antialiased when it shrinks.

    Both kernels round to 8 bits between the two directions and have integer weights; their values differ by one level
    in about 5 % of the pixels, more at sharp edges. Each gives the same values as the library that it is named after.

    Args:
        pixels: uint8, ``(H, W, 3)``.
        height: Height of the result in pixels.
        width: Width of the result in pixels.
        interpolation: ``nearest``, ``bilinear``, ``bicubic`` or ``lanczos``; torchvision has ``lanczos`` since 0.27.
        kernel: ``torchvision`` or ``pillow``.

    Returns:
        uint8, ``(height, width, 3)``, contiguous; ``pixels`` itself if it has that size.

    Raises:
        ValueError: If the pixels are not uint8 of three dimensions.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3:
        raise ValueError(
            f"pixels must be uint8 of shape (H, W, 3), got {pixels.dtype} of shape {pixels.shape}; resize before "
            "albumentations.Normalize"
        )
    if pixels.shape[:2] == (height, width):
        return pixels
    if kernel == "pillow":
        return np.array(Image.fromarray(pixels).resize((width, height), _PILLOW[interpolation]))
    return _by_torchvision(pixels, height, width, interpolation)


def _by_torchvision(pixels: Pixels, height: int, width: int, interpolation: Interpolation) -> Pixels:
    # imported here: it takes as long as torch, which check and init, and lists without this kernel, would wait for
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional

    # transformers' "nearest", too, is the one that agrees with Pillow's
    mode = InterpolationMode("nearest-exact" if interpolation == "nearest" else interpolation)
    image = torch.from_numpy(np.require(pixels, requirements=["C", "W"])).permute(2, 0, 1)
    result = functional.resize(image, [height, width], interpolation=mode, antialias=True)
    return np.ascontiguousarray(result.permute(1, 2, 0).numpy())  # it is: torch keeps channels last
