"""Find the split point of a partly frozen network, and verify that both parts reproduce it."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from imgcls.models.architecture import Size, call
from imgcls.models.partial_freeze.split_network import SplitNetwork
from imgcls.models.partial_freeze.trace import Call, record

_MAX_CANDIDATES = 300
_TOLERANCE = 1e-3  # relative to the largest feature; the same kernels run in both cases
_STUB_ERRORS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError)


def find_split(
    network: nn.Module, origin: Size | None, size: Size, layers: list[str], frozen: int
) -> SplitNetwork | None:
    """Find the last module before the first trainable layer whose output alone feeds the rest of the network.

    Args:
        network: The network, frozen modules in evaluation mode, the others in training mode.
        origin: Its ``interpolation_origin``.
        size: Height and width of the images.
        layers: The modules of its weight layers, in the order of execution.
        frozen: Number of frozen layers.

    Returns:
        The split network; None if there is no such module.
    """
    traces = _trace(network, origin, size)
    calls, _ = traces
    first, last = (next(item.start for item in calls if item.name == layers[number]) for number in (0, frozen))
    candidates = [item for item in calls if first < item.end < last and len(item.output.dtypes) == 1]
    candidates = [item for item in candidates if item.output.dtypes[0].is_floating_point]
    for candidate in sorted(candidates, key=lambda item: item.end, reverse=True)[:_MAX_CANDIDATES]:
        split = SplitNetwork(network, origin, candidate)
        if split.learn(size, traces) and _is_only_input(split, size) and _is_equivalent(split, size):
            return split
    return None


def extend(split: SplitNetwork, size: Size) -> bool:
    """Support images of another size; return whether that is possible."""
    return split.learn(size, _trace(split.network, split.origin, size)) and _is_equivalent(split, size)


@torch.no_grad()
def _is_only_input(split: SplitNetwork, size: Size) -> bool:
    """Whether the second part uses no other output of the first; most candidates fail this cheaper check."""
    [shape] = split.split_point.output.shapes
    with _unchanged(split.network):  # NaN would enter the running statistics
        features = torch.rand(shape).to(_like(split.network).device, split.split_point.output.dtypes[0])
        try:
            return bool(split.second_part(features, size).isfinite().all())
        except _STUB_ERRORS:
            return False


def _trace(network: nn.Module, origin: Size | None, size: Size) -> tuple[list[Call], list[Call]]:
    """Trace the network on 2 and on 3 images of noise."""
    with _unchanged(network), torch.no_grad():
        few, more = (partial(call, network, _noise(network, count, size), origin) for count in (2, 3))
        return record(network, few), record(network, more)


def _is_equivalent(split: SplitNetwork, size: Size) -> bool:
    """Whether both parts reproduce the network in training and evaluation mode, and the first part is deterministic."""
    with _unchanged(split.network):
        images, others = (_noise(split.network, 4, size) for _ in range(2))
        try:
            features = split.first_part(images)
            torch.manual_seed(1)
            if features.requires_grad or not torch.equal(features, split.first_part(images)):
                return False
            if not _is_same(split, features, images, others):
                return False
            split.network.eval()
            return _is_same(split, split.first_part(images), images, others)
        except _STUB_ERRORS:
            return False


@torch.no_grad()
def _is_same(split: SplitNetwork, features: Tensor, images: Tensor, others: Tensor) -> bool:
    torch.manual_seed(0)
    expected = split.whole(images)
    split.first_part(others)  # overwrites what modules cache
    torch.manual_seed(0)
    found = split.second_part(features.clone(), (images.shape[2], images.shape[3]))
    difference = (found - expected).abs().max()  # NaN if any is
    return bool(difference <= _TOLERANCE * expected.abs().max())


@contextmanager
def _unchanged(network: nn.Module) -> Iterator[None]:
    """Restore RNG state, buffers and modes after the block."""
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
