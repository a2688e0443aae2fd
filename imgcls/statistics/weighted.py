"""Score: a score that is computed for many weightings of the images at once, as a bootstrap needs it."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

Labels = NDArray[np.integer[Any]] | NDArray[np.bool_]
"""``(N,)`` class indices, or multi-label ``(N, C)`` of 0 and 1."""
Floats = NDArray[np.float64]
Weighted = Callable[[Floats], Floats]
"""From weights ``(B, N)``, one row per weighting of the images, to values ``(B,)``."""


class Score:
    """A score of labels and probabilities: a function that is also quick for many weightings of the same images.

    Args:
        name: Its name.
        weighted: Takes labels and probabilities; returns the function of the weights.
    """

    def __init__(self, name: str, weighted: Callable[[Labels, Floats], Weighted]) -> None:
        self.name = name
        self.weighted = weighted

    def __call__(self, labels: Labels, probs: Floats) -> float:
        """Return the score of all images, equally weighted; NaN if it is undefined."""
        return float(self.weighted(labels, probs)(np.ones((1, len(probs))))[0])


def mean_of(values: NDArray[Any]) -> Weighted:
    """Return the weighted mean of a value ``(N,)`` of each image."""
    return lambda weights: weights @ values.astype(np.float64) / weights.sum(axis=1)


def mean_of_known(values: Floats) -> Floats:
    """Return the mean of each row without its NaN; NaN if there is nothing else."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, values, 0).sum(axis=1) / known.sum(axis=1))


def sparse(classes: Labels, count: int) -> csr_array:
    """Return ``(N, C)`` of 0 and 1, from ``(N,)`` classes or the same, with no more memory than its ones."""
    if classes.ndim == 2:
        return csr_array(classes.astype(np.float64))
    return csr_array((np.ones(len(classes)), (np.arange(len(classes)), classes)), shape=(len(classes), count))
