"""Copies from a GPU that the host does not wait for."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def start_copy(value: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """Copy a tensor to the host; from a GPU asynchronously.

    Returns:
        The tensor on the host, and the event to wait for before it is read; None if there is nothing to wait for.
    """
    if value.device.type != "cuda":
        return value.cpu(), None
    found, copied = value.to("cpu", non_blocking=True), torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record()
    return found, copied


class Deferred:
    """Use the values of a batch on the host while a GPU computes the next batch.

    Args:
        use: Called with the values of each batch, in order, once its tensors are copied.
    """

    def __init__(self, use: Callable[..., None]) -> None:
        self._use = use
        self._held: list[tuple[Any, torch.cuda.Event | None]] = []

    def put(self, *values: Any) -> None:
        """Start to copy the tensors among the values of a batch, then use the values of the batch before."""
        copies = [start_copy(value) if isinstance(value, Tensor) else (value, None) for value in values]
        self.flush()
        self._held = copies

    def flush(self) -> None:
        """Use the values that were put last."""
        held, self._held = self._held, []
        for _, copied in held:
            if copied is not None:
                copied.synchronize()
        if held:
            self._use(*(value for value, _ in held))
