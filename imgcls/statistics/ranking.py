"""Scores of the order of the probabilities: areas under the ROC curve, and under that of precision and recall."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgcls.statistics.weighted import Floats, Labels, Score, Weighted, mean_of_known


def _auroc(labels: Labels, probs: Floats) -> Weighted:
    return _mean_of_classes(labels, probs, _area_of_ranks)


def _average_precision(labels: Labels, probs: Floats) -> Weighted:
    return _mean_of_classes(labels, probs, _precision_of_ranks)


def _mean_of_classes(labels: Labels, probs: Floats, of_ranks: Callable[[Floats, Floats], Floats]) -> Weighted:
    """Return the mean of a score of each class against the rest; of two classes that of the second alone."""
    count = probs.shape[1]
    classes = range(1, 2) if labels.ndim == 1 and count == 2 else range(count)
    ranked = [_ranked(labels == each if labels.ndim == 1 else labels[:, each], probs[:, each]) for each in classes]

    def value(weights: Floats) -> Floats:
        values = [of_ranks(*_in_ties(weights[:, order], positive, starts)) for order, positive, starts in ranked]
        return mean_of_known(np.stack(values, axis=1))

    return value


def _ranked(positive: NDArray[Any], scores: Floats) -> tuple[NDArray[np.intp], Floats, NDArray[np.intp]]:
    """Return the order of falling scores, which of them are positive, and where each group of equal scores starts."""
    order = np.argsort(-scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.inf))
    return order, positive[order].astype(np.float64), starts


def _in_ties(weights: Floats, positive: Floats, starts: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """Return the weights ``(B, groups)`` of positives, and of negatives, in each group of equal scores."""
    hits, all_of_them = (np.add.reduceat(each, starts, axis=1) for each in (weights * positive, weights))
    return hits, all_of_them - hits


def _area_of_ranks(positives: Floats, negatives: Floats) -> Floats:
    """Return the area under the ROC curve: the share of pairs in the right order; equal scores count half."""
    above = np.cumsum(positives, axis=1) - positives / 2
    with np.errstate(invalid="ignore"):
        area: Floats = (above * negatives).sum(axis=1) / (positives.sum(axis=1) * negatives.sum(axis=1))
    return area


def _precision_of_ranks(positives: Floats, negatives: Floats) -> Floats:
    """Return the average precision: the precision at each score, weighted by the recall that it adds."""
    hits = np.cumsum(positives, axis=1)
    with np.errstate(invalid="ignore"):  # weights may be 0
        precision = np.nan_to_num(hits / (hits + np.cumsum(negatives, axis=1)))
        area: Floats = (precision * positives).sum(axis=1) / hits[:, -1]
    return area


auroc = Score("auroc", _auroc)
"""Mean area under the ROC curve, one class against the rest, of the classes that have images and others."""
average_precision = Score("average_precision", _average_precision)
"""Mean average precision of the classes that have images."""
