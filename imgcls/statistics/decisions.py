"""Scores of the predicted classes: accuracy, of images or of all labels, balanced accuracy and macro F1."""

import numpy as np
from numpy.typing import NDArray

from imgcls.statistics.weighted import Floats, Labels, Score, Weighted, mean_of, mean_of_known, sparse


def predicted(labels: Labels, probs: Floats) -> NDArray[np.int64]:
    """Return ``(N,)`` predicted classes; multi-label ``(N, C)`` of 0 and 1: which probabilities exceed 0.5."""
    return probs.argmax(axis=1) if labels.ndim == 1 else (probs > 0.5).astype(np.int64)


def correct(labels: Labels, probs: Floats) -> NDArray[np.bool_]:
    """Return ``(N,)``: whether each image is right; multi-label: in all classes."""
    same: NDArray[np.bool_] = predicted(labels, probs) == labels
    return same if labels.ndim == 1 else np.all(same, axis=1)


def decided(predicted: Labels, classes: int) -> Floats:
    """Return predictions as probabilities of 0 and 1 ``(N, C)``, for scores that would decide by the largest or by 0.5.

    Args:
        predicted: ``(N,)`` classes; multi-label ``(N, C)`` of 0 and 1.
        classes: C.
    """
    found: Floats = sparse(predicted, classes).toarray()
    return found


def _label_accuracy(labels: Labels, probs: Floats) -> Weighted:
    return mean_of((predicted(labels, probs) == labels).reshape(len(probs), -1).mean(axis=1))


def _balanced_accuracy(labels: Labels, probs: Floats) -> Weighted:
    true, found = (sparse(each, probs.shape[1]) for each in (labels, predicted(labels, probs)))
    hits = true * found

    def value(weights: Floats) -> Floats:
        with np.errstate(invalid="ignore"):  # a class without images is left out of the mean
            return mean_of_known((weights @ hits) / (weights @ true))

    return value


def _f1(labels: Labels, probs: Floats) -> Weighted:
    true, found = (sparse(each, probs.shape[1]) for each in (labels, predicted(labels, probs)))
    hits = true * found

    def value(weights: Floats) -> Floats:
        sums = weights @ true + weights @ found
        with np.errstate(invalid="ignore"):  # a class with neither images nor predictions is left out of the mean
            return mean_of_known(2 * (weights @ hits) / sums)

    return value


accuracy = Score("accuracy", lambda labels, probs: mean_of(correct(labels, probs)))
"""Share of the images that are right; multi-label: in all classes."""
label_accuracy = Score("label_accuracy", _label_accuracy)
"""Share of the predictions that are right, one per image; multi-label: one per image and class."""
balanced_accuracy = Score("balanced_accuracy", _balanced_accuracy)
"""Mean recall of the classes that have images."""
macro_f1 = Score("macro_f1", _f1)
"""Mean F1 score of the classes that have images or predictions."""
