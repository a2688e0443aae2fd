"""Data loaders: batches in reused shared memory, and epochs that start at the position of the training loop."""

from collections import deque
from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
import torch
from torch.utils.data import Dataset, Sampler

from imgcls.data.loading.batches import identity
from imgcls.data.loading.samplers import KeyedSampler
from imgcls.data.loading.shared_memory import PREFETCHED, SLOTS, lend
from imgcls.data.loading.workers import WatchedLoader, worker_arguments
from imgcls.runtime.lightning_loops import batches_started
from imgcls.runtime.signals import waited
from imgcls.types import Batch


class BatchLoader(WatchedLoader[Batch]):
    """A loader whose workers reuse shared memory as soon as the batch in it is no longer referenced."""

    def __iter__(self) -> Any:
        # tensors that are kept alive need not be mapped into memory again
        mapped: deque[torch.Tensor] = deque(maxlen=2 * SLOTS * self.num_workers)
        for batch in waited(super().__iter__()):
            if self.num_workers and batch["image"].is_shared():  # pinned memory is a copy already
                mapped.append(batch["image"])
                batch["image"] = lend(batch["image"])
            yield batch


class Batches:
    """The batches of a loader, for a prediction.

    Not a ``DataLoader``, of which Lightning 2.6 keeps the indices of all batches that it predicts: 150 bytes per image.
    May go when it does so only for a BasePredictionWriter.
    """

    def __init__(self, loader: BatchLoader) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.loader)


class TrainLoader(BatchLoader):
    """A loader that starts each epoch at the position of the training loop, also within a resumed epoch.

    Outside of a fit it yields the whole epoch that it yielded last. Lightning creates a loader's iterator before it
    restores the epoch, so the epoch is read at the first batch.
    """

    trainer: pl.Trainer | None = None

    def __iter__(self) -> Any:
        trainer, sampler = self.trainer, self.sampler
        if trainer is not None and isinstance(sampler, KeyedSampler):
            sampler.skip = 0
            if trainer.training:
                sampler.set_epoch(trainer.current_epoch)
                sampler.skip = batches_started(trainer) * (self.batch_size or 1)
        yield from super().__iter__()

    def state_dict(self) -> dict[str, Any]:
        """Return an empty state; that the method exists tells Lightning that the loader can resume within an epoch."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore nothing."""


def loader_arguments(
    data: Dataset[Batch], sampler: Sampler[Any] | None, batch_size: int, workers: int, timeout: float, pins_memory: bool
) -> dict[str, Any]:
    """Return the arguments of a loader of whole batches.

    Args:
        data: Returns a batch for a list of keys.
        sampler: Yields the keys.
        batch_size: Images per batch.
        workers: Number of worker processes; 0 loads in this process.
        timeout: Seconds per batch in a worker; 0 is unlimited.
        pins_memory: Whether batches are copied to pinned memory, for a GPU.
    """
    return {
        "dataset": data,
        "sampler": sampler,
        "batch_size": batch_size,
        "persistent_workers": workers > 0,
        "prefetch_factor": PREFETCHED if workers > 0 else None,
        "pin_memory": pins_memory,
        "collate_fn": identity,
        **worker_arguments(workers, timeout),
    }
