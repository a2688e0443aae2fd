"""Pillow's and torchvision's resize of uint8 pixels as matrix products, with weights made from the image's size.

The result equals that of the libraries in every value: their weights are integers, so that sums have no rounding that
depends on the order. A graph with these operations accepts images of any size.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from imgcls.images.resize import Interpolation, Kernel

Length: TypeAlias = Any  # int; torch.SymInt while a graph is exported

_BLOCK = 16  # output positions that share one product
_DIGIT = 256  # parts of a weight are -128..127: float32, and TF32 on a GPU, multiply and add them exactly
_PILLOW_BITS = 22  # of a weight: PRECISION_BITS in libImaging/Resample.c
_TORCH_BITS = 15  # of the largest weight: int16, in ATen/native/cpu/UpSampleKernel.cpp
_TORCH_LARGEST = 22  # bits after the point, at most
_SUPPORT = {"bilinear": 1, "bicubic": 2, "lanczos": 3}


class Plan(NamedTuple):
    """One of the two passes of a resize, for the rows that are kept.

    Args:
        first: ``(K,)``, int64, ascending: the first input row of each output row.
        weights: ``(K, taps)``, float64, whole numbers: the weights of consecutive input rows.
        unit: The sum of an output row's weights, but for rounding: a power of two.
    """

    first: Tensor
    weights: Tensor
    unit: Tensor


def plan(length: Length, size: Length, kept: Tensor, kernel: Kernel, interpolation: Interpolation) -> Plan:
    """Compute the weights of a pass.

    Source of the method: ``precompute_coeffs`` and ``normalize_coeffs_8bpc`` of Pillow, and
    ``_compute_index_ranges_int16_weights`` of PyTorch, which rounds the weights to fewer bits.

    Args:
        length: Rows of the image.
        size: Rows after the resize.
        kept: ``(K,)``, int64, the rows to compute, each below ``size``.
        kernel: Whose weights.
        interpolation: The filter.
    """
    if interpolation == "nearest":
        first = _nearest(length, size, kernel)[kept]
        return Plan(first, torch.ones_like(first, dtype=torch.float64)[:, None], torch.ones((), dtype=torch.float64))
    first, weights = _taps(length, size, _SUPPORT[interpolation], _FILTERS[interpolation])
    unit = _torch_unit(weights) if kernel == "torchvision" else torch.full((), 2.0**_PILLOW_BITS, dtype=torch.float64)
    scaled = weights[kept] * unit
    return Plan(first[kept], torch.sign(scaled) * torch.floor(scaled.abs() + 0.5), unit)


def resample(pixels: Tensor, passed: Plan, kernel: Kernel, interpolation: Interpolation) -> Tensor:
    """Resize the first dimension.

    Args:
        pixels: ``(N, M)``, uint8.
        passed: The pass.
        kernel: The kernel of the pass.
        interpolation: The filter of the pass.

    Returns:
        ``(K, M)``, uint8.
    """
    if interpolation == "nearest":
        return pixels[passed.first]
    sums = _weighted_sums(pixels, passed, _SUPPORT[interpolation], parts=2 if kernel == "torchvision" else 3)
    return torch.floor((sums + passed.unit / 2) / passed.unit).clamp(0, 255).to(torch.uint8)


def _nearest(length: Length, size: Length, kernel: Kernel) -> Tensor:
    """Return the input row of each of ``size`` positions."""
    if kernel == "torchvision":  # nearest-exact, in float32
        scale = (number(length) / number(size)).float()
        index = torch.floor(scale * (torch.arange(size).float() + 0.5))
    else:  # Pillow adds up the step
        step = number(length) / number(size)
        index = torch.floor(torch.cumsum(torch.where(torch.arange(size) == 0, step / 2, step), 0))
    return index.to(torch.int64).clamp(max=length - 1)


def _taps(length: Length, size: Length, support: int, function: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Return for each of ``size`` positions the first input row ``(size,)``, and the weights ``(size, taps)``."""
    scale = number(length) / number(size)
    factor = scale.clamp(min=1.0)
    reach = support * factor
    centre = scale * (torch.arange(size, dtype=torch.float64) + 0.5)
    first = torch.floor(centre - reach + 0.5).clamp(min=0)
    end = torch.minimum(torch.floor(centre + reach + 0.5), number(length))
    taps = 2 * support * torch.sym_max(length, size) // size + 2  # at most
    index = torch.arange(taps, dtype=torch.float64)
    weights = function((index + first[:, None] - centre[:, None] + 0.5) * (1 / factor))
    weights = torch.where(index < (end - first)[:, None], weights, 0.0)
    return first.to(torch.int64), weights / weights.sum(1, keepdim=True)


def number(length: Length) -> Tensor:
    """Return a size as a tensor, float64: exporters compute with symbolic sizes in float32."""
    return torch.full((), length, dtype=torch.float64)


def _torch_unit(weights: Tensor) -> Tensor:
    """Return the power of two that the weights are multiplied by before they are rounded to int16."""
    units = torch.tensor([2.0**bits for bits in range(1, _TORCH_LARGEST + 1)], dtype=torch.float64)
    fits = torch.floor(weights.max() * units + 0.5) < 2**_TORCH_BITS
    return torch.where(fits, units, 1.0).max()


def _weighted_sums(pixels: Tensor, passed: Plan, support: int, parts: int) -> Tensor:
    """Return weighted sums of consecutive rows ``(K, M)``, float64, exact.

    Args:
        pixels: ``(N, M)``, uint8.
        passed: The weights; those of rows beyond the last one are 0.
        support: Of the filter.
        parts: Number of digits of base 256 that a weight has.
    """
    count = passed.first.shape[0]
    # outputs are N / size rows apart, and have at least 2 support N / size taps
    band, spread = _bands(pixels, passed.first, passed.weights, _BLOCK * passed.weights.shape[1] // (2 * support))
    digits = torch.cat(_digits(spread, parts), 1).float()
    sums = torch.matmul(digits, band.float()).to(torch.float64).reshape(-1, parts, _BLOCK, pixels.shape[1])
    total = sums[:, 0]
    for part in range(1, parts):  # not by a tensor of constants, which torch.cond does not take into its branches
        total = total + sums[:, part] * float(_DIGIT**part)
    return total.reshape(-1, pixels.shape[1])[:count]


def sums_of_bands(pixels: Tensor, first: Tensor, weights: Tensor, apart: Length) -> Tensor:
    """Return weighted sums of consecutive rows ``(K, M)``, computed in float64.

    Args:
        pixels: ``(N, M)``.
        first: ``(K,)``, int64, ascending: the first input row of each output row.
        weights: ``(K, taps)``, float64; those of rows beyond the last one are 0.
        apart: The largest difference between consecutive ``first``.
    """
    band, spread = _bands(pixels, first, weights, _BLOCK * apart)
    return torch.matmul(spread, band.double()).reshape(-1, pixels.shape[1])[: first.shape[0]]


def _bands(pixels: Tensor, first: Tensor, weights: Tensor, reach: Length) -> tuple[Tensor, Tensor]:
    """Return bands of the input, and the weights of a block of output rows for each.

    A product of whole matrices would mostly multiply by zero.

    Args:
        pixels: ``(N, M)``.
        first: ``(K,)``.
        weights: ``(K, taps)``.
        reach: The largest difference between the first and the last ``first`` of a block.

    Returns:
        ``(blocks, length, M)``, and ``(blocks, rows, length)``.
    """
    count, length, taps = first.shape[0], pixels.shape[0], weights.shape[1]
    blocks = (count + _BLOCK - 1) // _BLOCK
    filled = torch.arange(blocks * _BLOCK).clamp(max=count - 1)  # the last block repeats the last row
    first, weights = first[filled].reshape(blocks, _BLOCK), weights[filled].reshape(blocks, _BLOCK, taps)
    start = first[:, :1]
    offsets = torch.arange(reach + taps + 2)
    tap = offsets - (first - start)[:, :, None]
    spread = torch.where((tap >= 0) & (tap < taps), weights.gather(2, tap.clamp(0, taps - 1)), 0.0)
    return pixels[(start + offsets).clamp(max=length - 1)], spread


def _digits(whole: Tensor, parts: int) -> list[Tensor]:
    """Split whole numbers into ``parts`` digits of base 256, the lowest first, each -128..127."""
    found = []
    for _ in range(parts - 1):
        upper = torch.floor((whole + _DIGIT // 2) / _DIGIT)
        found.append(whole - upper * _DIGIT)
        whole = upper
    return [*found, whole]


def _bilinear(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp(min=0)


def _bicubic(x: Tensor) -> Tensor:
    a, x = -0.5, x.abs()
    outer = (((x - 5) * x + 8) * x - 4) * a
    return torch.where(x < 1, ((a + 2) * x - (a + 3)) * x * x + 1, torch.where(x < 2, outer, 0.0))


def _lanczos(x: Tensor) -> Tensor:
    return torch.where(x.abs() < 3, torch.sinc(x) * torch.sinc(x / 3), 0.0)


_FILTERS: dict[str, Callable[[Tensor], Tensor]] = {"bilinear": _bilinear, "bicubic": _bicubic, "lanczos": _lanczos}
