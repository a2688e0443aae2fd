"""A network split in two at the output of one module."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from imgcls.models.architecture import Size, call
from imgcls.models.partial_freeze.trace import Call, Leaf, Output, tensors


class SplitNetwork:
    """A network in two parts: images to the output of the split point, and that tensor to the network's output.

    The first part ends the forward pass at the split point by an exception. The second part runs the whole network, in
    which earlier modules return stubs (NaN, to expose any use of them) and the split point the stored tensor.

    Args:
        network: The network.
        origin: Its ``interpolation_origin``.
        split_point: The call of a module whose output is stored.
    """

    def __init__(self, network: nn.Module, origin: Size | None, split_point: Call) -> None:
        self.network = network
        self.split_point = split_point
        self.origin = origin
        self._stubs: dict[Size, list[_Stub]] = {}

    def knows(self, size: Size) -> bool:
        """Whether images of that size are supported already."""
        return size in self._stubs

    def learn(self, size: Size, traces: tuple[list[Call], list[Call]]) -> bool:
        """Make the stubs for images of a size, of the calls for two different batches, of 2 and 3 images.

        Returns:
            Whether the split point is called for images of that size.
        """
        few, more = traces
        point = self.split_point
        found = [call for call in few if (call.name, call.repeat) == (point.name, point.repeat)]
        if not found or [item.name for item in few] != [item.name for item in more]:
            return False
        [point] = found
        self._stubs[size] = [
            _Stub(one.name, one is point, one.output, other.output)
            for one, other in zip(few, more, strict=True)
            if one.end <= point.end and one.callers == point.callers[: len(one.callers)]
        ]
        return True

    def whole(self, images: Tensor) -> Tensor:
        """Return the output of the whole network for normalised images."""
        return call(self.network, images, self.origin)

    def first_part(self, images: Tensor) -> Tensor:
        """Return the output of the split point for normalised images ``(B, 3, H, W)``."""
        left = self.split_point.repeat

        def stop(_: nn.Module, __: Any, output: Any) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise _Reached(output)

        hook = self.network.get_submodule(self.split_point.name).register_forward_hook(stop)
        try:
            self.whole(images)
        except _Reached as reached:
            [tensor] = tensors(reached.output)
            return tensor
        finally:
            hook.remove()
        raise RuntimeError(f"{self.split_point.name} was not called")

    def second_part(self, features: Tensor, size: Size) -> Tensor:
        """Return the network's output for the result of ``first_part`` on images of a size."""
        images = features.new_full((), torch.nan, dtype=torch.float32).expand(len(features), 3, *size)
        with ExitStack() as stack:
            by_name: dict[str, list[_Stub]] = {}
            for stub in self._stubs[size]:
                by_name.setdefault(stub.name, []).append(stub)
            for name, stubs in by_name.items():
                stack.enter_context(_replaced_by(self.network.get_submodule(name), stubs, features))
            return self.whole(images)


class _Reached(Exception):
    """Ends a forward pass at the split point."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output


class _Stub:
    """Output of a call before the split point, for any batch size.

    Args:
        name: Name of the module.
        is_split_point: Whether it returns the stored tensor.
        few: Its output for 2 images.
        more: Its output for 3 other images.
    """

    def __init__(self, name: str, is_split_point: bool, few: Output, more: Output) -> None:
        self.name = name
        self.is_split_point = is_split_point
        self.form = few.form
        self.shapes = list(zip(few.shapes, more.shapes, strict=True))
        self.dtypes = few.dtypes
        # tensors that do not depend on the images, such as position embeddings, are returned unchanged
        self.values = [
            one if one is not None and other is not None and torch.equal(one, other) else None
            for one, other in zip(few.values, more.values, strict=True)
        ]

    def output(self, features: Tensor) -> Any:
        """Return the output with the stored tensor or placeholders."""
        return apply_to_collection(self.form, Leaf, lambda leaf: self._tensor(leaf.number, features))

    def _tensor(self, number: int, features: Tensor) -> Tensor:
        if self.is_split_point:
            return features
        value = self.values[number]
        if value is not None:
            return value.to(features.device)
        shape = [two + (three - two) * (len(features) - 2) for two, three in zip(*self.shapes[number], strict=True)]
        dtype = self.dtypes[number]
        filling = torch.nan if dtype.is_floating_point or dtype.is_complex else 0
        return torch.full((), filling, dtype=dtype, device=features.device).expand(shape)


@contextmanager
def _replaced_by(module: nn.Module, stubs: list[_Stub], features: Tensor) -> Iterator[None]:
    """Make the first calls of a module return its stubs."""
    own, waiting, is_replaced = module.forward, iter(stubs), "forward" in vars(module)

    def forward(*given: Any, **named: Any) -> Any:
        stub = next(waiting, None)
        return own(*given, **named) if stub is None else stub.output(features)

    module.forward = forward
    try:
        yield
    finally:
        if is_replaced:
            module.forward = own
        else:
            del module.forward  # restores the method of the class
