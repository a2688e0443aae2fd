"""The steps of evaluation as a module that a graph is made from, for an image of any size."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from imgcls.export.pixel_steps import OpenCVResize, Resize, Step, Window
from imgcls.export.resampling import Length, Plan, number, plan, resample
from imgcls.export.resampling_opencv import Interpolation, resize_opencv


class PixelGraph(nn.Module):
    """Evaluation transforms of one image, with the values of the program in every pixel.

    ``torch.export`` and the ONNX exporter accept it with symbolic height and width.

    Args:
        steps: The transforms.
        size: Height and width in pixels of their result.
    """

    def __init__(self, steps: list[Step], size: tuple[int, int]) -> None:
        super().__init__()
        self.steps = steps
        self.size = size

    def forward(self, image: Tensor) -> Tensor:
        """Resize, crop and pad an image.

        Args:
            image: uint8, ``(H, W, 3)``, RGB.

        Returns:
            ``(1, 3, height, width)``, uint8.
        """
        view = _View(image)
        for step in self.steps:
            view = view.cut(step) if isinstance(step, Window) else view.resized(step)
        return view.pixels(self.size).permute(2, 0, 1)[None]


@dataclass(frozen=True)
class _Side:
    """Rows or columns of an image after a resize and after windows: row r is row ``start + r`` of the resized image."""

    total: Length  # rows after the resize
    count: Length  # rows after the windows
    start: Length
    low: Length  # the first row that shows the image; those before are padding
    high: Length  # the row after the last one that shows the image

    def cut(self, first: Length, count: Length) -> "_Side":
        low, high = torch.sym_max(self.low - first, 0), torch.sym_min(self.high - first, count)
        return _Side(self.total, count, self.start + first, low, high)

    def rows(self) -> Tensor:
        """Return the row of the resized image of each row; for padding any."""
        found: Tensor = (torch.arange(self.count) + self.start).clamp(0, self.total - 1)
        return found

    def shown(self) -> Tensor:
        """Return whether each row shows the image."""
        index = torch.arange(self.count)
        found: Tensor = (index >= self.low) & (index < self.high)
        return found


class _View:
    """An image with a resize and windows that are still to be computed: only rows that are kept are ever made."""

    def __init__(self, image: Tensor, resize: Resize | OpenCVResize | None = None) -> None:
        height, width = image.shape[0], image.shape[1]
        self.image, self.resize = image, resize
        sides = (height, width) if resize is None else resize.sides(height, width)
        self.vertical, self.horizontal = (_Side(length, length, 0, 0, length) for length in sides)
        self.fill: tuple[int, int, int] | None = None

    def resized(self, step: Resize | OpenCVResize) -> "_View":
        """Return the view with another resize."""
        if self.resize is None and self.fill is None:
            return _View(self.image, step)
        return _View(self._computed(), step)

    def cut(self, step: Window) -> "_View":
        """Return the view with another window."""
        source = self if self.fill in (None, step.fill) else _View(self._computed())
        view = _View(source.image, source.resize)
        view.vertical = source.vertical.cut(*step.rows(source.vertical.count))
        view.horizontal = source.horizontal.cut(*step.columns(source.horizontal.count))
        view.fill = step.fill
        return view

    def _computed(self) -> Tensor:
        return self.pixels((self.vertical.count, self.horizontal.count))

    def pixels(self, size: tuple[Length, Length]) -> Tensor:
        """Compute the image, uint8, ``(height, width, 3)``."""
        if self.resize is None and self.fill is None:
            return self.image
        rows, columns = self.vertical.rows()[: size[0]], self.horizontal.rows()[: size[1]]
        pixels = self._resized(rows, columns)
        shown = self.vertical.shown()[: size[0], None, None] & self.horizontal.shown()[: size[1], None]
        return torch.where(shown, pixels, torch.tensor(self.fill or (0, 0, 0), dtype=torch.uint8))

    def _resized(self, rows: Tensor, columns: Tensor) -> Tensor:
        if self.resize is None:
            return self.image[rows][:, columns]
        if isinstance(self.resize, Resize):
            return self._resample(self.resize, rows, columns)
        return self._resample_opencv(self.resize, rows, columns)

    def _resample_opencv(self, resize: OpenCVResize, rows: Tensor, columns: Tensor) -> Tensor:
        size = self.vertical.total, self.horizontal.total

        def by(interpolation: Interpolation) -> Callable[..., Tensor]:
            return lambda image, rows, columns: resize_opencv(image, size, rows, columns, interpolation).contiguous()

        given = self.image, rows, columns
        if resize.shrinks is None:
            return by(resize.interpolation)(*given)
        return _either(resize.shrinks(*self.image.shape[:2]), by("area"), by(resize.interpolation), given)

    def _resample(self, resize: Resize, rows: Tensor, columns: Tensor) -> Tensor:
        image, kernel, interpolation = self.image, resize.kernel, resize.interpolation
        height, width = self.vertical.total, self.horizontal.total
        down = plan(image.shape[0], height, rows, kernel, interpolation)
        across = plan(image.shape[1], width, columns, kernel, interpolation)

        def vertical(image: Tensor, passed: Plan) -> Tensor:
            found = resample(image.flatten(1), passed, kernel, interpolation)
            return found.reshape(passed.first.shape[0], image.shape[1], 3)

        def horizontal(image: Tensor, passed: Plan) -> Tensor:
            found = resample(image.transpose(0, 1).flatten(1), passed, kernel, interpolation)
            return found.reshape(passed.first.shape[0], image.shape[0], 3).transpose(0, 1)

        def rows_first(image: Tensor, *plans: Tensor) -> Tensor:
            return horizontal(vertical(image, Plan(*plans[:3])), Plan(*plans[3:])).contiguous()

        def columns_first(image: Tensor, *plans: Tensor) -> Tensor:
            return vertical(horizontal(image, Plan(*plans[3:])), Plan(*plans[:3])).contiguous()

        if kernel == "torchvision" or interpolation == "nearest":
            return columns_first(image, *down, *across)
        # ImagingResampleInner of Pillow since 13
        shorter, narrower = number(image.shape[0]) - number(height), number(image.shape[1]) - number(width)
        tall = (shorter > 0) & (shorter > 2 * narrower)
        return _either(tall, rows_first, columns_first, (image, *down, *across))


def _either(
    condition: Tensor, one: Callable[..., Tensor], other: Callable[..., Tensor], given: tuple[Tensor, ...]
) -> Tensor:
    """Return the result of one of two functions; a graph contains both."""
    if not torch.compiler.is_exporting():
        return (one if condition else other)(*given)
    found: Tensor = torch.cond(condition, one, other, given)
    return found
