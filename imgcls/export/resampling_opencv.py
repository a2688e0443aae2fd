"""OpenCV's resize of uint8 pixels, for older checkpoints and for Albumentations' resizes.

OpenCV computes in float32 what is computed here in float64, so that a value in ten thousand may differ by one level.
"""

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from imgcls.export.resampling import Length, number, sums_of_bands

Interpolation: TypeAlias = Literal["nearest", "linear", "cubic", "area"]

_COEFFICIENT = 2048  # INTER_RESIZE_COEF_SCALE
_LEAST = 1e-3  # part of a pixel that computeResizeAreaTab leaves out


def resize_opencv(
    image: Tensor, size: tuple[Length, Length], rows: Tensor, columns: Tensor, interpolation: Interpolation
) -> Tensor:
    """Resize an image, and return some of its rows and columns.

    Source of the method: ``modules/imgproc/src/resize.cpp`` of OpenCV 5.

    Args:
        image: ``(H, W, 3)``, uint8.
        size: Height and width after the resize.
        rows: ``(K,)``, int64, the rows to return.
        columns: ``(L,)``, int64, the columns to return.
        interpolation: ``area`` is for images that do not grow in any direction.

    Returns:
        ``(K, L, 3)``, uint8.
    """
    down, across = (number(length) / number(side) for length, side in zip(image.shape, size, strict=False))
    if interpolation == "nearest":
        return image[_nearest(rows, image.shape[0], size[0])][:, _nearest(columns, image.shape[1], size[1])]
    if interpolation == "linear":
        return _linear(image, rows, columns, down, across)
    passes = _area if interpolation == "area" else _cubic
    wide = passes(image.transpose(0, 1).flatten(1), columns, across, size[1]).float()
    high = passes(wide.reshape(-1, image.shape[0], 3).transpose(0, 1).flatten(1), rows, down, size[0])
    high = high.float()  # as OpenCV's sums: a half that float64 misses by 1e-7 is a half
    halves = (down == 2) & (across == 2) if interpolation == "area" else down < 0
    rounded = torch.where(halves, torch.floor(high + 0.5), torch.round(high)).clamp(0, 255)  # 2 x 2: (sum + 2) / 4
    return rounded.to(torch.uint8).reshape(-1, columns.shape[0], 3)


def _nearest(kept: Tensor, length: Length, size: Length) -> Tensor:
    scale = 1 / (number(size) / number(length))
    return torch.floor(kept * scale).to(torch.int64).clamp(max=length - 1)


def _area(pixels: Tensor, kept: Tensor, scale: Tensor, size: Length) -> Tensor:
    """Average over the part of the input that each output row covers, float64."""
    length = pixels.shape[0]
    start = kept * scale
    end = torch.minimum(start + scale, number(length))
    first = torch.floor(start + _LEAST)
    row = first[:, None] + torch.arange(length // size + 3)
    covered = torch.minimum(end[:, None], row + 1) - torch.maximum(start[:, None], row)
    weights = torch.where(covered > _LEAST, covered, 0.0) / (end - start)[:, None]
    return sums_of_bands(pixels, first.to(torch.int64), weights.float().double(), length // size + 1)


def _cubic(pixels: Tensor, kept: Tensor, scale: Tensor, size: Length) -> Tensor:
    """Interpolate between four rows by the cubic kernel with a = -0.75, float64."""
    a = -0.75
    place = (kept + 0.5) * scale - 0.5
    first = torch.floor(place)
    x = place - first
    outer = ((a * (x + 1) - 5 * a) * (x + 1) + 8 * a) * (x + 1) - 4 * a
    inner = ((a + 2) * x - (a + 3)) * x * x + 1
    other = ((a + 2) * (1 - x) - (a + 3)) * (1 - x) * (1 - x) + 1
    total = torch.zeros((), dtype=torch.float64)
    for tap, weight in enumerate((outer, inner, other, 1 - outer - inner - other)):
        index = (first.to(torch.int64) + tap - 1).clamp(0, pixels.shape[0] - 1)
        total = total + weight[:, None] * pixels[index].double()
    return total


def _linear(image: Tensor, rows: Tensor, columns: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Interpolate by weights of 11 bits, with the shifts to the right of OpenCV's vectorised VResizeLinear."""
    left, right = (
        weight[:, None] * image[:, index].double() for index, weight in _neighbours(columns, across, image.shape[1])
    )
    shifted = torch.floor((left + right) / 16)
    above, below = (
        torch.floor(weight[:, None, None] * shifted[index] / 65536)
        for index, weight in _neighbours(rows, down, image.shape[0])
    )
    return torch.floor((above + below + 2) / 4).clamp(0, 255).to(torch.uint8)


def _neighbours(kept: Tensor, scale: Tensor, length: Length) -> list[tuple[Tensor, Tensor]]:
    """Return the two input rows of each output row, and their weights, whole numbers as float64."""
    place = ((kept + 0.5) * scale - 0.5).float().clamp(min=0)
    first = torch.floor(place).to(torch.int64)
    part = torch.where(first >= length - 1, 0.0, (place - first).double())
    first = first.clamp(max=length - 1)
    weights = (torch.round((1 - part).float() * _COEFFICIENT), torch.round(part.float() * _COEFFICIENT))
    return [(first, weights[0].double()), ((first + 1).clamp(max=length - 1), weights[1].double())]
