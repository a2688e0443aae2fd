"""The last place before the layers that learn where a single tensor passes, and the network cut in two there."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from imgcls.models.architecture import Size, call
from imgcls.models.partial_freeze.trace import Call, Leaf, Output, Recording, tensors


class Cut:
    """A network in two parts: images to the tensor that a place returns, and that tensor to the network's output.

    The first part ends the run at the place by an exception. The second runs the network as it is, while the modules
    that are done by then return made-up tensors (not a number, so that whatever they would matter to shows it), and
    the place the stored one.

    Args:
        network: The network.
        origin: Its ``interpolation_origin``.
        place: The call of a module whose output is stored.
    """

    def __init__(self, network: nn.Module, origin: Size | None, place: Call) -> None:
        self.network = network
        self.place = place
        self.origin = origin
        self._stubs: dict[Size, list[_Stub]] = {}

    def knows(self, size: Size) -> bool:
        """Whether the cut is made for images of that size."""
        return size in self._stubs

    def learn(self, size: Size, recordings: tuple[Recording, Recording]) -> bool:
        """Take in what the modules return for images of a size; whether the place is called there, too.

        Args:
            size: Height and width of the images.
            recordings: Of two different batches, of 2 and 3 images.
        """
        few, more = (recording.calls for recording in recordings)
        found = [place for place in few if (place.name, place.repeat) == (self.place.name, self.place.repeat)]
        if not found or [item.name for item in few] != [item.name for item in more]:
            return False
        [place] = found
        self._stubs[size] = [
            _Stub(one.name, one is place, one.output, other.output)
            for one, other in zip(few, more, strict=True)
            if one.end <= place.end and one.callers == place.callers[: len(one.callers)]
        ]
        return True

    def whole(self, images: Tensor) -> Tensor:
        """Return the network's output of normalised images, uncut."""
        return call(self.network, images, self.origin)

    def begin(self, images: Tensor) -> Tensor:
        """Return what the place returns for normalised images ``(B, 3, H, W)``."""
        left = self.place.repeat

        def stop(_: nn.Module, __: Any, output: Any) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise _Reached(output)

        hook = self.network.get_submodule(self.place.name).register_forward_hook(stop)
        try:
            self.whole(images)
        except _Reached as reached:
            [tensor] = tensors(reached.output)
            return tensor
        finally:
            hook.remove()
        raise RuntimeError(f"{self.place.name} was not called")

    def go_on(self, features: Tensor, size: Size) -> Tensor:
        """Return the network's output of what ``begin`` returned for images of a size."""
        images = features.new_full((), torch.nan, dtype=torch.float32).expand(len(features), 3, *size)
        with ExitStack() as stack:
            by_name: dict[str, list[_Stub]] = {}
            for stub in self._stubs[size]:
                by_name.setdefault(stub.name, []).append(stub)
            for name, stubs in by_name.items():
                stack.enter_context(_standing_in(self.network.get_submodule(name), stubs, features))
            return self.whole(images)


class _Reached(Exception):
    """Ends a run of the network at the cut."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output


class _Stub:
    """What a call returns that is done before the cut, for batches of any size.

    Args:
        name: The module.
        is_place: Whether the stored tensor comes from there.
        few: Its output for 2 images.
        more: Its output for 3 other images.
    """

    def __init__(self, name: str, is_place: bool, few: Output, more: Output) -> None:
        self.name = name
        self.is_place = is_place
        self.form = few.form
        self.shapes = list(zip(few.shapes, more.shapes, strict=True))
        self.dtypes = few.dtypes
        # what no image changes, such as position embeddings, is returned as it is
        self.values = [
            one if one is not None and other is not None and torch.equal(one, other) else None
            for one, other in zip(few.values, more.values, strict=True)
        ]

    def output(self, features: Tensor) -> Any:
        """Return what the module would, with the stored tensor or made-up ones in it."""
        return apply_to_collection(self.form, Leaf, lambda leaf: self._tensor(leaf.number, features))

    def _tensor(self, number: int, features: Tensor) -> Tensor:
        if self.is_place:
            return features
        value = self.values[number]
        if value is not None:
            return value.to(features.device)
        shape = [two + (three - two) * (len(features) - 2) for two, three in zip(*self.shapes[number], strict=True)]
        dtype = self.dtypes[number]
        filling = torch.nan if dtype.is_floating_point or dtype.is_complex else 0
        return torch.full((), filling, dtype=dtype, device=features.device).expand(shape)


@contextmanager
def _standing_in(module: nn.Module, stubs: list[_Stub], features: Tensor) -> Iterator[None]:
    """Let a module return what its stubs do, one call after the other, and then work as it does."""
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
            del module.forward  # the class's own is seen again
