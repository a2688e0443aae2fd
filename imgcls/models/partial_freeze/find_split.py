"""The search for the place where a network is cut, and the proof that the cut is true."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from imgcls.models.architecture import Size, call
from imgcls.models.partial_freeze.split_network import Cut
from imgcls.models.partial_freeze.trace import Output, Recording

_MOST = 300  # places that are tried
_CLOSE = 1e-3  # of the largest feature; the same kernels run in both ways
_BROKEN = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError)  # where a stub does not do


def find_cut(network: nn.Module, origin: Size | None, size: Size, layers: list[str], frozen: int) -> Cut | None:
    """Find the last place, before the first layer that learns, where a single tensor passes.

    Args:
        network: The network, frozen modules in evaluation mode, the others in training mode.
        origin: Its ``interpolation_origin``.
        size: Height and width of the images.
        layers: The modules that are called for its weight layers, in order.
        frozen: How many of them are frozen.

    Returns:
        The cut; None if there is no such place.
    """
    recordings = record(network, origin, size)
    calls = recordings[0].calls
    first, last = (next(item.start for item in calls if item.name == layers[number]) for number in (0, frozen))
    places = [item for item in calls if first < item.end < last and _is_single(item.output)]
    for place in sorted(places, key=lambda item: item.end, reverse=True)[:_MOST]:
        cut = Cut(network, origin, place)
        if cut.learn(size, recordings) and _is_tight(cut, size) and is_true(cut, size):
            return cut
    return None


def extend(cut: Cut, size: Size) -> bool:
    """Make a cut for images of another size, too; whether that can be."""
    return cut.learn(size, record(cut.network, cut.origin, size)) and is_true(cut, size)


@torch.no_grad()
def _is_tight(cut: Cut, size: Size) -> bool:
    """Whether nothing but the place's output gets past it; most places fail here, at the price of the second part."""
    [shape] = cut.place.output.shapes
    with _undisturbed(cut.network):  # what is not a number gets into the statistics
        features = torch.rand(shape).to(_like(cut.network).device, cut.place.output.dtypes[0])
        try:
            return bool(cut.go_on(features, size).isfinite().all())
        except _BROKEN:
            return False


def _is_single(output: Output) -> bool:
    return len(output.dtypes) == 1 and output.dtypes[0].is_floating_point


def record(network: nn.Module, origin: Size | None, size: Size) -> tuple[Recording, Recording]:
    """Record what the modules return for 2 and for 3 images of noise."""
    few, more = Recording(network), Recording(network)
    with _undisturbed(network), torch.no_grad():
        for count, recording in ((2, few), (3, more)):
            with recording.listening():
                call(network, _noise(network, count, size), origin)
    return few, more


def is_true(cut: Cut, size: Size) -> bool:
    """Whether the two parts give what the network gives, in training and in evaluation, and chance is not in the first.

    Args:
        cut: The cut.
        size: Height and width of the images.
    """
    with _undisturbed(cut.network):
        images, others = (_noise(cut.network, 4, size) for _ in range(2))
        try:
            features = cut.begin(images)
            torch.manual_seed(1)
            if features.requires_grad or not torch.equal(features, cut.begin(images)):
                return False
            if not _is_same(cut, features, images, others):
                return False
            cut.network.eval()
            return _is_same(cut, cut.begin(images), images, others)
        except _BROKEN:
            return False


@torch.no_grad()
def _is_same(cut: Cut, features: Tensor, images: Tensor, others: Tensor) -> bool:
    torch.manual_seed(0)
    expected = cut.whole(images)
    cut.begin(others)  # what modules remember is of these now
    torch.manual_seed(0)
    found = cut.go_on(features.clone(), (images.shape[2], images.shape[3]))
    difference = (found - expected).abs().max()  # not a number if any is
    return bool(difference <= _CLOSE * expected.abs().max())


@contextmanager
def _undisturbed(network: nn.Module) -> Iterator[None]:
    """Leave random state, statistics and modes as they are."""
    modes = {module: module.training for module in network.modules()}
    buffers = {name: value.clone() for name, value in network.named_buffers()}
    device = _like(network).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        try:
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode
            for name, value in network.named_buffers():
                if name in buffers:
                    value.copy_(buffers[name])


def _noise(network: nn.Module, count: int, size: Size) -> Tensor:
    return torch.randn(count, 3, *size).to(_like(network).device)


def _like(network: nn.Module) -> Tensor:
    return next(network.parameters())
