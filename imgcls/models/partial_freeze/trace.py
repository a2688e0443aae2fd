"""Trace a network: the calls of its modules in one forward pass, and what they return."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
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


def record(network: nn.Module, forward: Callable[[], Any]) -> list[Call]:
    """Return the calls of a network's modules in a forward pass."""
    calls: list[Call] = []
    running: list[int] = []  # indices of calls
    counts: Counter[str] = Counter()
    clock = count(1)

    def begin(name: str) -> None:
        calls.append(Call(name, tuple(running), counts[name], next(clock)))
        counts[name] += 1
        running.append(len(calls) - 1)

    def end(output: Any) -> None:
        call = calls[running.pop()]
        call.end, call.output = next(clock), _describe(output)

    hooks = []
    for name, module in network.named_modules():
        hooks.append(module.register_forward_pre_hook(lambda *_, name=name: begin(name)))
        hooks.append(module.register_forward_hook(lambda _, __, output: end(output)))
    try:
        forward()
    finally:
        for hook in hooks:
            hook.remove()
    return calls


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
