"""Resize pixels with the kernel that a pretrained model was trained with: torchvision's, or Pillow's."""

from typing import Literal

import numpy as np
import torch
from PIL import Image

from imgcls.images.exif_orientation import Pixels

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Kernel = Literal["torchvision", "pillow"]


def resize(pixels: Pixels, height: int, width: int, interpolation: Interpolation, kernel: Kernel) -> Pixels:
    """Resize an image, antialiased when it shrinks.

    Each kernel gives the values of the library that it is named after: of PyTorch on the same machine, which computes
    bilinear in floats where the processor has no AVX2, and of Pillow. On photos, both differ by one level in 0.1 to
    0.3 % of the values.

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
        return np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling[interpolation.upper()]))
    return _by_torchvision(pixels, height, width, interpolation)


def _by_torchvision(pixels: Pixels, height: int, width: int, interpolation: Interpolation) -> Pixels:
    # imported here, since it takes half a second, for which check and lists without this kernel need not wait
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional

    # transformers' "nearest", too, is the one that agrees with Pillow's
    mode = InterpolationMode("nearest-exact" if interpolation == "nearest" else interpolation)
    image = torch.from_numpy(np.require(pixels, requirements=["C", "W"])).permute(2, 0, 1)
    result = functional.resize(image, [height, width], interpolation=mode, antialias=True)
    return np.ascontiguousarray(result.permute(1, 2, 0).numpy())  # it is: torch keeps channels last
