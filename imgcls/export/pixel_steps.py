"""Evaluation transforms as steps that a graph computes exactly: resizes, crops and padding."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, TypeAlias

import albumentations as A
import cv2
import numpy as np
import torch
from albumentations.pytorch import ToTensorV2
from torch import Tensor

import imgcls.data.transforms.resize as own
from imgcls.config.class_path import Spec
from imgcls.data.transforms.build import build_transform
from imgcls.data.transforms.from_checkpoint import KEY
from imgcls.data.transforms.pipeline import is_normalize
from imgcls.errors import ConfigError
from imgcls.export.resampling import Length, number
from imgcls.export.resampling_opencv import Interpolation as OpenCVInterpolation
from imgcls.images.resize import Interpolation, Kernel

Size: TypeAlias = tuple[Length, Length]
Sides: TypeAlias = Callable[[Length, Length], Size]
"""Returns height and width of an image after a resize, for those before it."""
Span: TypeAlias = Callable[[Length], tuple[Length, Length]]
"""Returns the first row and the number of rows of a window, for a number of rows; rows outside are padding."""

_OPENCV: dict[int, OpenCVInterpolation] = {
    cv2.INTER_NEAREST: "nearest",
    cv2.INTER_LINEAR: "linear",
    cv2.INTER_CUBIC: "cubic",
    cv2.INTER_AREA: "area",
}
REMEDY = "add --from_network_input to export the network without its pre-processing"
_SHARES = {  # position of PadIfNeeded -> halves of the padding that are above and left of the image
    "center": (1, 1),
    "top_left": (0, 0),
    "top_right": (0, 2),
    "bottom_left": (2, 0),
    "bottom_right": (2, 2),
}


@dataclass(frozen=True)
class Resize:
    """A resize by the kernel of torchvision or Pillow."""

    sides: Sides
    interpolation: Interpolation
    kernel: Kernel


@dataclass(frozen=True)
class OpenCVResize:
    """A resize by OpenCV."""

    sides: Sides
    interpolation: OpenCVInterpolation
    shrinks: Callable[[Length, Length], Tensor] | None  # whether an image is averaged by area instead; None: none is


@dataclass(frozen=True)
class Window:
    """A crop, or padding."""

    rows: Span
    columns: Span
    fill: tuple[int, int, int] = (0, 0, 0)  # of the padding, 0..255


Step: TypeAlias = Resize | OpenCVResize | Window


def read_steps(specs: list[Spec]) -> list[Step]:
    """Return the evaluation transforms as steps of a graph.

    ``albumentations.Normalize`` is none of them: the model has its mean and std.

    Args:
        specs: The evaluation transforms of a checkpoint.

    Raises:
        ConfigError: Names the transform that has no exact form in a graph.
    """
    steps: list[Step] = []
    normalized = False
    for position, spec in enumerate(specs):
        name = f"{KEY}[{position}] {spec['class_path']}"
        transform = build_transform(spec, f"{KEY}[{position}]")
        read = _READERS.get(type(transform))
        if read is None:
            _refuse(name, "is not a resize, a crop, padding or albumentations.Normalize")
        if transform.p < 1:
            _refuse(name, f"is random, with p {transform.p}")
        step = read(transform, name)
        if step is not None and normalized:
            _refuse(name, "follows albumentations.Normalize")
        normalized = normalized or is_normalize(transform)
        steps += [] if step is None else [step]
    return steps


def is_exact(steps: list[Step]) -> bool:
    """Whether the pixels equal those of the program in every value; else a few differ by one level."""
    return not any(isinstance(step, OpenCVResize) and step.interpolation != "nearest" for step in steps)


def _refuse(name: str, reason: str) -> NoReturn:
    raise ConfigError(f"{name}: {reason}, so it cannot be exported exactly; {REMEDY}")


# -- imgcls' own


def _centre(size: int, half_to_even: bool, length: Length) -> tuple[Length, Length]:
    border, missing = torch.sym_max(length - size, 0), torch.sym_max(size - length, 0)
    odd = border // 2 % 2 if half_to_even else 0  # (border + 1) // 2 is round(border / 2) if border // 2 is odd
    return (border + odd) // 2 - missing // 2, size


def _centred(height: int, width: int, half_to_even: bool) -> tuple[Span, Span]:
    return partial(_centre, height, half_to_even), partial(_centre, width, half_to_even)


def _own_edge(transform: own.ResizeShortestEdge, _: str) -> Step:
    def sides(height: Length, width: Length) -> Size:
        short = torch.sym_min(height, width)
        return transform.edge * height // short, transform.edge * width // short

    return Resize(sides, transform.interpolation, transform.kernel)


def _own_resize(transform: own.Resize, _: str) -> Step:
    size = transform.height, transform.width
    return Resize(lambda height, width: size, transform.interpolation, transform.kernel)


def _own_crop(transform: own.CenterCrop, _: str) -> Step:
    half_to_even = transform.kernel == "pillow"
    return Window(*_centred(transform.height, transform.width, half_to_even))


# -- Albumentations


def _opencv(transform: Any, name: str, sides: Sides, shrinks: Callable[[Length, Length], Tensor] | None = None) -> Step:
    interpolation = _OPENCV.get(transform.interpolation)
    if interpolation is None or (interpolation == "area" and transform.area_for_downscale is None):
        _refuse(name, f"has interpolation {transform.interpolation}")
    return OpenCVResize(sides, interpolation, shrinks if transform.area_for_downscale else None)


def _resize(transform: A.Resize, name: str) -> Step:
    size = transform.height, transform.width
    if transform.area_for_downscale:  # OpenCV has another formula where one side grows
        _refuse(name, "has area_for_downscale")
    return _opencv(transform, name, lambda height, width: size)


def _max_size(transform: A.SmallestMaxSize | A.LongestMaxSize, name: str) -> Step:
    if not isinstance(transform.max_size, int):
        _refuse(name, "has no single max_size")
    edge, side = transform.max_size, torch.sym_min if isinstance(transform, A.SmallestMaxSize) else torch.sym_max

    def scaled(length: Length, given: Length) -> Length:
        """Return ``length * edge / given``, rounded half to even."""
        doubled = 2 * length * edge + given
        rounded, is_tie = doubled // (2 * given), 1 - torch.sym_min(doubled % (2 * given), 1)
        return torch.sym_max(rounded - is_tie * (rounded % 2), 1)

    def sides(height: Length, width: Length) -> Size:
        given = side(height, width)
        return scaled(height, given), scaled(width, given)

    return _opencv(transform, name, sides, lambda height, width: number(side(height, width)) > edge)


def _crop(transform: A.CenterCrop, name: str) -> Step:
    # without pad_if_needed the program refuses a smaller image, which the graph pads
    if transform.pad_if_needed and transform.pad_position != "center":
        _refuse(name, f"has pad_position {transform.pad_position!r}")
    return Window(*_centred(transform.height, transform.width, False), _fill(transform, name))


def _box(transform: A.Crop, name: str) -> Step:
    if transform.pad_if_needed:
        _refuse(name, "has pad_if_needed")
    rows, columns = (transform.y_min, transform.y_max), (transform.x_min, transform.x_max)
    return Window(lambda length: (rows[0], rows[1] - rows[0]), lambda length: (columns[0], columns[1] - columns[0]))


def _pad(transform: A.Pad, name: str) -> Step:
    given = np.ravel(transform.padding).tolist()
    left, top, right, bottom = given if len(given) == 4 else (given * 4)[:4]
    return Window(
        lambda length: (-top, length + top + bottom),
        lambda length: (-left, length + left + right),
        _fill(transform, name),
    )


def _at_least(size: int, halves: int, length: Length) -> tuple[Length, Length]:
    missing = torch.sym_max(size - length, 0)
    return -(missing * halves // 2), length + missing


def _pad_if_needed(transform: A.PadIfNeeded, name: str) -> Step:
    if transform.min_height is None or transform.min_width is None:
        _refuse(name, "has a divisor")
    if transform.position not in _SHARES:
        _refuse(name, f"has position {transform.position!r}")
    above, left = _SHARES[transform.position]
    spans = partial(_at_least, transform.min_height, above), partial(_at_least, transform.min_width, left)
    return Window(*spans, _fill(transform, name))


def _fill(transform: Any, name: str) -> tuple[int, int, int]:
    if transform.border_mode != cv2.BORDER_CONSTANT:
        _refuse(name, "pads with pixels of the image")
    red, green, blue = np.broadcast_to(np.asarray(transform.fill), 3).tolist()
    return int(red), int(green), int(blue)


def _normalize(transform: A.Normalize, name: str) -> None:
    if transform.normalization != "standard":
        _refuse(name, f"has normalization {transform.normalization!r}")


_READERS: dict[type, Callable[[Any, str], Step | None]] = {
    own.ResizeShortestEdge: _own_edge,
    own.Resize: _own_resize,
    own.CenterCrop: _own_crop,
    A.Resize: _resize,
    A.SmallestMaxSize: _max_size,
    A.LongestMaxSize: _max_size,
    A.CenterCrop: _crop,
    A.Crop: _box,
    A.Pad: _pad,
    A.PadIfNeeded: _pad_if_needed,
    A.Normalize: _normalize,
    A.NoOp: lambda transform, name: None,
    ToTensorV2: lambda transform, name: None,
}
