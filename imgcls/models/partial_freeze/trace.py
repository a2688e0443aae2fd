"""What the modules of a network return in one run, in the order in which they are called."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn


@dataclass(frozen=True)
class Leaf:
    """Stands for the tensor of that number in what a module returned."""

    number: int


@dataclass
class Output:
    """What a call returned: its form with a ``Leaf`` in place of each tensor, and shape and type of the tensors.

    Args:
        form: The nested tuples, dicts and so on.
        shapes: Of each tensor.
        dtypes: Of each tensor.
        values: The tensors of at most ``_SMALL`` values; None for the others.
    """

    form: Any
    shapes: list[tuple[int, ...]]
    dtypes: list[torch.dtype]
    values: list[Tensor | None]


@dataclass
class Call:
    """One call of a module.

    Args:
        name: The module.
        callers: The calls that were under way, by number, the outermost first.
        repeat: How many calls of the module came before.
        start: When it began; every begin and end counts one.
        end: When it returned.
        output: What it returned.
    """

    name: str
    callers: tuple[int, ...]
    repeat: int
    start: int
    end: int = -1
    output: Output = field(default_factory=lambda: Output(None, [], [], []))


_SMALL = 2**20  # values of a tensor that is kept: of position embeddings and masks


class Recording:
    """Listens to a network.

    Args:
        network: The network.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.calls: list[Call] = []
        self._open: list[int] = []
        self._counts: Counter[str] = Counter()
        self._time = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Record the calls of the run within."""
        hooks = []
        for name, module in self.network.named_modules():
            hooks.append(module.register_forward_pre_hook(lambda *_, name=name: self._begin(name)))
            hooks.append(module.register_forward_hook(lambda _, __, output: self._end(output)))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _begin(self, name: str) -> None:
        self._time += 1
        self.calls.append(Call(name, tuple(self._open), self._counts[name], self._time))
        self._counts[name] += 1
        self._open.append(len(self.calls) - 1)

    def _end(self, output: Any) -> None:
        self._time += 1
        call = self.calls[self._open.pop()]
        call.end, call.output = self._time, described(output)


def described(output: Any) -> Output:
    """Return the form of what a call returned, and what is known of its tensors."""
    found = Output(None, [], [], [])

    def leaf(tensor: Tensor) -> Leaf:
        found.shapes.append(tuple(tensor.shape))
        found.dtypes.append(tensor.dtype)
        found.values.append(tensor.detach().clone() if tensor.numel() <= _SMALL else None)
        return Leaf(len(found.shapes) - 1)

    found.form = apply_to_collection(output, Tensor, leaf)
    return found


def tensors(output: Any) -> list[Tensor]:
    """Return the tensors in what a call returned."""
    found: list[Tensor] = []
    apply_to_collection(output, Tensor, found.append)
    return found
