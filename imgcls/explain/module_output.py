"""Take the output of one call of a module out of a forward pass, or replace it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def first_tensor(output: Any) -> Tensor | None:
    """Return the tensor of a module's output, or the first of several; None if it does not begin with one."""
    if isinstance(output, (tuple, list)) and output:
        output = output[0]
    return output if isinstance(output, Tensor) and output.is_floating_point() else None


@contextmanager
def replaced(module: nn.Module, call: int, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Replace the output of one call of a module in the forward pass of the block.

    Args:
        module: The module.
        call: Number of its earlier calls.
        change: Returns the tensor that replaces the output.
    """
    left = call

    def hook(_: nn.Module, __: Any, output: Any) -> Any:
        nonlocal left
        left -= 1
        tensor = first_tensor(output)
        if left != -1 or tensor is None:
            return None
        changed = change(tensor)
        return changed if isinstance(output, Tensor) else (changed, *output[1:])

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


class Leaf:
    """A tensor within a network from which gradients are computed; called with the output that it replaces."""

    tensor: Tensor

    def __init__(self, first_only: bool = False) -> None:
        self._first_only = first_only

    def __call__(self, output: Tensor) -> Tensor:
        """Cut the graph before the output, and return the start of the graph after it.

        Args:
            output: ``(B, ...)``; with ``first_only`` that of the first image is used for all.
        """
        torch.set_grad_enabled(True)  # a frozen encoder has switched it off, and restores what was before
        kept = output[:1].expand_as(output) if self._first_only else output
        self.tensor = kept.detach().clone().requires_grad_()
        return self.tensor.clone()  # what follows may write into it
