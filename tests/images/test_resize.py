"""Resizing gives the values of the library that the kernel is named after."""

from typing import get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from imgcls.images.resize import Interpolation, resize

SHAPES = [(60, 91), (120, 30), (31, 31), (1, 40), (40, 1), (1, 1), (400, 301)]
SIZES = [(24, 24), (48, 13), (100, 130), (2, 7), (7, 2)]


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("interpolation", get_args(Interpolation))
def test_values_are_those_of_the_library(interpolation: Interpolation) -> None:
    mode = InterpolationMode("nearest-exact" if interpolation == "nearest" else interpolation)
    for shape in SHAPES:
        pixels = noise(*shape)
        planes = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
        for size in SIZES:
            by_torchvision = functional.resize(planes, list(size), interpolation=mode, antialias=True)
            result = resize(pixels, *size, interpolation, "torchvision")
            np.testing.assert_array_equal(result, by_torchvision.permute(1, 2, 0).numpy())
            by_pillow = Image.fromarray(pixels).resize(size[::-1], Image.Resampling[interpolation.upper()])
            np.testing.assert_array_equal(resize(pixels, *size, interpolation, "pillow"), np.asarray(by_pillow))


@pytest.mark.parametrize("kernel", ["torchvision", "pillow"])
def test_a_view_of_memory_that_is_not_writable_is_resized_to_an_array_of_its_own(kernel: str) -> None:
    pixels = noise(40, 50)
    pixels.flags.writeable = False
    view = pixels[5:25, 10:40]
    result = resize(view, 9, 11, "bicubic", kernel)  # type: ignore[arg-type]
    assert result.shape == (9, 11, 3)
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous
    assert result.flags.writeable
    np.testing.assert_array_equal(result, resize(view.copy(), 9, 11, "bicubic", kernel))  # type: ignore[arg-type]
    assert resize(pixels, 40, 50, "bicubic", kernel) is pixels  # type: ignore[arg-type]


@pytest.mark.parametrize("pixels", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8)])
def test_pixels_of_another_kind_are_refused(pixels: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match=r"must be uint8 of shape \(H, W, 3\), got (float32|uint8) of shape \(4, 4"):
        resize(pixels, 2, 2, "bilinear", "pillow")
