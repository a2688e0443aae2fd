"""Trace a network: the calls of its modules in one forward pass, and what they return."""

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
    """Placeholder for the tensor of that number in the output of a module."""

    number: int


@dataclass
class Output:
    """Output of a call.

    Args:
        form: The nested containers, with a ``Leaf`` in place of each tensor.
        shapes: Shape of each tensor.
        dtypes: Dtype of each tensor.
        values: The tensors of at most ``_SMALL`` values; None for larger ones.
    """

    form: Any
    shapes: list[tuple[int, ...]]
    dtypes: list[torch.dtype]
    values: list[Tensor | None]


@dataclass
class Call:
    """One call of a module.

    Args:
        name: Name of the module.
        callers: Indices of the enclosing calls, the outermost first.
        repeat: Number of earlier calls of the module.
        start: Time of its start; each start and end of a call counts 1.
        end: Time of its end.
        output: Its output.
    """

    name: str
    callers: tuple[int, ...]
    repeat: int
    start: int
    end: int = -1
    output: Output = field(default_factory=lambda: Output(None, [], [], []))


_SMALL = 2**20  # enough for position embeddings and masks


class Recording:
    """Record the calls of a network's modules."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.calls: list[Call] = []
        self._open: list[int] = []
        self._counts: Counter[str] = Counter()
        self._time = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Record the calls of the forward pass in the block."""
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
        call.end, call.output = self._time, _describe(output)


def _describe(output: Any) -> Output:
    found = Output(None, [], [], [])

    def leaf(tensor: Tensor) -> Leaf:
        found.shapes.append(tuple(tensor.shape))
        found.dtypes.append(tensor.dtype)
        found.values.append(tensor.detach().clone() if tensor.numel() <= _SMALL else None)
        return Leaf(len(found.shapes) - 1)

    found.form = apply_to_collection(output, Tensor, leaf)
    return found


def tensors(output: Any) -> list[Tensor]:
    """Return the tensors of an output."""
    found: list[Tensor] = []
    apply_to_collection(output, Tensor, found.append)
    return found
