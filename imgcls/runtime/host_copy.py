"""Copies from a GPU that the host does not wait for."""

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
