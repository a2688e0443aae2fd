"""Iterative stratification: divide a multi-label dataset so that each part has its share of every label."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


def stratify(
    labels: NDArray[np.uint8], units: NDArray[np.intp], shares: Sequence[float], seed: int
) -> NDArray[np.intp]:
    """Divide units into parts that have their shares of every label, of unlabelled samples, and of all samples.

    Iterative stratification: K. Sechidis, G. Tsoumakas, I. Vlahavas, On the Stratification of Multi-Label Data, ECML
    PKDD 2011, figure 1. The rarest label is divided first; each of its samples goes to the part that lacks most of that
    label, then of samples, then at random. Unlike in the paper, "no label" counts as another label, and units of
    samples that must stay together are divided, those with most samples of the label first.

    Args:
        labels: 0 or 1, ``(samples, classes)``.
        units: The unit of each sample, from 0; unit numbers break ties.
        shares: The share of each part; their sum is 1.
        seed: The same seed, units and labels give the same parts.

    Returns:
        The part of each unit.
    """
    generator = np.random.default_rng(seed)
    counts, sizes = _count(labels, units)
    left = counts.sum(axis=0)
    wanted, room = np.outer(shares, left), np.multiply(shares, sizes.sum())
    parts = np.full(len(sizes), -1, dtype=np.intp)
    order = generator.permutation(len(sizes))
    while left.any():
        label = int(np.argmin(np.where(left > 0, left, left.max() + 1)))
        members = order[(parts[order] < 0) & (counts[order, label] > 0)]
        for unit in members[np.argsort(-counts[members, label], kind="stable")]:
            part = int(np.lexsort((generator.random(len(room)), room, wanted[:, label]))[-1])
            parts[unit] = part
            wanted[part] -= counts[unit]
            room[part] -= sizes[unit]
            left -= counts[unit]
    return parts


def _count(labels: NDArray[np.uint8], units: NDArray[np.intp]) -> tuple[Counts, Counts]:
    """Return the samples per unit and label, with "no label" in the last column; and the samples per unit."""
    sizes = np.bincount(units)
    counts = np.zeros((len(sizes), labels.shape[1] + 1), dtype=np.int64)
    np.add.at(counts, units, np.column_stack([labels, ~labels.any(axis=1)]))
    return counts, sizes
