"""Curves of an evaluation: ROC, precision and recall, and accuracy against the share of predictions that are kept."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imgcls.results.predictions import EvaluatedSplit

Floats = NDArray[np.float64]

_POINTS = 200  # of a drawn curve
GRID = np.linspace(0, 1, _POINTS + 1)
"""x of all curves of classes."""


@dataclass(frozen=True)
class ClassCurve:
    """The curves of a class against the rest.

    Args:
        index: Of the class.
        auroc: Area under the ROC curve; None if the class has no images, or no other images.
        average_precision: Precision at each score, weighted by the recall that it adds; None without images.
        recall: The highest recall at no more than each false positive rate of ``GRID``: the ROC curve.
        precision: The best precision with at least each recall of ``GRID``.
    """

    index: int
    auroc: float | None
    average_precision: float | None
    recall: Floats
    precision: Floats


def class_curves(found: EvaluatedSplit) -> list[ClassCurve]:
    """Return the curves of each class."""
    labels, several = found.labels, found.multilabel
    return [
        _curve(index, labels[:, index] if several else labels == index, found.probs[:, index])
        for index in range(found.probs.shape[1])
    ]


def _curve(index: int, truth: NDArray[np.bool_], scores: Floats) -> ClassCurve:
    """Return the curves, whose areas are of all points and not of the drawn ones."""
    positives = int(truth.sum())
    negatives = len(truth) - positives
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # of each group of equal scores
    hits = np.append(0, np.cumsum(truth[order])[ends])
    false = np.append(0, ends + 1) - hits
    recall, rate = hits / max(positives, 1), false / max(negatives, 1)
    precision = hits[1:] / (ends + 1)
    auroc = float(np.trapezoid(recall, rate)) if positives and negatives else None
    area = float((np.diff(recall) * precision).sum()) if positives else None
    best = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall[1:], GRID).clip(max=len(best) - 1)
    return ClassCurve(index, auroc, area, recall[np.searchsorted(rate, GRID, side="right") - 1], best[at])


def mean_curve(curves: list[ClassCurve]) -> ClassCurve | None:
    """Return the mean of the curves of the classes that have both kinds of images; None if there is none."""
    known = [each for each in curves if each.auroc is not None and each.average_precision is not None]
    if not known:
        return None
    auroc, area = (float(np.mean([getattr(each, name) for each in known])) for name in ("auroc", "average_precision"))
    recall, precision = (np.mean([getattr(each, name) for each in known], axis=0) for name in ("recall", "precision"))
    return ClassCurve(-1, auroc, area, recall, precision)


def summary_curve(found: EvaluatedSplit, curves: list[ClassCurve]) -> ClassCurve | None:
    """Return the curve of the second class if there are two, else the mean; None where all images are of one class."""
    if found.multilabel or len(curves) != 2:
        return mean_curve(curves)
    return None if curves[1].auroc is None else curves[1]


def accuracy_of_most_confident(found: EvaluatedSplit) -> tuple[Floats, Floats]:
    """Return shares of the predictions, the most confident first, and the accuracy of each share."""
    order = np.argsort(-found.confidence, kind="stable")
    right = np.cumsum(found.correct[order])
    counts = np.unique(np.linspace(1, len(found), min(_POINTS, len(found))).round().astype(int))
    counts = counts[counts >= min(10, len(found))]  # the accuracy of a few images says nothing
    return counts / len(found), right[counts - 1] / counts
