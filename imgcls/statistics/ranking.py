"""Scores of the order of the probabilities: areas under the ROC curve, and under that of precision and recall."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from imgcls.statistics.weighted import Floats, Labels, Score, Weighted, mean_of, mean_of_known

_EXACT = 20_000
"""Probabilities up to which areas are computed for each weighting; above, by their derivatives."""


class _Ranked(NamedTuple):
    """Images in the order of falling scores.

    Args:
        order: ``(N,)`` indices of the images.
        positive: ``(N,)``, which of them are of the class.
        starts: ``(G,)``, where each group of equal scores starts.
    """

    order: NDArray[np.intp]
    positive: Floats
    starts: NDArray[np.intp]


Area = Callable[[Floats, Floats], Floats]
Slopes = Callable[[Floats, Floats], tuple[Floats, Floats]]


def _mean_of_classes(labels: Labels, probs: Floats, *, area: Area, slopes: Slopes) -> Weighted:
    """Return the mean of a score of each class against the rest; of two classes that of the second alone."""
    count = probs.shape[1]
    classes = range(1, 2) if labels.ndim == 1 and count == 2 else range(count)
    each = (_ranked(labels == index if labels.ndim == 1 else labels[:, index], probs[:, index]) for index in classes)
    if probs.size > _EXACT:
        return mean_of(np.nanmean([_linear(ranked, area, slopes) for ranked in each], axis=0))
    ranks = list(each)

    def value(weights: Floats) -> Floats:
        return mean_of_known(np.stack([area(*_in_ties(weights[:, each.order], each)) for each in ranks], axis=1))

    return value


def _linear(ranked: _Ranked, area: Area, slopes: Slopes) -> Floats:
    """Return ``(N,)`` values whose weighted mean is the area up to terms of second order in the weights.

    They are the area plus its derivative by the weight of each image, times their number; of AUROC, the structural
    components of DeLong et al. 1988, "Comparing the areas under two or more correlated ROC curves".
    """
    positives, negatives = _in_ties(np.ones((1, len(ranked.order))), ranked)
    [total] = area(positives, negatives)
    of_positive, of_negative = slopes(positives[0], negatives[0])
    group = np.repeat(np.arange(len(ranked.starts)), np.diff(ranked.starts, append=len(ranked.order)))
    found = np.empty(len(ranked.order))
    slope = np.where(ranked.positive > 0, of_positive[group], of_negative[group])
    found[ranked.order] = total + len(found) * slope
    return found


def _ranked(positive: NDArray[Any], scores: Floats) -> _Ranked:
    order = np.argsort(-scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.inf))
    return _Ranked(order, positive[order].astype(np.float64), starts)


def _in_ties(weights: Floats, ranked: _Ranked) -> tuple[Floats, Floats]:
    """Return the weights ``(B, G)`` of positives, and of negatives, in each group of equal scores."""
    hits, every = (np.add.reduceat(each, ranked.starts, axis=1) for each in (weights * ranked.positive, weights))
    return hits, every - hits


def _area_of_ranks(positives: Floats, negatives: Floats) -> Floats:
    """Return the area under the ROC curve: the share of pairs in the right order; equal scores count half."""
    above = np.cumsum(positives, axis=1) - positives / 2
    with np.errstate(invalid="ignore"):
        area: Floats = (above * negatives).sum(axis=1) / (positives.sum(axis=1) * negatives.sum(axis=1))
    return area


def _slopes_of_ranks(positives: Floats, negatives: Floats) -> tuple[Floats, Floats]:
    """Return the derivative of the area by the weight of a positive, and of a negative, of each group ``(G,)``."""
    above, below = (np.cumsum(each) - each / 2 for each in (positives, negatives))
    both = positives.sum(), negatives.sum()
    with np.errstate(invalid="ignore"):
        area = (above * negatives).sum() / (both[0] * both[1])
        return (1 - below / both[1] - area) / both[0], (above / both[0] - area) / both[1]


def _precision_of_ranks(positives: Floats, negatives: Floats) -> Floats:
    """Return the average precision: the precision at each score, weighted by the recall that it adds."""
    hits = np.cumsum(positives, axis=1)
    with np.errstate(invalid="ignore"):  # weights may be 0
        precision = np.nan_to_num(hits / (hits + np.cumsum(negatives, axis=1)))
        area: Floats = (precision * positives).sum(axis=1) / hits[:, -1]
    return area


def _slopes_of_precision(positives: Floats, negatives: Floats) -> tuple[Floats, Floats]:
    """Return the derivative of the average precision, as above."""
    hits = np.cumsum(positives)
    every = hits + np.cumsum(negatives)
    added, taken = (np.cumsum(each[::-1])[::-1] for each in (positives / every, positives * hits / every**2))
    with np.errstate(invalid="ignore"):
        total = hits[-1]
        area = (positives * hits / every).sum() / total
        return (hits / every + added - taken - area) / total, -taken / total


auroc = Score("auroc", partial(_mean_of_classes, area=_area_of_ranks, slopes=_slopes_of_ranks))
"""Mean area under the ROC curve, one class against the rest, of the classes that have images and others."""
average_precision = Score(
    "average_precision", partial(_mean_of_classes, area=_precision_of_ranks, slopes=_slopes_of_precision)
)
"""Mean average precision of the classes that have images."""
