"""Samplers whose order depends on (seed, epoch) alone, so that a resumed run draws what it would have drawn."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset, DistributedSampler, SequentialSampler

from imgcls.runtime.seeding import derive_seed
from imgcls.types import Batch

Key = tuple[int, int]
"""Index of a sample, and the seed of its augmentation."""


class KeyedSampler(DistributedSampler[Key]):
    """Yields ``(index, seed)``, which depend on the run's seed and the epoch alone.

    A subclass of DistributedSampler, so that Lightning does not replace it.

    Args:
        data: The dataset.
        shuffle: True: a new order each epoch, ranks padded to equal lengths. False: in order, each sample once, with
            the same seeds in every epoch; the first rank has the first samples.
        seed: The run's seed.
        num_replicas: Number of processes.
        rank: Rank of this process.
    """

    def __init__(self, data: Dataset[Batch], shuffle: bool, seed: int, num_replicas: int = 1, rank: int = 0) -> None:
        super().__init__(data, num_replicas=num_replicas, rank=rank, shuffle=shuffle, seed=seed)
        self.skip = 0
        """Samples at the start that are left out."""
        self.size = len(data)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Key]:
        """Iterate over this rank's samples of the epoch, without the first ``skip``."""
        indices = self._indices()
        for draw in range(self.skip, len(indices)):
            yield int(indices[draw]), self._sample_seed(int(indices[draw]), draw)

    def __len__(self) -> int:
        """Number of samples of this rank: in training in a whole epoch, else without the first ``skip``."""
        if self.shuffle:
            return -(-self.size // self.num_replicas)
        return len(self._share) - self.skip

    @property
    def _share(self) -> range:
        """This rank's part of the samples in order."""
        start, stop = (self.size * rank // self.num_replicas for rank in (self.rank, self.rank + 1))
        return range(start, stop)

    def _indices(self) -> Any:
        if not self.shuffle:
            return self._share
        order = self._draw(np.random.default_rng(derive_seed(self.seed, self.epoch)))
        order = np.resize(order, len(self) * self.num_replicas)
        return order[self.rank :: self.num_replicas]

    def _draw(self, generator: np.random.Generator) -> Any:
        return generator.permutation(self.size)

    def _sample_seed(self, index: int, draw: int) -> int:
        return derive_seed(self.seed, self.epoch if self.shuffle else 0, index)


class BalancedSampler(KeyedSampler):
    """Draws each class equally often, with replacement, as torch's WeightedRandomSampler does.

    An image that is drawn twice in an epoch gets two augmentations; with cached features, one.

    Args:
        data: The dataset.
        labels: Class index of each sample, ``(N,)`` int64.
        seed: As for ``KeyedSampler``.
        num_replicas: As for ``KeyedSampler``.
        rank: As for ``KeyedSampler``.
    """

    def __init__(
        self, data: Dataset[Batch], labels: NDArray[np.integer[Any]], seed: int, num_replicas: int = 1, rank: int = 0
    ) -> None:
        super().__init__(data, True, seed, num_replicas, rank)
        _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
        self._probabilities = 1 / (len(counts) * counts[classes])

    def _draw(self, generator: np.random.Generator) -> Any:
        return generator.choice(self.size, size=self.size, p=self._probabilities)

    def _sample_seed(self, index: int, draw: int) -> int:
        return derive_seed(self.seed, self.epoch, index, draw * self.num_replicas + self.rank)


class RepeatingSampler(KeyedSampler, SequentialSampler):  # type: ignore[misc]  # SequentialSampler yields indices
    """The first epoch's order and seeds in every epoch, for ``overfit_batches``.

    Also a SequentialSampler: with that option Lightning (2.6) replaces other samplers by one that yields indices
    without seeds in the order of the table, where the first batches may contain a single class.
    """

    def set_epoch(self, epoch: int) -> None:
        """Stay at the first epoch."""
