"""Find, in any network, the last layer with a usable spatial grid, and where its cells are in the picture.

No architecture is named: it is measured. Patches of noise on a grey picture change the grid cells that they are in,
which shows the prefix tokens and the order of the axes. A grid is usable if the logits depend on the layer's output
alone, and on at least half of the cells.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from imgcls.explain.grid import Grid, fit, flattened, layouts_of
from imgcls.explain.module_output import Leaf, first_tensor, replaced

GOOD_SIDE = 7  # rows and columns of a map that is fine enough
_PATCHES = 4  # per side
_MIN_AGREEMENT = 0.9  # of measured and expected positions; random grids have about 0
_LEFT = 0.01  # share of a difference of logits that may come by another way than the layer
_REACHED = 0.5  # share of the cells that must affect the logits
_SAME = 1e-3  # relative difference of gradients that are the same in all cells
_CHUNK = 16  # calls that are measured at once

Logits = Callable[[Tensor], Tensor]
Call = tuple[str, int]  # name of a module, number of its earlier calls


@dataclass(frozen=True)
class Layer:
    """The output of a call of a module, and its grid.

    Args:
        name: Name of the module.
        call: Number of earlier calls of the module in a forward pass.
        grid: Where its values are in the picture.
        averaged: Whether the rest of the network only averages the cells, so that each has an exact share of a logit.
    """

    name: str
    call: int
    grid: Grid
    averaged: bool = False


def find_layer(network: nn.Module, logits: Logits, size: tuple[int, int], device: torch.device) -> Layer | None:
    """Find the last layer with a usable grid of at least 7 x 7 cells, else one with the largest grid.

    Args:
        network: The network, in evaluation mode.
        logits: Returns the logits ``(B, classes)`` of uint8 images ``(B, 3, H, W)``, by the network.
        size: Height and width of the images in pixels.
        device: Where the network is.

    Returns:
        The layer; None if no layer has a usable grid.
    """
    images, centres = _patched(size)
    images = images.to(device)
    calls = _calls(network, logits, images[:1], size)
    for start in range(0, len(calls), _CHUNK):
        with torch.no_grad(), _measuring(network, calls[start : start + _CHUNK], centres, size) as found:
            found_logits = logits(images)
        far = (found_logits[1:] - found_logits[:1]).abs().amax(1).argsort(descending=True)[:2] + 1
        few = images[[0, *far.tolist()]]
        for layer in sorted(found, key=lambda layer: calls.index((layer.name, layer.call))):
            gradient = _gradient_if_usable(network, logits, layer, few)
            if gradient is not None:
                deviation = (gradient - gradient.mean(0)).norm()
                return replace(layer, averaged=bool(deviation <= _SAME * gradient.norm()))
    return None


def _calls(network: nn.Module, logits: Logits, image: Tensor, size: tuple[int, int]) -> list[Call]:
    """Return the calls whose output may have a grid: those of a fine grid first, the last call first."""
    sides: dict[Call, int] = {}

    def note(call: Call, tensor: Tensor) -> None:
        if layouts := layouts_of(tensor.shape, size):
            sides[call] = max(min(grid.height, grid.width, GOOD_SIDE) for grids in layouts.values() for grid in grids)

    with torch.no_grad(), _observed(network, note):
        logits(image)
    last_first = list(reversed(sides))
    return sorted(last_first, key=lambda call: -sides[call])


@contextmanager
def _observed(network: nn.Module, note: Callable[[Call, Tensor], None]) -> Iterator[None]:
    """Hand the output of each call to a function, in the forward pass of the block."""
    counts: Counter[str] = Counter()

    def hook(name: str, output: Any) -> None:
        tensor = first_tensor(output)
        if tensor is not None:
            note((name, counts[name]), tensor)
        counts[name] += 1

    handles = [
        module.register_forward_hook(lambda _, __, output, name=name: hook(name, output))
        for name, module in network.named_modules()
        if name
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _patched(size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return a grey picture and copies of it with a patch of noise each, uint8, and the centres of the patches."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randint(100, 156, (1, 3, *size), generator=generator, dtype=torch.uint8)
    noise = torch.randint(0, 256, (1, 3, *size), generator=generator, dtype=torch.uint8)
    rows, columns = (torch.arange(side) * _PATCHES // side for side in size)
    own = [(row, column) for row in range(_PATCHES) for column in range(_PATCHES)]
    masks = [(rows[:, None] == row) & (columns[None] == column) for row, column in own]
    return torch.cat([base, *(torch.where(mask, noise, base) for mask in masks)]), torch.tensor(own).float()


@contextmanager
def _measuring(network: nn.Module, calls: list[Call], centres: Tensor, size: tuple[int, int]) -> Iterator[list[Layer]]:
    """Collect those of the calls whose output has a grid, in the forward pass of the block on pictures with patches."""
    found: list[Layer] = []

    def measure(call: Call, tensor: Tensor) -> None:
        if call not in calls or len(tensor) != len(centres) + 1:
            return
        for layout, grids in layouts_of(tensor.shape, size).items():
            entries = flattened(tensor, layout).float()
            changes = (entries[1:] - entries[:1]).norm(dim=2)
            grid, agreement = fit(changes.cpu(), centres, grids)
            if agreement >= _MIN_AGREEMENT:
                found.append(Layer(*call, grid))
                return

    with _observed(network, measure):
        yield found


def _gradient_if_usable(network: nn.Module, logits: Logits, layer: Layer, images: Tensor) -> Tensor | None:
    """Return the gradient at the cells of a layer, if the logits depend on its output alone and on most of the cells.

    Of images with different logits, the output of the layer for the first one is used for all.

    Returns:
        ``(cells, channels)``, of the first image; None if the grid is not usable.
    """
    with torch.no_grad():
        whole = logits(images)
    leaf = Leaf(first_only=True)
    with torch.enable_grad(), replaced(network.get_submodule(layer.name), layer.call, leaf):
        rest = logits(images)
    differences, left = ((each - each[:1]).abs().amax() for each in (whole, rest.detach()))
    if not left <= _LEFT * differences or not rest.requires_grad:
        return None
    directions = torch.randn(rest.shape[1], generator=torch.Generator().manual_seed(0)).to(rest)
    [gradient] = torch.autograd.grad((rest[0] * directions).sum(), leaf.tensor)
    at_cells = layer.grid.of(gradient)[0]
    reached = at_cells.abs().amax(1) > 0
    return at_cells if reached.float().mean() >= _REACHED else None
