"""The spatial grid of a tensor: which of its entries belong to which part of the picture."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Layout = Literal["channels first", "channels last", "tokens", "tokens last"]

MIN_SIDE = 4  # rows and columns of a map that says anything
_MAX_CELLS = 64 * 64  # a finer map has seen little of the picture
_MAX_PREFIX = 8  # tokens before the grid: of class, distillation, registers
_LAYOUTS: dict[int, tuple[Layout, ...]] = {4: ("channels first", "channels last"), 3: ("tokens", "tokens last")}


@dataclass(frozen=True)
class Grid:
    """A spatial grid in a tensor ``(B, ...)``.

    Args:
        layout: Which axes are the cells.
        prefix: Entries before the first cell, which belong to no part of the picture.
        height: Rows.
        width: Columns.
    """

    layout: Layout
    prefix: int
    height: int
    width: int

    @property
    def count(self) -> int:
        """Number of cells."""
        return self.height * self.width

    def of(self, tensor: Tensor) -> Tensor:
        """Return the cells of a tensor as ``(B, cells, channels)``, row by row."""
        return flattened(tensor, self.layout)[:, self.prefix :]


def flattened(tensor: Tensor, layout: Layout) -> Tensor:
    """Return a tensor as ``(B, entries, channels)``."""
    if layout == "channels first":
        return tensor.flatten(2).transpose(1, 2)
    if layout == "channels last":
        return tensor.flatten(1, 2)
    return tensor if layout == "tokens" else tensor.transpose(1, 2)


def layouts_of(shape: torch.Size, size: tuple[int, int]) -> dict[Layout, list[Grid]]:
    """Return the grids that a tensor may hold, by layout.

    Args:
        shape: Shape of the tensor.
        size: Height and width of the picture.
    """
    found: dict[Layout, list[Grid]] = {}
    for layout in _LAYOUTS.get(len(shape), ()):
        grids = [grid for grid in _grids(shape, layout, size) if _is_usable(grid, size)]
        if grids:
            found[layout] = grids
    return found


def _grids(shape: torch.Size, layout: Layout, size: tuple[int, int]) -> Iterator[Grid]:
    if layout == "channels first":
        yield Grid(layout, 0, shape[2], shape[3])
    elif layout == "channels last":
        yield Grid(layout, 0, shape[1], shape[2])
    else:
        entries = shape[1] if layout == "tokens" else shape[2]
        for prefix in range(min(_MAX_PREFIX + 1, entries)):
            count = entries - prefix
            wanted = math.sqrt(count * size[0] / size[1])
            rows = [side for side in range(1, math.isqrt(count) + 1) if count % side == 0]
            height = min({*rows, *(count // side for side in rows)}, key=lambda side: abs(math.log(side / wanted)))
            yield Grid(layout, prefix, height, count // height)


def _is_usable(grid: Grid, size: tuple[int, int]) -> bool:
    """Whether a grid is fine enough, not too fine, and has the aspect ratio of the picture, up to a rounded side."""
    if min(grid.height, grid.width) < MIN_SIDE or grid.count > _MAX_CELLS:
        return False
    rows, columns = grid.width * size[0] / size[1], grid.height * size[1] / size[0]
    rounding = 0 if size[0] == size[1] else 1
    return abs(grid.height - rows) <= rounding and abs(grid.width - columns) <= rounding


def fit(changes: Tensor, centres: Tensor, grids: list[Grid]) -> tuple[Grid, float]:
    """Return the grid that agrees best with what patches in the picture change, and how well it agrees.

    Args:
        changes: ``(patches, entries)``, how much each patch changes each entry.
        centres: ``(patches, 2)``, row and column of each patch.
        grids: The grids to choose from.

    Returns:
        The grid; and the correlation of the cells' rows and columns with the centres of the patches that change them,
        the lower of both, -1 to 1.
    """
    relative = changes / changes.mean(0, keepdim=True).clamp(min=1e-12)  # some entries change with any patch
    excess = (relative - relative.median(0).values).clamp(min=0) ** 2
    excess = excess / excess.sum(0).clamp(min=1e-9)
    positions = excess.T @ centres
    return max(((grid, _agreement(grid, positions)) for grid in grids), key=lambda found: found[1])


def _agreement(grid: Grid, positions: Tensor) -> float:
    index = torch.arange(grid.count)
    expected = torch.stack([index // grid.width, index % grid.width], 1).to(positions)
    pairs = zip(positions[grid.prefix :].T, expected.T, strict=True)
    return min(float(torch.corrcoef(torch.stack(pair))[0, 1].nan_to_num()) for pair in pairs)
