"""Parts of a data set whose samples carry several labels, each with its share of every label."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


def stratify(
    labels: NDArray[np.uint8], units: NDArray[np.intp], shares: Sequence[float], seed: int
) -> NDArray[np.intp]:
    """Divide units into parts so that each part gets its share of every label, of the samples without one, and of all.

    Iterative stratification: K. Sechidis, G. Tsoumakas, I. Vlahavas, On the Stratification of Multi-Label Data, ECML
    PKDD 2011, figure 1. The rarest label comes first; each of its samples goes to the part that still wants most of
    that label, then of samples at all, then by lot. Beyond the paper, having no label counts as one more label, and
    what is divided are units of samples that stay together, those with most samples of the label first.

    Args:
        labels: 0 or 1 for each sample and class, ``(samples, classes)``.
        units: The unit of each sample, counted from 0; their numbers decide between equals.
        shares: The share of each part; together 1.
        seed: The same seed, units and labels give the same parts.

    Returns:
        The part of each unit.
    """
    chance = np.random.default_rng(seed)
    counts, sizes = _count(labels, units)
    left = counts.sum(axis=0)
    wanted, room = np.outer(shares, left), np.multiply(shares, sizes.sum())
    parts = np.full(len(sizes), -1, dtype=np.intp)
    order = chance.permutation(len(sizes))
    while left.any():
        label = int(np.argmin(np.where(left > 0, left, left.max() + 1)))
        members = order[(parts[order] < 0) & (counts[order, label] > 0)]
        for unit in members[np.argsort(-counts[members, label], kind="stable")]:
            part = int(np.lexsort((chance.random(len(room)), room, wanted[:, label]))[-1])
            parts[unit] = part
            wanted[part] -= counts[unit]
            room[part] -= sizes[unit]
            left -= counts[unit]
    return parts


def _count(labels: NDArray[np.uint8], units: NDArray[np.intp]) -> tuple[Counts, Counts]:
    """Return the samples of each unit with each label, and without any in the last column; and its samples in all."""
    sizes = np.bincount(units)
    counts = np.zeros((len(sizes), labels.shape[1] + 1), dtype=np.int64)
    np.add.at(counts, units, np.column_stack([labels, ~labels.any(axis=1)]))
    return counts, sizes
