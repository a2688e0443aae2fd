"""The order of samples as a function of (seed, epoch), and a training loader that knows where the loop stands."""

import weakref
from collections import deque
from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, DistributedSampler, SequentialSampler

from imgcls.data.loading.workers import WatchedLoader
from imgcls.runtime.seeding import mix
from imgcls.runtime.signals import waited
from imgcls.types import Batch

Key = tuple[int, int]

PREFETCHED = 2  # batches that a worker has under way
SLOTS = PREFETCHED + 1  # batches that a worker has memory for where they are copied; one more may just be copied
FREE, MADE, LENT = 0, 1, 2  # what the last byte of a worker's memory for a batch says of it


class KeyedSampler(DistributedSampler[Key]):
    """Yields ``(place, seed)``: both follow from the run's seed and the epoch alone.

    A subclass of DistributedSampler, so that Lightning leaves it in place.

    Args:
        data: The dataset to draw from.
        shuffle: True: a new order each epoch, ranks padded to equal lengths. False: in order, every sample once, and
            the same seeds in every epoch.
        seed: The run's seed.
        num_replicas: Number of processes.
        rank: Number of this process.
    """

    def __init__(self, data: Dataset[Batch], shuffle: bool, seed: int, num_replicas: int = 1, rank: int = 0) -> None:
        super().__init__(data, num_replicas=num_replicas, rank=rank, shuffle=shuffle, seed=seed)
        self.skip = 0
        self.size = len(data)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Key]:
        """Iterate over this rank's share of the epoch, less the first ``skip`` samples."""
        places = self._places()
        for draw in range(self.skip, len(places)):
            yield int(places[draw]), self._sample_seed(int(places[draw]), draw)

    def __len__(self) -> int:
        """Number of samples of this rank in a whole epoch."""
        if self.shuffle:
            return -(-self.size // self.num_replicas)
        return len(range(self.rank, self.size, self.num_replicas))

    def _places(self) -> Any:
        order = np.arange(self.size)
        if self.shuffle:
            order = self._draw(np.random.default_rng(mix(self.seed, self.epoch)))
            order = np.resize(order, len(self) * self.num_replicas)
        return order[self.rank :: self.num_replicas]

    def _draw(self, generator: np.random.Generator) -> Any:
        return generator.permutation(self.size)

    def _sample_seed(self, place: int, draw: int) -> int:
        return mix(self.seed, self.epoch if self.shuffle else 0, place)


class BalancedSampler(KeyedSampler):
    """Draws each class as often as the others, with replacement, as torch's WeightedRandomSampler does.

    An image that is drawn twice in an epoch is augmented in two ways; where features stand in for images, in one.

    Args:
        data: The dataset to draw from.
        labels: ``(N,)`` int64, the class of each sample.
        seed: The run's seed.
        num_replicas: Number of processes.
        rank: Number of this process.
    """

    def __init__(
        self, data: Dataset[Batch], labels: NDArray[np.integer[Any]], seed: int, num_replicas: int = 1, rank: int = 0
    ) -> None:
        super().__init__(data, True, seed, num_replicas, rank)
        _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
        self._shares = 1 / (len(counts) * counts[classes])

    def _draw(self, generator: np.random.Generator) -> Any:
        return generator.choice(self.size, size=self.size, p=self._shares)

    def _sample_seed(self, place: int, draw: int) -> int:
        return mix(self.seed, self.epoch, place, draw * self.num_replicas + self.rank)


class RepeatingSampler(KeyedSampler, SequentialSampler):  # type: ignore[misc]  # a base of it yields places alone
    """The first epoch's order and seeds in every epoch, for ``overfit_batches``.

    A SequentialSampler too: with that option Lightning replaces any other by one that yields places without seeds, in
    the order of the table, where the first batches may hold a single class.
    """

    def set_epoch(self, epoch: int) -> None:
        """Stay at the first epoch."""


def _lent(images: torch.Tensor) -> torch.Tensor:
    """Return the images of a worker's slot; the worker may use it again when the last view of them is gone."""
    # as arrays: a tensor that is made in inference mode could not be written to outside of it
    slot = torch.empty(0, dtype=torch.uint8).set_(images.untyped_storage()).numpy()
    lease = images.permute(0, 2, 3, 1).numpy().view()
    slot[-1] = LENT
    weakref.finalize(lease, slot[-1:].fill, FREE)
    return torch.from_numpy(lease).permute(0, 3, 1, 2)  # holds the lease


class BatchLoader(WatchedLoader[Batch]):
    """A loader whose workers write into the same shared memory again and again, when a batch in it is gone."""

    def __iter__(self) -> Any:
        """Iterate over the batches."""
        # what is held need not be mapped again
        mapped: deque[torch.Tensor] = deque(maxlen=2 * SLOTS * self.num_workers)
        for batch in waited(super().__iter__()):
            if self.num_workers and batch["image"].is_shared():  # pinned memory is a copy already
                mapped.append(batch["image"])
                batch["image"] = _lent(batch["image"])
            yield batch


class TrainLoader(BatchLoader):
    """A loader that starts each epoch where the training loop stands, also in the middle of a resumed epoch.

    Outside of a fit it gives the whole of the epoch that it gave last.
    Lightning makes a loader's iterator before it restores the epoch; this one asks at the first batch.
    """

    trainer: pl.Trainer | None = None

    def __iter__(self) -> Any:
        """Iterate over the batches of the trainer's current epoch that are still to come."""
        trainer, sampler = self.trainer, self.sampler
        if trainer is not None and isinstance(sampler, KeyedSampler):
            sampler.skip = 0
            if trainer.training:
                sampler.set_epoch(trainer.current_epoch)
                sampler.skip = trainer.fit_loop.epoch_loop.batch_progress.current.ready * (self.batch_size or 1)
        yield from super().__iter__()

    def state_dict(self) -> dict[str, Any]:
        """Nothing to save; that it exists tells Lightning that the loader can resume in mid-epoch."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""
