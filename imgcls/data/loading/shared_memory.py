"""Shared-memory slots for batches: workers write into the same memory again and again.

The system takes longer to provide fresh shared memory than to crop a cached image. The last byte of a slot holds its
state: a worker marks a slot MADE when it starts a batch, ``lend`` in the main process marks it LENT when the loader
yields the batch, and FREE when the batch is no longer referenced.
"""

import math
import weakref
from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info

PREFETCHED = 2  # batches that a worker has in progress
SLOTS = PREFETCHED + 1  # slots of a worker if batches are copied; one more batch may just be copied
FREE, MADE, LENT = 0, 1, 2


class BatchMemory:
    """Memory for batches: fresh in the main process, in a worker a slot of shared memory.

    A slot still marked MADE after SLOTS further batches belongs to an abandoned epoch and can be reused, because the
    loader requests batch n+SLOTS only after batch n was consumed.

    Args:
        pinned: Whether the loader copies batches to pinned memory; then it marks nothing, and slots are used in turn.
    """

    def __init__(self, pinned: bool) -> None:
        self._slots: list[tuple[int, torch.Tensor]] = []  # number of the batch, slot; oldest first
        self._batches = 0
        self._pinned = pinned

    def allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> torch.Tensor:
        """Return a tensor with arbitrary values."""
        torch_dtype = torch.from_numpy(np.empty(0, dtype)).dtype
        if get_worker_info() is None:
            return torch.empty(shape, dtype=torch_dtype)
        size = math.prod(shape) * dtype.itemsize
        slot = self._oldest() if self._pinned else self._free()
        if slot is None or len(slot) <= size:
            slot = torch.empty(size + 1, dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call]
        slot[-1] = MADE
        self._slots.append((self._batches, slot))
        self._batches += 1
        return slot[:size].view(torch_dtype).view(shape)

    def _oldest(self) -> torch.Tensor | None:
        return self._slots.pop(0)[1] if len(self._slots) == SLOTS else None

    def _free(self) -> torch.Tensor | None:
        for index, (number, slot) in enumerate(self._slots):
            state = int(slot[-1])
            if state == FREE or (state == MADE and self._batches - number >= SLOTS):
                return self._slots.pop(index)[1]
        return None


def lend(images: torch.Tensor) -> torch.Tensor:
    """Lend the images of a worker's slot, ``(B, 3, H, W)``; the slot is free when the last view of them is gone."""
    # arrays, since a tensor made in inference mode cannot be written to outside of it
    slot = torch.empty(0, dtype=torch.uint8).set_(images.untyped_storage()).numpy()
    lease = images.permute(0, 2, 3, 1).numpy().view()
    slot[-1] = LENT
    weakref.finalize(lease, slot[-1:].fill, FREE)
    return torch.from_numpy(lease).permute(0, 3, 1, 2)  # keeps a reference to the lease
