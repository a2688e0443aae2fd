"""Scores of the predicted classes: accuracy, of images or of all labels, and macro F1."""

import numpy as np
from numpy.typing import NDArray

from imgcls.statistics.weighted import Floats, Labels, Score, Weighted, mean_of, mean_of_known, sparse

Thresholds = float | list[float]


def predicted(labels: Labels, probs: Floats, thresholds: Thresholds = 0.5) -> NDArray[np.int64]:
    """Return ``(N,)`` predicted classes; multi-label ``(N, C)`` of 0 and 1: which probabilities exceed thresholds."""
    return probs.argmax(axis=1) if labels.ndim == 1 else (probs > np.asarray(thresholds)).astype(np.int64)


def correct(labels: Labels, probs: Floats, thresholds: Thresholds = 0.5) -> NDArray[np.bool_]:
    """Return ``(N,)``: whether each image is right; multi-label: in all classes."""
    same: NDArray[np.bool_] = predicted(labels, probs, thresholds) == labels
    return same if labels.ndim == 1 else np.all(same, axis=1)


def decided(predicted: Labels, classes: int) -> Floats:
    """Return predictions as probabilities of 0 and 1 ``(N, C)``, for scores that would decide by the largest or by 0.5.

    Args:
        predicted: ``(N,)`` classes; multi-label ``(N, C)`` of 0 and 1.
        classes: C.
    """
    found: Floats = sparse(predicted, classes).toarray()
    return found


def _accuracy(labels: Labels, probs: Floats, thresholds: Thresholds = 0.5) -> Weighted:
    return mean_of(correct(labels, probs, thresholds))


def _label_accuracy(labels: Labels, probs: Floats, thresholds: Thresholds = 0.5) -> Weighted:
    return mean_of((predicted(labels, probs, thresholds) == labels).reshape(len(probs), -1).mean(axis=1))


def _f1(labels: Labels, probs: Floats, thresholds: Thresholds = 0.5) -> Weighted:
    true, found = (sparse(each, probs.shape[1]) for each in (labels, predicted(labels, probs, thresholds)))
    hits = true * found

    def value(weights: Floats) -> Floats:
        sums = weights @ true + weights @ found
        with np.errstate(invalid="ignore"):  # a class with neither images nor predictions is left out of the mean
            return mean_of_known(2 * (weights @ hits) / sums)

    return value


accuracy = Score("accuracy", _accuracy)
"""Share of the images that are right; multi-label: in all classes."""
label_accuracy = Score("label_accuracy", _label_accuracy)
"""Multi-label: share of the decisions that are right, one per image and class."""
macro_f1 = Score("macro_f1", _f1)
"""Mean F1 score of the classes that have images or predictions."""
